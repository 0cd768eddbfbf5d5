"""Does the canary find more, or fewer, objects per image than stable?

Two-sided: the gate cannot know whether more objects are better, so a model that honestly finds more FAILs too once
it is beyond the margin. It belongs into plans of versions that should find the same (a quantised or recompiled
variant), or wants a `delta` as wide as the improvement that is hoped for.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from davy.counting import DETECTION_BINS
from numpy.typing import NDArray

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

#: Besides the share of images with any object: the numbers that these shares of stable's images reach. A change
#: of the mean moves at least one of the shares above them.
TAILS = np.array([0.5, 0.25, 0.1])
THRESHOLDS = 1 + len(TAILS)
#: Rollback's alternatives: odds beyond the tolerated share.
HARM_ODDS = np.array([1.3, 2.0, 5.0])
PRIOR_EVENTS, PRIOR_IMAGES = 1.0, 2.0
LEAST_PAST = 50.0  # stable images before which thresholds would be guesses

Indices = NDArray[np.int64]


class DetectionsGate(ComparisonGate):
    """Shares of images with at least so many objects, by form H in both directions."""

    name: ClassVar[str] = "detections"
    source: ClassVar[str] = "collector"
    needs: ClassVar[tuple[str, ...]] = ("detections",)
    default_weight: ClassVar[float] = 0.1
    defaults: ClassVar[dict[str, Any]] = {
        "theta0": 1.0,
        "delta": 0.05,
        "margin_points": {"1": 15.0, "5": 10.0, "25": 7.5, "50": 5.0},
    }
    fail_alternatives: ClassVar[int] = 2 * THRESHOLDS * len(HARM_ODDS)
    fail_events: ClassVar[int] = 2 * THRESHOLDS  # at least so many, at every threshold; then fewer
    pass_alternatives: ClassVar[int] = 2 * THRESHOLDS
    pass_kinds: ClassVar[int] = 2 * THRESHOLDS
    pass_events: ClassVar[int] = 2 * THRESHOLDS
    past_size: ClassVar[int] = DETECTION_BINS
    past_seconds: ClassVar[float] = 120.0

    def seen(self, interval: Interval) -> tuple[Array, Array]:
        """(64,) images by number of objects of either arm; nothing where the source counts no detections."""
        if interval.canary.detections is None or interval.stable.detections is None:
            return np.zeros(DETECTION_BINS), np.zeros(DETECTION_BINS)
        return _histogram("canary", interval.canary), _histogram("stable", interval.stable)

    def weigh_harm(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form H at every threshold and in both directions, betting on higher odds."""
        reference = past.counts(state["past"])
        if reference.sum() < LEAST_PAST:
            return nothing(self.fail_events, self.fail_alternatives)
        thresholds, base = _thresholds(reference), _base(reference)
        x_c, x_b = _events(canary, thresholds), _events(stable, thresholds)
        n_c, n_b = canary.sum(), stable.sum()
        settings = state["settings"]
        log_e = harm_log_e((n_c, x_c, n_b, x_b), base, HARM_ODDS, settings["theta0"], settings["delta"])
        return Counted.of((*x_c, n_c), (*x_b, n_b), log_e)

    def weigh_parity(self, state: State, canary: Array, stable: Array) -> Counted:
        """Form H against a difference of the step's margin, betting that both arms are equal."""
        reference = past.counts(state["past"])
        if reference.sum() < LEAST_PAST:
            return nothing(self.pass_events, self.pass_alternatives)
        thresholds, base = _thresholds(reference), _base(reference)
        x_c, x_b = _events(canary, thresholds), _events(stable, thresholds)
        n_c, n_b = canary.sum(), stable.sum()
        log_e = parity_log_e((n_c, x_c, n_b, x_b), base, base, self.margin_points(state))
        return Counted.of((*x_c, n_c), (*x_b, n_b), log_e)

    def sentence(self, state: State, tally: State, *, failing: bool) -> str:
        """ "canary 120 of 400 images with 3 objects or more (30.00 %), stable 2,400 of 9,600 (25.00 %)".

        The threshold named is the present one; it moves with stable.
        """
        kind = self.worst(state) if failing else 0
        threshold = int(_thresholds(past.counts(state["past"]))[kind % THRESHOLDS])
        words = f"{threshold} or more objects" if kind < THRESHOLDS else f"fewer than {threshold} objects"
        x_c, x_b, n_c, n_b = tally["x_c"][kind], tally["x_b"][kind], tally["n_c"], tally["n_b"]
        return (
            f"canary {x_c:,} of {n_c:,} images with {words} ({percent(x_c, n_c)}), "
            f"stable {x_b:,} of {n_b:,} ({percent(x_b, n_b)})"
        )


def _histogram(arm_name: str, arm: Arm) -> Array:
    histogram = arm.detections or ()
    check_histogram(arm_name, histogram, DETECTION_BINS)
    return np.asarray(histogram, dtype=float)


def _above(histogram: Array) -> Array:
    """(65,) images with at least 0, 1, … 64 objects (the last bin is "63 or more": none are told from 64 on)."""
    return np.append(np.cumsum(histogram[::-1])[::-1], 0.0)


def _thresholds(reference: Array) -> Indices:
    """(4,) one object, and the least numbers that no more than each tail share of the reference reaches."""
    above = _above(reference)
    lowest: Indices = np.argmax(above <= TAILS[:, None] * above[0], axis=1)
    return np.concatenate([[1], np.clip(lowest, 1, DETECTION_BINS - 1)])


def _events(histogram: Array, thresholds: Indices) -> Array:
    """(8,) images at or above each threshold, then those below."""
    above = _above(histogram)
    return np.concatenate([above[thresholds], above[0] - above[thresholds]])


def _base(reference: Array) -> Array:
    """(8,) stable's past shares of these events, strictly inside (0, 1)."""
    events = _events(reference, _thresholds(reference))
    return np.asarray((events + PRIOR_EVENTS) / (reference.sum() + PRIOR_IMAGES))
