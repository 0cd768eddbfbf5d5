"""Does the canary harm one segment only, such as one device with 5 % of the traffic, where the whole hides it?

Each value of a segment key has its own process besides the whole's. A gate's e-value is then
½·E_all + ½·Σ_i w_i·E_i with w_i = 1/(i·(i + 1)): the weights sum to 1, values that were not seen yet count as e = 1, so
the mixture is an e-value of the same null and the gate's share of α stays whole. Values get their place when they are
first seen in both arms, the largest first: that depends on requests, never on what became of them.

Only the rollback looks at segments: promotion asks the whole. A small segment would keep every rollout waiting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rollout.gates.base import Gate, GateSpec, Interval, State
from rollout.judge import mixture

OF_THE_WHOLE = ("divisor", "step_began")  # parts of a gate's state that its segments share
WHOLE_SHARE = 0.5
MOST = 33  # values of one key: evidence.sources tells 32 apart and calls the rest "other"

Segments = list[Any]  # [["device=nano", evidence], …] by first appearance; a JSON object would lose the order


def absorb(gate: Gate, spec: GateSpec, segments: Segments, interval: Interval, whole: State) -> Segments:
    """Add both arms' segments of the gate's key, weighed by references of their own. Raises EvidenceError.

    whole  the gate's state of the whole: what it knows of clusters and of the step holds for the segments
    """
    known = dict(segments)
    shared = {name: whole[name] for name in OF_THE_WHOLE if name in whole}
    for label in _places(spec, list(known), interval):
        arms = interval.canary.segments.get(label), interval.stable.segments.get(label)
        if arms[0] is None or arms[1] is None:
            continue
        before: State = known[label] if label in known else gate.fresh(spec.settings)
        part = Interval(interval.start, interval.end, arms[0], arms[1])
        known[label] = gate.absorb({**before, **shared}, part)
    return [[label, evidence] for label, evidence in known.items()]


def _places(spec: GateSpec, known: Sequence[str], interval: Interval) -> list[str]:
    """Labels of the gate's key by their places; new ones behind the others, by requests in both arms, then name."""
    canary, stable = interval.canary.segments, interval.stable.segments
    found = [
        label
        for label in canary.keys() & stable.keys()
        if label.startswith(f"{spec.segments}=") and canary[label].n and stable[label].n
    ]
    new = [label for label in found if label not in known]
    new.sort(key=lambda label: (-canary[label].n - stable[label].n, label))
    return [*known, *new][:MOST]


def log_e(whole: float, segments: Segments) -> float:
    """Log e-value of the gate from that of the whole and its segments."""
    return float(np.logaddexp.reduce([_LOG_HALF + whole, *_parts(segments), _unseen(len(segments))]))


def loudest(whole: float, segments: Segments) -> int | None:
    """The place of the segment that speaks loudest against the canary; None where the whole does."""
    parts = _parts(segments)
    if not parts or max(parts) <= _LOG_HALF + whole:
        return None
    return int(np.argmax(parts))


_LOG_HALF = math.log(WHOLE_SHARE)


def _parts(segments: Segments) -> list[float]:
    """Each segment's share of the gate's e-value."""
    return [
        math.log((1 - WHOLE_SHARE) / (i * (i + 1))) + mixture.log_e(evidence["fail"])
        for i, (_, evidence) in enumerate(segments, 1)
    ]


def _unseen(count: int) -> float:
    """That of all values after the first `count`: Σ_{i > count} 1/(i·(i + 1)) = 1/(count + 1)."""
    return math.log((1 - WHOLE_SHARE) / (count + 1))
