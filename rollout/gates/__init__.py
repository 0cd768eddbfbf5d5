"""Which gates are there? Add a file to this folder and a line to the table; tests/contracts picks it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.gates.base import Gate
from rollout.gates.confidence import ConfidenceGate
from rollout.gates.errors import ErrorsGate
from rollout.gates.latency import LatencyGate

GATES: dict[str, Gate] = {gate.name: gate for gate in (ErrorsGate(), LatencyGate(), ConfidenceGate())}


class UnknownGate(LookupError, ValueError):
    """A name that is not in the table."""


def get(name: str) -> Gate:
    """The gate of that name. Raises UnknownGate, naming the gates there are."""
    try:
        return GATES[name]
    except KeyError:
        raise UnknownGate(f"no gate {name!r}; there are {', '.join(GATES)}") from None


def check(name: str, settings: Mapping[str, Any]) -> None:
    """Whether a plan may use the gate so. Raises UnknownGate, or ValueError("<key>: …") for a bad setting."""
    get(name).fresh(settings)
