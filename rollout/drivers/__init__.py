"""Which traffic drivers are there? Add a file here and one line to the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rollout.drivers.base import Driver
from rollout.drivers.envoy import EnvoyDriver
from rollout.drivers.memory import MemoryDriver

DRIVERS: dict[str, Callable[[Mapping[str, Any]], Driver]] = {
    "envoy": EnvoyDriver,
    "memory": MemoryDriver,
}


def make(name: str, config: Mapping[str, Any]) -> Driver:
    """The driver `name` with a fleet's config. Raises LookupError for an unknown name, ValueError("<field>: …")."""
    if name not in DRIVERS:
        raise LookupError(f"no driver {name!r}; there are {', '.join(sorted(DRIVERS))}")
    return DRIVERS[name](config)
