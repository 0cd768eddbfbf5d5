"""Which traffic drivers are there? Add a file here and one line to the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.models import Fleet
from rollout.drivers import gateway_api
from rollout.drivers.base import Driver
from rollout.drivers.envoy import driver
from rollout.drivers.kserve import KServeDriver
from rollout.drivers.kube.config import SECRET_FIELDS
from rollout.drivers.memory import MemoryDriver

DRIVERS: dict[str, Callable[[Mapping[str, Any], str], Driver]] = {  # each takes its fleet's config and name
    "envoy": driver.driver,
    "gateway_api": gateway_api.driver,
    "kserve": KServeDriver,
    "memory": MemoryDriver,
}
SECRETS: dict[str, tuple[str, ...]] = {  # which fields of a config are stored sealed, and never shown
    "gateway_api": SECRET_FIELDS,
    "kserve": SECRET_FIELDS,
}


def of(fleet: Fleet) -> Driver:
    """The driver of a stored fleet."""
    return make(fleet.driver, fleet.config, fleet.name)


def make(name: str, config: Mapping[str, Any], fleet: str = "") -> Driver:
    """The driver `name` of a fleet. LookupError for an unknown one, ValueError("<field>: …") for a bad config."""
    return _known(name)(config, fleet)


def secret_fields(name: str) -> tuple[str, ...]:
    """The secret fields of a driver's config. Raises LookupError for an unknown driver."""
    _known(name)
    return SECRETS.get(name, ())


def _known(name: str) -> Callable[[Mapping[str, Any], str], Driver]:
    if name not in DRIVERS:
        raise LookupError(f"no driver {name!r}; there are {', '.join(sorted(DRIVERS))}")
    return DRIVERS[name]
