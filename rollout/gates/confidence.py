"""Is the canary unsure (confidence below .6) more often than stable?

One-sided: only a rise of the unsure share can FAIL, so that a better model never does.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from davy.counting import CONFIDENCE_BINS

from rollout.gates.base import Arm, Interval, State
from rollout.gates.comparison import (
    Array,
    ComparisonGate,
    Counted,
    harm_log_e,
    nothing,
    parity_log_e,
    percent,
)
from rollout.judge import past
from rollout.judge.counts import check_histogram

UNSURE_BINS = 60  # bins of .01 below a confidence of .6
#: Stable's unsure share before it is known: PRIOR_UNSURE in PRIOR_PREDICTIONS.
PRIOR_UNSURE, PRIOR_PREDICTIONS = 2.0, 20.0
#: Rollback's alternatives: odds beyond the tolerated share.
HARM_ODDS = np.array([1.3, 2.0, 5.0])
#: Promotion's alternatives: canary's odds relative to stable's; equal, and a little better.
PARITY_ODDS = np.array([1.0, 0.85])


class ConfidenceGate(ComparisonGate):
    """The share of predictions below .6, by form H both to roll back and to promote."""

    name: ClassVar[str] = "confidence"
    source: ClassVar[str] = "collector"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)
    default_weight: ClassVar[float] = 0.15
    defaults: ClassVar[dict[str, Any]] = {
        "theta0": 1.25,
        "delta": 0.02,
        "margin_points": {"1": 10.0, "5": 5.0, "25": 3.0, "50": 2.0},
    }
    fail_alternatives: ClassVar[int] = len(HARM_ODDS)
    fail_events: ClassVar[int] = 1
    pass_alternatives: ClassVar[int] = len(PARITY_ODDS)
    past_size: ClassVar[int] = 2
    past_seconds: ClassVar[float] = 120.0

    def seen(self, interval: Interval) -> tuple[Array, Array]:
        """(unsure, all) predictions of either arm; nothing where the source counts no confidences."""
        if interval.canary.confidence is None or interval.stable.confidence is None:
            return np.zeros(2), np.zeros(2)
        return _unsure("canary", interval.canary), _unsure("stable", interval.stable)

    def weigh_harm(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form H against the tolerated share, betting on higher odds."""
        base = _base(state)
        if base is None:
            return nothing(self.fail_events, self.fail_alternatives)
        settings = state["settings"]
        log_e = harm_log_e(
            (canary[1], canary[:1], stable[1], stable[:1]),
            np.array([base]),
            HARM_ODDS,
            settings["theta0"],
            settings["delta"],
        )
        return Counted.of(canary, stable, log_e)

    def weigh_parity(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form H against a loss of the step's margin, betting that the canary is equal or a little better."""
        base = _base(state)
        if base is None:
            return nothing(1, self.pass_alternatives)
        odds = base / (1 - base) * PARITY_ODDS
        log_e = parity_log_e(
            (canary[1], canary[0], stable[1], stable[0]),
            np.full(odds.shape, base),
            odds / (1 + odds),
            self.margin_points(state),
        )
        return Counted.of(canary, stable, log_e)

    def sentence(self, state: State, tally: State, *, failing: bool) -> str:
        """ "canary 61 of 400 predictions below .6 (15.25 %), stable 960 of 9,600 (10.00 %)"."""
        (x_c,), (x_b,), n_c, n_b = tally["x_c"], tally["x_b"], tally["n_c"], tally["n_b"]
        return (
            f"canary {x_c:,} of {n_c:,} predictions below .6 ({percent(x_c, n_c)}), "
            f"stable {x_b:,} of {n_b:,} ({percent(x_b, n_b)})"
        )


def _unsure(arm_name: str, arm: Arm) -> Array:
    histogram = arm.confidence or ()
    check_histogram(arm_name, histogram, CONFIDENCE_BINS)
    return np.array([sum(histogram[:UNSURE_BINS]), sum(histogram)], dtype=float)


def _base(state: State) -> float | None:
    """Stable's past unsure share, strictly inside (0, 1); None before there is a past."""
    unsure, predictions = past.counts(state["past"])
    if predictions <= 0:
        return None
    return float((unsure + PRIOR_UNSURE) / (predictions + PRIOR_PREDICTIONS))
