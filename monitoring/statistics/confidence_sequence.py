"""What accuracy can be excluded, however often one looks while the labels come in? PURE.

Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence
sequences", Ann. Stat. 52, 2024 (arXiv 2103.06476, 2021), eq. (5) and appendix B.2: a normal mixture, which is valid at
all sample sizes at once for large ones. The variance is that of the accuracy in question, not of the one seen (as in
Wilson's interval), or a lucky start would shrink it. Rows drawn with unequal probabilities count by their effective
sample size.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from monitoring.statistics.accuracy import score_interval, wrong_share

CONFIDENCE = 0.99
LEAST_LABELS = 50  # below which a central limit says nothing
TIGHTEST_AT = 1000  # labels at which the sequence is tightest


def sequence(
    wrong: ArrayLike, probability: ArrayLike, confidence: float = CONFIDENCE, tightest_at: int = TIGHTEST_AT
) -> tuple[float, float]:
    """(low, high): limits of the accuracy which hold at all looks together, for rows added in any order that does not
    depend on them. (0, 1) below 50 labels.

    wrong        (n,) bool    whether the version was wrong about a labelled request
    probability  (n,) floats  with which each request was drawn, 0 < q ≤ 1, independently of each other
    tightest_at  labels at which it should be tightest; to be chosen beforehand, as the confidence
    The promise is for rows from one fixed start on. A window that slides begins a new sequence with every day that it
    leaves behind, so over months it errs a little more often than once in a hundred.
    """
    y, q = np.asarray(wrong, bool), np.asarray(probability, np.float64)
    if y.shape != q.shape or y.ndim != 1:
        raise ValueError(f"{y.shape} outcomes and {q.shape} probabilities")
    if not ((q > 0) & (q <= 1)).all():
        raise ValueError("a probability is not in (0, 1]")
    n = len(y)
    if n < LEAST_LABELS:
        return 0.0, 1.0
    share, effective = wrong_share(y, q)
    low, high = score_interval(share, effective, boundary(n, confidence, tightest_at) * math.sqrt(n))
    return 1 - high, 1 - low


def boundary(n: int, confidence: float = CONFIDENCE, tightest_at: int = TIGHTEST_AT) -> float:
    """Half the sequence's width after n rows, in standard deviations of one row."""
    alpha = 1 - confidence
    rho_squared = (-2 * math.log(alpha) + math.log(-2 * math.log(alpha) + 1)) / tightest_at
    scaled = n * rho_squared + 1
    return math.sqrt(2 * scaled / (n**2 * rho_squared) * math.log(math.sqrt(scaled) / alpha))


def labels_needed(
    wrong_share: float, difference: float, confidence: float = CONFIDENCE, tightest_at: int = TIGHTEST_AT
) -> int:
    """About how many equally drawn labels tell apart accuracies that lie `difference` > 0 apart.

    wrong_share  of the answers, 0 to 1: their variance is wrong_share·(1 − wrong_share)
    """
    if not 0 < difference < 1:
        raise ValueError(f"a difference of {difference:g} between accuracies is not between 0 and 1")
    deviation = math.sqrt(wrong_share * (1 - wrong_share))
    low, high = LEAST_LABELS, LEAST_LABELS
    while deviation * boundary(high, confidence, tightest_at) > difference:
        low, high = high, 2 * high
    while low < high:
        middle = (low + high) // 2
        if deviation * boundary(middle, confidence, tightest_at) > difference:
            low = middle + 1
        else:
            high = middle
    return high
