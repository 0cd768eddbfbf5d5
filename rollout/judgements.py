"""What does the judge say to counts that somebody else brings? The judge alone, for tools that move traffic themselves.

The state goes in and comes out: JSON, a few kB. Whoever keeps it must not let the other side change it. PURE.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rollout import judge
from rollout.gates.base import Arm, GateSpec, GateVerdict, Interval, State, Verdict
from rollout.judge import EvidenceError, dispersion

Reading = Mapping[str, Any]  # {"at": unix seconds, "canary": [requests, errors], "stable": […]}


@dataclass(frozen=True)
class Terms:
    """What is asked of the canary; the same all through a judgement."""

    gates: tuple[GateSpec, ...]
    alpha: float = 0.01
    assignment: str = "request"  # the unit of the router's split: "request", "connection" or "key"

    def to_json(self) -> dict[str, Any]:
        """As the state keeps it."""
        return {
            "gates": [asdict(gate) for gate in self.gates],
            "alpha": self.alpha,
            "assignment": self.assignment,
        }


@dataclass(frozen=True)
class Answer:
    """The verdict on all evidence so far. `used` is false where this call added none; `reason` says why."""

    verdict: Verdict
    log_e: float
    reason: str
    gates: tuple[GateVerdict, ...]
    state: State
    used: bool


def begin(terms: Terms, weight_percent: float) -> State:
    """The state before any evidence. Raises ValueError as rollout.judge.start does."""
    judged = judge.enter_step(judge.start(terms.gates), weight_percent)
    known = {"assignment": terms.assignment, "history": dispersion.fresh()}
    for gate in judge.unassumed(judged):
        judged = judge.absorb(judged, gate, Interval(0.0, 1.0, Arm(0), Arm(0), known=known))
    return {"terms": terms.to_json(), "weight_percent": weight_percent, "judge": judged, "reading": None}


def differs(state: State, terms: Terms) -> str:
    """Which of the terms the state was begun with is another, "gates", "alpha" or "assignment"; "" when none is."""
    return next((name for name, value in terms.to_json().items() if state["terms"][name] != value), "")


def enter_step(state: State, weight_percent: float) -> State:
    """Every gate is asked again at this canary weight; evidence of harm goes on.

    Counters are read afresh: an interval in which the split changed is no evidence.
    """
    entered = judge.enter_step(state["judge"], weight_percent)
    return {**state, "weight_percent": weight_percent, "judge": entered, "reading": None}


def judgement(state: State, interval: Interval) -> Answer:
    """Absorb one interval into every gate and conclude. Raises EvidenceError for counts that cannot be.

    An interval that begins before the end of one that was used adds nothing: sending it again multiplies no evidence.
    """
    before = judged = state["judge"]
    for gate in state["terms"]["gates"]:
        judged = judge.absorb(judged, gate["name"], interval)
    used = judged != before
    unused = "" if used else "the interval overlaps one that was used"
    return _conclude({**state, "judge": judged}, used, unused)


def from_counters(state: State, reading: Reading) -> Answer:
    """Absorb what two counters per arm gained since the last reading, and conclude.

    The first reading, one after a counter went back (a restart), and one with more errors than requests only begin
    the next interval.
    """
    last = state["reading"]
    if last is not None and reading["at"] <= last["at"]:
        return _conclude(state, False, "a later reading was used already")
    begun = {**state, "reading": dict(reading)}
    if last is None:
        return _conclude(begun, False, "the first reading: evidence begins with the next")
    gained = {
        arm: [now - then for now, then in zip(reading[arm], last[arm], strict=True)]
        for arm in ("canary", "stable")
    }
    if min(gained["canary"] + gained["stable"]) < 0:
        return _conclude(begun, False, "a counter went back: evidence begins anew with the next reading")
    arms = {arm: Arm(round(n), round(errors)) for arm, (n, errors) in gained.items()}
    try:
        answer = judgement(state, Interval(last["at"], reading["at"], arms["canary"], arms["stable"]))
    except EvidenceError as err:
        return _conclude(begun, False, f"evidence refused: {err}")
    return replace(answer, state={**answer.state, "reading": dict(reading)})


def e_value(log_e: float) -> float:
    """E itself; where a double cannot hold it, the largest power of e that it can."""
    return math.exp(min(log_e, 709.0))


def _conclude(state: State, used: bool, unused: str) -> Answer:
    """FAIL when the evidence crossed its line, PASS when every required gate passed, else INCONCLUSIVE."""
    found = judge.conclude(state["judge"], state["terms"]["alpha"])
    waiting = [g.name for g in found.gates if g.required and not g.dry_run and g.verdict is not Verdict.PASS]
    if found.failed is not None:
        verdict, reason = Verdict.FAIL, found.failed.failed_because
    elif waiting:
        verdict, reason = Verdict.INCONCLUSIVE, f"waits for {', '.join(waiting)}"
    else:
        verdict, reason = Verdict.PASS, f"every gate passed at {state['weight_percent']:g} %"
    said = f"{reason}; {unused}" if unused else reason
    return Answer(verdict, found.log_e, said, found.gates, state, used)
