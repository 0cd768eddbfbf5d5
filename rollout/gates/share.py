"""What do gates have in common that ask how large a share of the predictions has a confidence within some range?"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from davy.counting import CONFIDENCE_BINS

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
from rollout.judge import past
from rollout.judge.counts import check_histogram

#: Stable's share before it is known: PRIOR_EVENTS in PRIOR_PREDICTIONS.
PRIOR_EVENTS, PRIOR_PREDICTIONS = 2.0, 20.0
#: Rollback's alternatives: odds beyond the tolerated share.
HARM_ODDS = np.array([1.3, 2.0, 5.0])
#: Promotion's alternatives: canary's odds relative to stable's; equal, and a little better.
PARITY_ODDS = np.array([1.0, 0.85])


class ShareGate(ClusteredGate):
    """One share of the predictions, by form H to roll back and to promote; only a rise of it can FAIL."""

    source: ClassVar[str] = "collector"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)
    events_in_words: ClassVar[str] = "unsure predictions"
    fail_alternatives: ClassVar[int] = len(HARM_ODDS)
    fail_events: ClassVar[int] = 1
    pass_alternatives: ClassVar[int] = len(PARITY_ODDS)
    past_size: ClassVar[int] = 2
    past_seconds: ClassVar[float] = 120.0

    @abstractmethod
    def bins(self, settings: Mapping[str, Any]) -> slice:
        """Which of the 100 bins of .01 are counted."""

    @abstractmethod
    def words(self, settings: Mapping[str, Any]) -> str:
        """The range in words: "below .6"."""

    def seen(self, interval: Interval) -> tuple[Array, Array]:
        """(100,) predictions by confidence of either arm; nothing where the source counts no confidences."""
        if interval.canary.confidence is None or interval.stable.confidence is None:
            return np.zeros(CONFIDENCE_BINS), np.zeros(CONFIDENCE_BINS)
        return _histogram("canary", interval.canary), _histogram("stable", interval.stable)

    def remember(self, state: State, stable: Array) -> Array:
        """(predictions within the range, all)."""
        return self._counted(state, stable)

    def weigh_harm(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form H against the tolerated share, betting on higher odds."""
        base = _base(state)
        if base is None:
            return nothing(self.fail_events, self.fail_alternatives)
        settings = state["settings"]
        canary, stable = self._counted(state, canary), self._counted(state, stable)
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
        canary, stable = self._counted(state, canary), self._counted(state, stable)
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
            f"canary {x_c:,} of {n_c:,} predictions {self.words(state['settings'])} ({percent(x_c, n_c)}), "
            f"stable {x_b:,} of {n_b:,} ({percent(x_b, n_b)})"
        )

    def _counted(self, state: State, histogram: Array) -> Array:
        """(2,) predictions within the range, and all."""
        return np.array([histogram[self.bins(state["settings"])].sum(), histogram.sum()])


def _histogram(arm_name: str, arm: Arm) -> Array:
    histogram = arm.confidence or ()
    check_histogram(arm_name, histogram, CONFIDENCE_BINS)
    return np.asarray(histogram, dtype=float)


def _base(state: State) -> float | None:
    """Stable's past share, strictly inside (0, 1); None before there is a past."""
    events, predictions = past.counts(state["past"])
    if predictions <= 0:
        return None
    return float((events + PRIOR_EVENTS) / (predictions + PRIOR_PREDICTIONS))
