"""How many requests will a gate need before it passes, and before it notices a fault? PURE.

The gates themselves are asked. At a given split and a known past, an interval's log e grows in proportion to its
requests (forms P and H are linear in the counts), so one huge interval of expected counts gives the expected log e
per canary request of every alternative. What is told is where the mixture over the alternatives, at these expected
values, reaches its line. Chance makes a real rollout need fewer or more: of simulated ones with errors from .01 to
2 % the median needed .44 to 1.2 times what is told, and nine of ten at most 2.7 times; its
tests simulate again. Mirrored pairs, labels and segments are not foreseen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rollout import gates
from rollout.gates.base import Arm, Dispersed, GateSpec, Interval, State
from rollout.gates.comparison import PASS_AT
from rollout.gates.errors import PRIOR_ERRORS, PRIOR_REQUESTS
from rollout.judge import mixture

PRECISION = "expected numbers; in simulations nine rollouts of ten needed at most 2.7 times as many"
FAULT_POINTS = 2.0  # the stated fault: so many points more failures than stable
MOST_REQUESTS = 1e12  # beyond this, never
Known = Mapping[str, Any] | None
_SCALE = 1_000_000  # expected counts are whole numbers of an interval so many times as large as what was seen


@dataclass(frozen=True)
class Need:
    """Canary requests that a gate is expected to need; None where that cannot be said, with the reason."""

    gate: str
    requests: int | None
    reason: str = ""


def to_pass(spec: GateSpec, weight_percent: float, stable: Arm, known: Known = None) -> Need:
    """Requests until the gate passes at this weight when the canary equals stable.

    stable  what the stable arm did lately: n ≥ 1 requests and the counts there are
    known   {"assignment", "history"} as gates.base.Dispersed.assume wants them; None: errors come one by one
    """
    missing = _missing(spec, stable)
    if missing:
        return Need(spec.name, None, missing)
    gate, interval = gates.get(spec.name), _expected(stable, stable, weight_percent)
    after = gate.absorb(
        gate.enter_step(_with_a_past(spec, interval, known), weight_percent), _later(interval)
    )
    growth = np.asarray(after["pass"], dtype=float) / interval.canary.n

    def passes(n: float) -> bool:
        return gate.verdict({**after, "pass": (growth * n).tolist()}, spec).log_e_pass >= math.log(PASS_AT)

    requests = _least(passes)
    if requests is None:
        return Need(spec.name, None, "an equal canary never passes at the rates that stable has now")
    return Need(spec.name, requests)


def to_detect(
    specs: Sequence[GateSpec], weight_percent: float, stable: Arm, alpha: float, known: Known = None
) -> Need:
    """Requests until a canary with FAULT_POINTS more failures than stable is rolled back by the errors gate alone.

    The gate's E counts with its share of the weights of all statistical gates that are not in dry run; the other
    gates' part of E is taken as nothing.
    """
    judged = [spec for spec in specs if not spec.dry_run]
    spec = next((spec for spec in judged if spec.name == "errors"), None)
    if spec is None:
        return Need("errors", None, "the plan has no errors gate that may roll back")
    missing = _missing(spec, stable)
    if missing:
        return Need("errors", None, missing)
    faulty = _with_fault(_enlarged(stable))
    before = _with_a_past(spec, _expected(stable, stable, weight_percent), known)
    interval = _later(_split(faulty, _enlarged(stable), weight_percent))
    after = gates.get(spec.name).absorb(before, interval)
    masses = [np.asarray(state["fail"]["log_mass"], dtype=float) for state in (after, before)]
    growth = (masses[0] - masses[1]) / interval.canary.n
    begun = mixture.fresh(growth.size)
    line = -math.log(alpha * spec.weight / sum(other.weight for other in judged))

    def crosses(n: float) -> bool:
        grown = np.asarray(begun["log_mass"]) + growth * n
        return mixture.log_e({**begun, "log_mass": grown.tolist()}) >= line

    requests = _least(crosses)
    if requests is None:
        return Need(
            "errors", None, "at stable's own error rate such an excess is within what the gate tolerates"
        )
    return Need("errors", requests)


def _missing(spec: GateSpec, stable: Arm) -> str:
    """Why nothing can be foreseen for the gate; "" when it can."""
    gate = gates.get(spec.name)
    if gate.source in ("labels", "pairs"):
        return f"depends on how many {gate.source} arrive"
    if stable.n == 0:
        return "stable had no requests lately"
    lacking = [need for need in gate.needs if getattr(stable, need, None) is None]
    return f"needs stable's {' and '.join(lacking)}, which is not at hand" if lacking else ""


def _expected(canary: Arm, stable: Arm, weight_percent: float) -> Interval:
    """Both arms of a huge interval at this split: the counts that such rates lead to, on average."""
    return _split(_enlarged(canary), _enlarged(stable), weight_percent)


def _split(canary: Arm, stable: Arm, weight_percent: float) -> Interval:
    share = weight_percent / 100
    return Interval(0.0, 1.0, _times(canary, share), _times(stable, 1 - share))


def _enlarged(arm: Arm) -> Arm:
    """The arm _SCALE times as large, with the errors gate's prior: no error seen is not a rate of 0."""
    n = arm.n * _SCALE
    rate = (arm.errors + PRIOR_ERRORS) / (arm.n + PRIOR_REQUESTS)
    return replace(_times(arm, _SCALE), errors=round(rate * n))


def _with_fault(arm: Arm) -> Arm:
    return replace(arm, errors=min(arm.n, arm.errors + round(FAULT_POINTS / 100 * arm.n)))


def _times(arm: Arm, factor: float) -> Arm:
    def scaled(counts: tuple[int, ...] | None) -> tuple[int, ...] | None:
        return None if counts is None else tuple(round(count * factor) for count in counts)

    return Arm(
        n=round(arm.n * factor),
        errors=round(arm.errors * factor),
        confidence=scaled(arm.confidence),
        latency=scaled(arm.latency),
        detections=scaled(arm.detections),
    )


def _with_a_past(spec: GateSpec, interval: Interval, known: Known) -> State:
    """The gate's state once it knows stable; no step has begun, so nothing speaks for promotion yet."""
    gate = gates.get(spec.name)
    warm = {name: value for name, value in spec.settings.items() if name != "warm_up_seconds"}
    state = gate.fresh(warm)
    if known is not None and isinstance(gate, Dispersed):
        state = gate.assume(state, known["assignment"], known["history"])
    return gate.absorb(state, interval)


def _later(interval: Interval) -> Interval:
    return replace(interval, start=interval.end, end=interval.end + 1.0)


def _least(reached: Callable[[float], bool]) -> int | None:
    """The least n that reaches its line; None beyond MOST_REQUESTS.

    A log of a mean of exp(growth·n) begins below the line and is convex in n: it crosses once, and so does the least
    of several.
    """
    high = 1.0
    while not reached(high):
        high *= 2
        if high > MOST_REQUESTS:
            return None
    low = high / 2
    while high - low > 0.5:
        middle = 0.5 * (low + high)
        low, high = (low, middle) if reached(middle) else (middle, high)
    return math.ceil(high)
