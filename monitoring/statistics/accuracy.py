"""How often is a version right, as far as labels drawn with known probabilities can tell? PURE.

Sources: Hájek 1971 (ratio estimate of a mean under unequal probabilities); Kish, Survey Sampling, 1965 (effective
sample size); Wilson, JASA 22, 1927; Franco et al., J. Surv. Stat. Methodol. 7, 2019 (Wilson's interval with an
effective sample size is among the best for proportions of complex samples, also near 0 and 1).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

CONFIDENCE = 0.95


@dataclass(frozen=True)
class AccuracyEstimate:
    """Accuracy with its interval. Without labels accuracy is None and the interval says nothing: 0 to 1."""

    accuracy: float | None
    low: float
    high: float
    n: int
    effective_n: float


def estimate(wrong: ArrayLike, probability: ArrayLike, confidence: float = CONFIDENCE) -> AccuracyEstimate:
    """Accuracy of the traffic that the labels were drawn from.

    wrong        (n,) bool    whether the version was wrong about a labelled request
    probability  (n,) floats  with which each request was drawn, 0 < q ≤ 1, independently of each other
    Estimate: Σ w·(1 − wrong) / Σ w with w = 1 / q. Interval: Wilson's at the effective sample size, which is the
    smaller of Kish's (Σ w)² / Σ w² and what the linearised variance of the ratio says. The smaller one, because
    at small n the variance misses rare errors among heavy weights, and Kish's misses errors that gather there.
    Assumes that whether an answer came does not depend on being wrong (skips count as non-response).
    """
    y, q = np.asarray(wrong, bool), np.asarray(probability, np.float64)
    if y.shape != q.shape or y.ndim != 1:
        raise ValueError(f"{y.shape} outcomes and {q.shape} probabilities")
    if not ((q > 0) & (q <= 1)).all():
        raise ValueError("a probability is not in (0, 1]")
    n = len(y)
    if n == 0:
        return AccuracyEstimate(None, 0.0, 1.0, 0, 0.0)
    share, effective = wrong_share(y, q)
    low, high = wilson(share, effective, confidence)
    return AccuracyEstimate(1 - share, 1 - high, 1 - low, n, effective)


def wrong_share(wrong: ArrayLike, probability: ArrayLike) -> tuple[float, float]:
    """(share of wrong answers, effective sample size) of n ≥ 1 rows, see `estimate`."""
    y, w = np.asarray(wrong, bool), 1 / np.asarray(probability, np.float64)
    share = float((w * y).sum() / w.sum())
    effective = float(w.sum() ** 2 / (w**2).sum())
    variance = float((w**2 * (y - share) ** 2).sum() / w.sum() ** 2)
    if variance > 0:
        effective = min(effective, share * (1 - share) / variance)
    return share, effective


def wilson(share: float, n: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share seen in n (not necessarily whole) independent rows, n > 0."""
    return score_interval(share, n, float(ndtri((1 + confidence) / 2)))


def score_interval(share: float, n: float, z: float) -> tuple[float, float]:
    """The shares p with |share − p| ≤ z·sqrt(p(1 − p)/n)."""
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(share * (1 - share) / n + z * z / (4 * n * n)))
    return max(0.0, centre - half), min(1.0, centre + half)
