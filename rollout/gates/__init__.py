"""Which gates are there? Add a file to this folder and a line to the table; tests/contracts picks it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.gates.accuracy import AccuracyGate
from rollout.gates.base import Gate, GateSpec
from rollout.gates.confidence import ConfidenceGate
from rollout.gates.detections import DetectionsGate
from rollout.gates.embedding_shift import EmbeddingShiftGate
from rollout.gates.errors import ErrorsGate
from rollout.gates.label_free_accuracy import LabelFreeAccuracyGate
from rollout.gates.latency import LatencyGate
from rollout.gates.parity import ParityGate
from rollout.gates.unsure_share import UnsureShareGate

_ALL: tuple[Gate, ...] = (
    ErrorsGate(),
    LatencyGate(),
    ConfidenceGate(),
    EmbeddingShiftGate(),
    DetectionsGate(),
    UnsureShareGate(),
    AccuracyGate(),
    LabelFreeAccuracyGate(),
    ParityGate(),
)
GATES: dict[str, Gate] = {gate.name: gate for gate in _ALL}


class UnknownGate(LookupError, ValueError):
    """A name that is not in the table."""


def get(name: str) -> Gate:
    """The gate of that name. Raises UnknownGate, naming the gates there are."""
    try:
        return GATES[name]
    except KeyError:
        raise UnknownGate(f"no gate {name!r}; there are {', '.join(GATES)}") from None


def source(spec: GateSpec) -> str:
    """Where a plan's gate takes its counts from: what the plan says, else the gate's own source."""
    return str(spec.settings.get("source", get(spec.name).source))


def check(name: str, settings: Mapping[str, Any]) -> str:
    """Its kind, where a plan may use the gate so. Raises UnknownGate, or ValueError("<key>: …")."""
    get(name).fresh(settings)
    return "statistical"
