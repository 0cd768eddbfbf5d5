"""How accurate is a version, judging by its confidences alone? PURE.

Labelled rows say how often an answer of each confidence is right; the mean of that over the live confidences estimates
the accuracy without labels (CBPE: NannyML 2022; Garg et al., ICLR 2022, "average confidence"). The calibration is
monotone (isotonic regression: Barlow et al. 1972; Zadrozny & Elkan, KDD 2002). The estimate assumes that an answer of
a given confidence is as often right now as when it was labelled: a shift that breaks this is not seen here, only by
labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from monitoring.statistics.accuracy import CONFIDENCE, AccuracyEstimate, wilson

Numbers = NDArray[np.float64]

LEAST_LABELS = 500
LEAST_PER_GROUP = 25  # labelled rows that share one accuracy at least
PRIOR = 0.5  # Jeffreys' Beta(½, ½)


@dataclass(frozen=True)
class Calibrator:
    """How often answers of each confidence are right; confidences are in B bins, B·g bins of which share one accuracy.

    group     (B,) int  which of the m groups each bin belongs to, rising
    accuracy  (m,)      rising with confidence
    variance  (m,)      of accuracy, by the labels that it was learned from
    labels    rows that it was learned from
    """

    group: NDArray[np.int64]
    accuracy: Numbers
    variance: Numbers
    labels: float

    def as_json(self) -> dict[str, Any]:
        """What `from_json` reads."""
        return {
            "group": self.group.tolist(),
            "accuracy": self.accuracy.tolist(),
            "variance": self.variance.tolist(),
            "labels": self.labels,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Calibrator:
        """The calibrator that `as_json` wrote."""
        return cls(
            np.asarray(stored["group"], np.int64),
            np.asarray(stored["accuracy"], np.float64),
            np.asarray(stored["variance"], np.float64),
            float(stored["labels"]),
        )

    def by_confidence(self) -> dict[str, float]:
        """Accuracy at the middle of each group's confidences, in percent as text: {"62.5": .71, …}."""
        bins = len(self.group)
        middles = [
            100 * (np.flatnonzero(self.group == one).mean() + 0.5) / bins for one in range(len(self.accuracy))
        ]
        return {f"{middle:g}": float(value) for middle, value in zip(middles, self.accuracy, strict=True)}


@dataclass(frozen=True)
class Uncalibrated:
    """There are too few labels to calibrate with."""

    labels: float
    needed: int

    @property
    def reason(self) -> str:
        """ "too few labels to calibrate: 120 of 500"."""
        return f"too few labels to calibrate: {self.labels:,.0f} of {self.needed:,}"


def calibrator(
    right: ArrayLike, labelled: ArrayLike, least_labels: int = LEAST_LABELS
) -> Calibrator | Uncalibrated:
    """Learn from labelled rows by confidence bin.

    right     (B,) how many of the labelled rows of each bin were right
    labelled  (B,) how many there are. Neither need be whole: rows drawn with unequal probabilities count by their
              weight, scaled so that their sum is the effective sample size.
    Neighbouring bins are put together until each group has 25 rows; a group's accuracy is the mean of Beta(½ + right,
    ½ + wrong); groups that fall are pooled. Bins without labels go with their neighbours.
    """
    x, n = np.asarray(right, np.float64), np.asarray(labelled, np.float64)
    if x.shape != n.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"{x.shape} right of {n.shape} labelled rows, want two equal lengths")
    if not ((x >= 0) & (x <= n)).all() or not np.isfinite(n).all():
        raise ValueError("right must be between 0 and the labelled rows of the bin")
    if n.sum() < least_labels:
        return Uncalibrated(float(n.sum()), least_labels)
    group = _grouped(n)
    x_g, n_g = np.bincount(group, x), np.bincount(group, n)
    pooled = _rising((x_g + PRIOR) / (n_g + 2 * PRIOR), n_g)
    x_m, n_m = np.bincount(pooled, x_g), np.bincount(pooled, n_g)
    accuracy = (x_m + PRIOR) / (n_m + 2 * PRIOR)
    return Calibrator(pooled[group], accuracy, accuracy * (1 - accuracy) / (n_m + 2), float(n.sum()))


def expected_accuracy(
    learned: Calibrator, histogram: ArrayLike, confidence: float = CONFIDENCE
) -> AccuracyEstimate:
    """Accuracy to expect of the live predictions with this histogram of confidences (B,), with its interval.

    Two errors make it: the window's own luck, Σ h·g·(1 − g) / n², and the calibration's, Σ (H/n)²·var over the groups,
    whose bins all err together. Wilson's interval at the sample size that has this variance, so that a window of a few
    predictions says little. Without predictions accuracy is None and the interval 0 to 1.
    """
    h = np.asarray(histogram, np.float64)
    if h.shape != learned.group.shape or not (h >= 0).all():
        raise ValueError(f"histogram of shape {h.shape}, want counts in {len(learned.group)} bins")
    n = float(h.sum())
    if n == 0:
        return AccuracyEstimate(None, 0.0, 1.0, 0, 0.0)
    share = np.bincount(learned.group, h, minlength=len(learned.accuracy)) / n
    g = learned.accuracy
    accuracy = float(share @ g)
    variance = float(share @ (g * (1 - g)) / n + share**2 @ learned.variance)
    effective = accuracy * (1 - accuracy) / variance
    low, high = wilson(accuracy, effective, confidence)
    return AccuracyEstimate(accuracy, low, high, int(n), effective)


def _grouped(labelled: Numbers) -> NDArray[np.int64]:
    """(B,) neighbouring bins put together from the lowest up; what is left at the top joins the last whole group."""
    group = np.zeros(len(labelled), np.int64)
    number, rows = 0, 0.0
    for at, n in enumerate(labelled):
        group[at] = number
        rows += n
        if rows >= LEAST_PER_GROUP:
            number, rows = number + 1, 0.0
    return np.asarray(np.minimum(group, max(number - 1, 0)))


def _rising(accuracy: Numbers, weight: ArrayLike) -> NDArray[np.int64]:
    """(g,) which pool each group falls into when a falling accuracy is not allowed."""
    from scipy.optimize import isotonic_regression  # takes a second to import: not at every start

    starts = isotonic_regression(accuracy, weights=np.maximum(np.asarray(weight, np.float64), PRIOR)).blocks
    return np.repeat(np.arange(len(starts) - 1), np.diff(starts))
