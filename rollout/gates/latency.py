"""Is the canary slower than stable, anywhere from the median to the far tail?

Dynamic batching makes a small arm of the same model a little slower or faster than a large one, so the canary
is counted above t·(1 + τ) + 1 ms and stable above t.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from davy.counting import LATENCY_BINS, LATENCY_EDGES_SECONDS
from numpy.typing import NDArray

from rollout.gates.base import Arm, Interval, State
from rollout.gates.clustered import ClusteredGate
from rollout.gates.comparison import (
    Array,
    Counted,
    harm_log_e,
    nothing,
    parity_log_e,
    percent,
)
from rollout.gates.settings import at_weight
from rollout.judge import past
from rollout.judge.counts import check_histogram

#: Shares of stable above the thresholds: p50, p75, p90, p95, p99, p99.8.
HARM_TAILS = np.array([0.5, 0.25, 0.1, 0.05, 0.01, 0.002])
PARITY_TAIL = np.array([0.01])  # the p99 bucket
#: Rollback's alternatives: odds beyond the tolerated share.
HARM_ODDS = np.array([1.5, 4.0, 20.0])
#: Promotion's alternatives: canary's odds above its shifted threshold relative to stable's above its own.
PARITY_ODDS = np.array([1.0, 0.5, 2.0])
PRIOR_REQUESTS = 20.0  # weight of the nominal tail in stable's past tail
LEAST_PAST = 50.0  # stable requests before which thresholds would be guesses
SHIFT_SECONDS = 1e-3

Indices = NDArray[np.int64]


class LatencyGate(ClusteredGate):
    """Shares of requests above stable's past quantiles, by form H both to roll back and to promote.

    The setting `source` says whose latencies: the collector's, in the model server, or with "router" those that the
    router measured, for servers without a collector. The router's hold retries and fallback, so intervals with such
    requests are left out there; and it is one source for the whole rollout, since two would count requests twice.

    A server that is cold after a change of weight is slow, and is judged so, unless the plan has said beforehand for
    how long it may be: intervals that begin within `warm_up_seconds` of the step's first are no evidence, neither
    of harm nor for promotion. By default none are left out, for users wait all the same.
    """

    name: ClassVar[str] = "latency"
    source: ClassVar[str] = "collector"
    needs: ClassVar[tuple[str, ...]] = ("latency",)
    default_weight: ClassVar[float] = 0.25
    events_in_words: ClassVar[str] = "slow requests"
    defaults: ClassVar[dict[str, Any]] = {
        "source": "collector",
        "theta0": 1.15,
        "delta": 0.002,
        "tolerance": 0.10,
        "warm_up_seconds": 0.0,
        "promote_tolerance": {"1": 0.20, "5": 0.15, "25": 0.10, "50": 0.10},
        "margin_points": {"1": 3.0, "5": 2.0, "25": 1.0, "50": 0.5},
    }
    fail_alternatives: ClassVar[int] = len(HARM_TAILS) * len(HARM_ODDS)
    fail_events: ClassVar[int] = len(HARM_TAILS)
    pass_alternatives: ClassVar[int] = len(PARITY_ODDS)
    past_size: ClassVar[int] = LATENCY_BINS
    past_seconds: ClassVar[float] = 120.0

    def enter_step(self, state: State, weight_percent: float) -> State:
        """Start the promotion's process of a step, and its warm-up."""
        return {**super().enter_step(state, weight_percent), "step_began": None}

    def absorb(self, state: State, interval: Interval) -> State:
        """Add one interval's evidence; one of the warm-up only says what stable looks like. Raises EvidenceError."""
        known = state.get("step_began")
        began = interval.start if known is None else known
        state = {**state, "step_began": began}
        if interval.start >= began + state["settings"].get("warm_up_seconds", 0.0):
            return super().absorb(state, interval)
        _, stable = self.seen(interval)
        return {**state, "past": past.add(state["past"], stable, interval.start, self.past_seconds)}

    def seen(self, interval: Interval) -> tuple[Array, Array]:
        """Both arms' latency histograms (96,); nothing where the source counts no latencies."""
        if interval.canary.latency is None or interval.stable.latency is None:
            return np.zeros(LATENCY_BINS), np.zeros(LATENCY_BINS)
        return _histogram("canary", interval.canary), _histogram("stable", interval.stable)

    def weigh_harm(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form H at every threshold, betting on higher odds."""
        reference = past.counts(state["past"])
        if reference.sum() < LEAST_PAST:
            return nothing(self.fail_events, self.fail_alternatives)
        settings = state["settings"]
        thresholds = _thresholds(reference, HARM_TAILS)
        x_c = _above(canary)[_shifted_up(thresholds, settings["tolerance"])]
        x_b = _above(stable)[thresholds]
        n_c, n_b = canary.sum(), stable.sum()
        base = _base(reference, thresholds, HARM_TAILS)
        log_e = harm_log_e((n_c, x_c, n_b, x_b), base, HARM_ODDS, settings["theta0"], settings["delta"])
        return Counted.of((*x_c, n_c), (*x_b, n_b), log_e)

    def weigh_parity(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form H at the p99 bucket against a loss of the step's margin."""
        reference = past.counts(state["past"])
        if reference.sum() < LEAST_PAST:
            return nothing(1, self.pass_alternatives)
        thresholds = _thresholds(reference, PARITY_TAIL)
        x_c = _above(canary)[_shifted_down(thresholds, self._promote_tolerance(state))]
        x_b = _above(stable)[thresholds]
        n_c, n_b = canary.sum(), stable.sum()
        base = _base(reference, thresholds, PARITY_TAIL)
        odds = base / (1 - base) * PARITY_ODDS
        log_e = parity_log_e(
            (n_c, x_c[0], n_b, x_b[0]),
            np.full(odds.shape, base),
            odds / (1 + odds),
            self.margin_points(state),
        )
        return Counted.of((*x_c, n_c), (*x_b, n_b), log_e)

    def sentence(self, state: State, tally: State, *, failing: bool) -> str:
        """ "canary 61 of 400 slower than 31.6 ms (15.25 %), stable 96 of 9,600 slower than 23.7 ms (1 %)".

        The thresholds named are the present ones; they move with stable.
        """
        tails = HARM_TAILS if failing else PARITY_TAIL
        kind = self.worst(state) if failing else 0
        threshold = _thresholds(past.counts(state["past"]), tails)[kind : kind + 1]
        if failing:
            shifted = _shifted_up(threshold, state["settings"]["tolerance"])
        else:
            shifted = _shifted_down(threshold, self._promote_tolerance(state))
        x_c, x_b, n_c, n_b = tally["x_c"][kind], tally["x_b"][kind], tally["n_c"], tally["n_b"]
        return (
            f"canary {x_c:,} of {n_c:,} requests slower than {_milliseconds(shifted)} ({percent(x_c, n_c)}), "
            f"stable {x_b:,} of {n_b:,} slower than {_milliseconds(threshold)} ({percent(x_b, n_b)})"
        )

    def _promote_tolerance(self, state: State) -> float:
        return at_weight(state["settings"]["promote_tolerance"], state["weight_percent"] or 0.0)


def _histogram(arm_name: str, arm: Arm) -> Array:
    histogram = arm.latency or ()
    check_histogram(arm_name, histogram, LATENCY_BINS)
    return np.asarray(histogram, dtype=float)


def _above(histogram: Array) -> Array:
    """(97,) counts at or above each bin edge."""
    return np.append(np.cumsum(histogram[::-1])[::-1], 0.0)


def _thresholds(reference: Array, tails: Array) -> Indices:
    """(k,) the lowest edge above which no more than each tail share of the reference lies."""
    above = _above(reference)
    lowest: Indices = np.argmax(above <= tails[:, None] * above[0], axis=1)
    return np.minimum(lowest, LATENCY_BINS - 1)


def _base(reference: Array, thresholds: Indices, tails: Array) -> Array:
    """(k,) stable's past shares above the thresholds, strictly inside (0, 1)."""
    above = _above(reference)
    return np.asarray((above[thresholds] + tails * PRIOR_REQUESTS) / (above[0] + PRIOR_REQUESTS))


def _shifted_up(thresholds: Indices, tolerance: float) -> Indices:
    """Edges at or above t·(1 + τ) + 1 ms: what counts as slow to roll back is never less slow than stated."""
    wanted = LATENCY_EDGES_SECONDS[thresholds] * (1 + tolerance) + SHIFT_SECONDS
    return np.minimum(np.searchsorted(LATENCY_EDGES_SECONDS, wanted, side="left"), LATENCY_BINS)


def _shifted_down(thresholds: Indices, tolerance: float) -> Indices:
    """Edges at or below t·(1 + τ) + 1 ms.

    To promote, the shift must round down: counting fewer slow requests of the canary speaks for it, so a
    threshold above the stated one would break E e ≤ 1 on the reversed null.
    """
    wanted = LATENCY_EDGES_SECONDS[thresholds] * (1 + tolerance) + SHIFT_SECONDS
    return np.minimum(np.searchsorted(LATENCY_EDGES_SECONDS, wanted, side="right") - 1, LATENCY_BINS - 1)


def _milliseconds(index: Indices) -> str:
    milliseconds = 1e3 * LATENCY_EDGES_SECONDS[index[0]]
    return f"{milliseconds:,.0f} ms" if milliseconds >= 100 else f"{milliseconds:.3g} ms"
