"""How accurate does the canary expect itself to be, compared with stable, before anybody has labelled anything?

The mean calibrated confidence of an arm estimates its accuracy (CBPE: NannyML 2022; Garg et al., ICLR 2022, "average
confidence") as long as the calibration holds for it. That is likely for a variant of the same weights, and unknown for
other weights: a new model that is less overconfident looks worse here than it is. So no shipped plan asks it.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from davy.counting import CONFIDENCE_BINS

from rollout.gates.base import Arm, Interval, State
from rollout.gates.comparison import Array, ComparisonGate, Counted, nothing
from rollout.judge import bounded_mean, past
from rollout.judge.counts import check_histogram
from rollout.judge.half_plane import HARM, NON_INFERIORITY

#: Rollback's alternatives: mean expected mistakes beyond what is tolerated.
HARM_EXCESS = np.array([0.01, 0.03, 0.1, 0.3])
#: Promotion's alternatives: an equal canary, with the growth-optimal stake and a share of it.
STAKE_SHARES = np.array([1.0, 0.4])
LEAST_PAST = 50.0  # stable predictions before which its mean would be a guess
LEAST_VARIANCE = 1e-4
MIDDLES = (np.arange(CONFIDENCE_BINS) + 0.5) / CONFIDENCE_BINS


class LabelFreeAccuracyGate(ComparisonGate):
    """The mean of 1 − calibrated confidence, compared as bounded scores; only a rise can FAIL.

    calibration  {"50": .4, "100": .97}: the accuracy measured at a confidence of 50 % and of 100 %, lines between and
                 from (0, 0); without it confidences are taken at their word
    """

    name: ClassVar[str] = "label_free_accuracy"
    source: ClassVar[str] = "collector"
    needs: ClassVar[tuple[str, ...]] = ("confidence",)
    default_weight: ClassVar[float] = 0.1
    defaults: ClassVar[dict[str, Any]] = {
        "theta0": 1.25,
        "delta": 0.02,
        "calibration": {"100": 1.0},
        "margin_points": {"1": 5.0, "5": 3.0, "25": 2.0, "50": 1.0},
    }
    fail_alternatives: ClassVar[int] = len(HARM_EXCESS)
    fail_events: ClassVar[int] = 1
    pass_alternatives: ClassVar[int] = len(STAKE_SHARES)
    past_size: ClassVar[int] = 3
    past_seconds: ClassVar[float] = 120.0

    def seen(self, interval: Interval) -> tuple[Array, Array]:
        """(100,) predictions by confidence of either arm; nothing where the source counts no confidences."""
        if interval.canary.confidence is None or interval.stable.confidence is None:
            return np.zeros(CONFIDENCE_BINS), np.zeros(CONFIDENCE_BINS)
        return _histogram("canary", interval.canary), _histogram("stable", interval.stable)

    def remember(self, state: State, stable: Array) -> Array:
        """(expected mistakes, their squares added up, predictions)."""
        scores = _expected_mistakes(state)
        return np.array([scores @ stable, (scores**2) @ stable, stable.sum()])

    def weigh_harm(self, state: State, canary: Array, stable: Array) -> Counted:
        """Against the tolerated mean, betting on higher ones."""
        settings = state["settings"]
        return self._weigh(state, canary, stable, HARM, HARM_EXCESS, settings["theta0"], settings["delta"])

    def weigh_parity(self, state: State, canary: Array, stable: Array) -> Counted:
        """Against a loss of the step's margin, betting that the canary equals stable."""
        margin = self.margin_points(state) / 100
        return self._weigh(state, canary, stable, NON_INFERIORITY, margin * STAKE_SHARES, 1.0, margin)

    def _weigh(
        self,
        state: State,
        canary: Array,
        stable: Array,
        side: float,
        excess: Array,
        theta0: float,
        delta: float,
    ) -> Counted:
        mistakes, squares, predictions = past.counts(state["past"])
        n_c, n_b = canary.sum(), stable.sum()
        if predictions < LEAST_PAST or n_c == 0 or n_b == 0:
            return nothing(1, len(excess))
        mean = mistakes / predictions
        variance = max(LEAST_VARIANCE, squares / predictions - mean**2) * (1 + theta0**2 * n_c / n_b)
        scores = _expected_mistakes(state)
        log_e = bounded_mean.log_e(
            side=side,
            scores=scores,
            canary=canary,
            stable=stable,
            stake=excess / variance,
            centre=mean,
            theta0=theta0,
            delta=delta,
        )
        return Counted(int(n_c), int(n_b), (float(scores @ canary),), (float(scores @ stable),), log_e)

    def sentence(self, state: State, tally: State, *, failing: bool) -> str:
        """ "by its confidence the canary is wrong in 5.21 % of 400 predictions, stable in 4.90 % of 9,600"."""
        (x_c,), (x_b,), n_c, n_b = tally["x_c"], tally["x_b"], tally["n_c"], tally["n_b"]
        return (
            f"by its confidence the canary is wrong in {100 * x_c / max(1, n_c):.2f} % of {n_c:,} predictions, "
            f"stable in {100 * x_b / max(1, n_b):.2f} % of {n_b:,}"
        )


def _expected_mistakes(state: State) -> Array:
    """(100,) 1 − the accuracy that a confidence in each bin stands for."""
    table = {float(percent) / 100: accuracy for percent, accuracy in state["settings"]["calibration"].items()}
    points = sorted({0.0: 0.0, **table}.items())
    confidences, accuracies = zip(*points, strict=True)
    return np.asarray(1 - np.interp(MIDDLES, confidences, accuracies))


def _histogram(arm_name: str, arm: Arm) -> Array:
    histogram = arm.confidence or ()
    check_histogram(arm_name, histogram, CONFIDENCE_BINS)
    return np.asarray(histogram, dtype=float)
