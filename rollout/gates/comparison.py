"""What do gates that compare a canary's rates with the concurrent stable ones have in common?"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.gates.base import GateSpec, GateVerdict, Interval, State, Verdict
from rollout.gates.settings import at_weight, merged
from rollout.judge import half_plane, mixture, past

PASS_AT = (
    20.0  # e-value at which the step's loss counts as excluded: at most 1 in 20 wrong, whatever the peeking
)

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Counted:
    """One interval as evidence for one question, with k kinds of events counted in both arms."""

    n_c: int
    n_b: int
    x_c: tuple[float, ...]
    x_b: tuple[float, ...]
    log_e: Array  # per alternative

    @classmethod
    def of(cls, canary: Sequence[float] | Array, stable: Sequence[float] | Array, log_e: Array) -> Counted:
        """From (events…, requests) of either arm. Without requests in both arms nothing was evidence."""
        *x_c, n_c = (int(count) for count in canary)
        *x_b, n_b = (int(count) for count in stable)
        if n_c == 0 or n_b == 0:
            return nothing(len(x_c), len(log_e))
        return cls(n_c, n_b, tuple(x_c), tuple(x_b), log_e)


class ComparisonGate(ABC):
    """Two processes: the rollback's over the whole rollout, the promotion's (non-inferiority) over one step.

    A subclass says how an interval is counted and weighed. `value` of its verdicts is the canary's rate minus
    stable's in percentage points over the step; `bound` is the step's margin in points, the loss that PASS
    excludes. When it FAILs: since trouble began, and the tolerated excess over stable's observed rate.

    A loss may be of several kinds (more, fewer, at this threshold or that): PASS excludes each of them, so its
    e-value is the least of theirs. log e is divided by the state's `divisor` ≥ 1 where events come in clusters.
    """

    name: ClassVar[str]
    source: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    default_weight: ClassVar[float]
    needs_reference: ClassVar[bool] = False
    defaults: ClassVar[dict[str, Any]]  # with delta and margin_points at least
    fail_alternatives: ClassVar[int]
    fail_events: ClassVar[int]  # kinds of events that the rollback's process counts
    pass_alternatives: ClassVar[int]
    pass_kinds: ClassVar[int] = 1  # of loss; each has an equal part of the alternatives, side by side
    pass_events: ClassVar[int] = 1  # kinds of events that the promotion's process counts
    past_size: ClassVar[int]
    past_seconds: ClassVar[float]

    @abstractmethod
    def seen(self, interval: Interval) -> tuple[Array, Array]:
        """Canary's and stable's counts of the interval as the gate reads them. Raises EvidenceError."""

    @abstractmethod
    def weigh_harm(self, state: State, canary: Array, stable: Array) -> Counted:
        """The interval as evidence of a canary that is worse than tolerated. `state` knows only the past."""

    @abstractmethod
    def weigh_parity(self, state: State, canary: Array, stable: Array) -> Counted:
        """The interval as evidence that the loss is below the step's margin. `state` knows only the past."""

    @abstractmethod
    def sentence(self, state: State, tally: State, *, failing: bool) -> str:
        """The numbers of a tally as an operator wants to read them."""

    def remember(self, state: State, stable: Array) -> Array:
        """(past_size,) what the gate keeps of stable's counts for the intervals to come."""
        return stable

    def fresh(self, settings: Mapping[str, Any]) -> State:
        """The state before any evidence. Raises ValueError("<key>: …") for a bad setting."""
        return {
            "settings": merged(self.defaults, settings),
            "weight_percent": None,
            "divisor": 1.0,
            "fail": mixture.fresh(self.fail_alternatives),
            "pass": [0.0] * self.pass_alternatives,
            "past": past.fresh(self.past_size),
            "trouble": {"seconds": 0.0, "tally": _no_tally(self.fail_events)},
            "step": _no_tally(self.pass_events),
        }

    def enter_step(self, state: State, weight_percent: float) -> State:
        """Start the promotion's process of a step; the rollback's goes on."""
        return {
            **state,
            "weight_percent": float(weight_percent),
            "pass": [0.0] * self.pass_alternatives,
            "step": _no_tally(self.pass_events),
        }

    def absorb(self, state: State, interval: Interval) -> State:
        """Add one interval's evidence, weighed by references from before it. Raises EvidenceError."""
        canary, stable = self.seen(interval)
        harm = self.weigh_harm(state, canary, stable)
        divisor = state.get("divisor", 1.0)  # rollouts that began before there was one
        fail = mixture.absorb(state["fail"], harm.log_e / divisor, interval.start)
        new = {
            **state,
            "fail": fail,
            "trouble": self._trouble(state, fail, harm, interval),
            "past": past.add(state["past"], self.remember(state, stable), interval.start, self.past_seconds),
        }
        if state["weight_percent"] is not None:
            parity = self.weigh_parity(state, canary, stable)
            new["pass"] = mixture.add(state["pass"], parity.log_e / divisor)
            new["step"] = _tallied(state["step"], parity)
        return new

    def verdict(self, state: State, spec: GateSpec) -> GateVerdict:
        """PASS at e ≥ 20 of the step's non-inferiority, else INCONCLUSIVE."""
        log_pass = self.log_pass(state)
        tally = state["step"]
        margin = self.margin_points(state)
        counted = tally["n_c"] > 0
        if not counted:
            answer, reason = Verdict.INCONCLUSIVE, "no evidence from the canary in this step yet"
        elif log_pass >= math.log(PASS_AT):
            answer = Verdict.PASS
            reason = f"{self.sentence(state, tally, failing=False)}; loss of {margin:g} points excluded"
        else:
            answer = Verdict.INCONCLUSIVE
            reason = (
                f"{self.sentence(state, tally, failing=False)}; loss of {margin:g} points not excluded yet"
            )
        return GateVerdict(
            name=self.name,
            verdict=answer,
            value=self.excess_points(tally, 0) if counted else None,
            bound=margin,
            n=tally["n_c"],
            reason=f"{reason}{self.remark(state)}",
            log_e_fail=mixture.log_e(state["fail"]),
            log_e_pass=log_pass,
            required=spec.required,
            dry_run=spec.dry_run,
        )

    def _trouble(self, state: State, fail: State, harm: Counted, interval: Interval) -> State:
        """What was counted since the evidence of harm last stood below even: what a FAIL is about.

        Counts since the start would hide a fault that began late.
        """
        if mixture.log_e(fail) < 0:
            return {"seconds": 0.0, "tally": _no_tally(self.fail_events)}
        seen = state["trouble"]
        seconds = seen["seconds"] + interval.end - interval.start
        return {"seconds": seconds, "tally": _tallied(seen["tally"], harm)}

    def failure(self, state: State, spec: GateSpec) -> GateVerdict:
        """The FAIL that the judge gives when E crosses its line, with the numbers since trouble began."""
        tally = state["trouble"]["tally"]
        worst = self.worst(state)
        seconds = state["trouble"]["seconds"]
        return GateVerdict(
            name=self.name,
            verdict=Verdict.FAIL,
            value=self.excess_points(tally, worst),
            bound=self.tolerated_points(state, tally, worst),
            n=tally["n_c"],
            reason=f"{self.sentence(state, tally, failing=True)}, in {seconds:.0f} s{self.remark(state)}",
            log_e_fail=mixture.log_e(state["fail"]),
            log_e_pass=self.log_pass(state),
            required=spec.required,
            dry_run=spec.dry_run,
        )

    def worst(self, state: State) -> int:
        """Which of the counted kinds of events speaks loudest against the canary."""
        per_event = self.fail_alternatives // self.fail_events
        return int(np.argmax(state["fail"]["log_mass"])) // per_event

    def log_pass(self, state: State) -> float:
        """Log e-value of the step's promotion: the least over the kinds of loss, each the mean of its alternatives."""
        kinds = np.reshape(state["pass"], (self.pass_kinds, -1))
        return float(np.min(np.logaddexp.reduce(kinds, axis=1))) - math.log(kinds.shape[1])

    def excess_points(self, tally: State, kind: int) -> float | None:
        """The canary's rate minus stable's, in percentage points; None without requests in both arms."""
        if not tally["n_c"] or not tally["n_b"]:
            return None
        return float(100 * (tally["x_c"][kind] / tally["n_c"] - tally["x_b"][kind] / tally["n_b"]))

    def tolerated_points(self, state: State, tally: State, kind: int) -> float:
        """The excess over stable's rate in the tally that the null allows, in percentage points."""
        settings = state["settings"]
        stable_rate = tally["x_b"][kind] / max(1, tally["n_b"])
        return float(100 * ((settings["theta0"] - 1) * stable_rate + settings["delta"]))

    def remark(self, state: State) -> str:
        """What a reader of the numbers should know besides; "" or "; …"."""
        return ""

    def margin_points(self, state: State) -> float:
        """The loss, in percentage points, that must be excluded to leave the present step."""
        return at_weight(state["settings"]["margin_points"], state["weight_percent"] or 0.0)


def nothing(kinds: int, alternatives: int) -> Counted:
    """An interval that is no evidence: an arm without requests, or no past to refer to."""
    return Counted(0, 0, (0,) * kinds, (0,) * kinds, np.zeros(alternatives))


def harm_log_e(
    counts: tuple[float, Array, float, Array], base: Array, odds_ratios: Array, theta0: float, delta: float
) -> Array:
    """Form H against H0: p_c ≤ θ0·p_b + δ at k thresholds, for (n_c, x_c (k,), n_b, x_b (k,)).

    base  (k,) stable's past rates; the alternatives bet on p_b = base and on a canary with the boundary's
    odds times each ratio (m,). Odds keep rates below 1 and mean the same for a median as for a p99.8; for
    rare events they are rate ratios. Returns (k·m,), the ratios of one threshold side by side.
    """
    n_c, x_c, n_b, x_b = counts
    boundary = np.clip(theta0 * base + delta, 0.0, 1 - 1e-6)
    odds = ((boundary / (1 - boundary))[:, None] * odds_ratios).ravel()
    width = len(odds_ratios)
    return half_plane.log_e(
        side=half_plane.HARM,
        n_c=n_c,
        x_c=np.repeat(x_c, width),
        n_b=n_b,
        x_b=np.repeat(x_b, width),
        p_c1=odds / (1 + odds),
        p_b1=np.repeat(base, width),
        theta0=theta0,
        delta=delta,
    )


def parity_log_e(
    counts: tuple[float, ArrayLike, float, ArrayLike], p_b1: Array, p_c1: Array, margin_points: float
) -> Array:
    """Form H against H0: p_c ≥ p_b + margin, for (n_c, x_c, n_b, x_b); the events may be (k,) as the rates are."""
    n_c, x_c, n_b, x_b = counts
    return half_plane.log_e(
        side=half_plane.NON_INFERIORITY,
        n_c=n_c,
        x_c=x_c,
        n_b=n_b,
        x_b=x_b,
        p_c1=p_c1,
        p_b1=p_b1,
        theta0=1.0,
        delta=margin_points / 100,
    )


def percent(events: int, n: int) -> str:
    """A rate as people write it: "2.02 %", ".05 %", "0 %"."""
    return f"{100 * events / n:.2f} %".removeprefix("0") if events else "0 %"


def _no_tally(kinds: int) -> State:
    return {"n_c": 0, "n_b": 0, "x_c": [0] * kinds, "x_b": [0] * kinds}


def _tallied(tally: State, counted: Counted) -> State:
    return {
        "n_c": tally["n_c"] + counted.n_c,
        "n_b": tally["n_b"] + counted.n_b,
        "x_c": [a + b for a, b in zip(tally["x_c"], counted.x_c, strict=True)],
        "x_b": [a + b for a, b in zip(tally["x_b"], counted.x_b, strict=True)],
    }
