"""Is a share (of failures, of unsure images) out of the ordinary? The textbook p chart. PURE.

Source: Montgomery, Introduction to Statistical Quality Control, ch. 7; as R's qcc computes it. At large n its limits
are far inside any fleet's natural variation, so it is shown and does not page by itself (design/drift).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class PChart:
    """Centre line and, per point, (m,): share, lower and upper limit, whether it is beyond them."""

    center: float
    share: Numbers
    lower: Numbers
    upper: Numbers
    outside: NDArray[np.bool_]


def p_chart(events: ArrayLike, n: ArrayLike, center: float | None = None, sigmas: float = 3.0) -> PChart:
    """The chart of events (m,) out of n (m,) ≥ 1 each; n may vary.

    center  share to expect, e.g. the reference's; None: that of all points together
    limits  center ± sigmas · sqrt(center · (1 − center) / n), cut at 0 and 1
    """
    x, size = np.asarray(events, np.float64), np.asarray(n, np.float64)
    if x.shape != size.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"{x.shape} events and {size.shape} sizes, want two equal lengths")
    if (size < 1).any() or (x < 0).any() or (x > size).any():
        raise ValueError("events must be between 0 and n, and n at least 1")
    expected = float(x.sum() / size.sum()) if center is None else center
    deviation = sigmas * np.sqrt(expected * (1 - expected) / size)
    lower, upper = np.maximum(expected - deviation, 0), np.minimum(expected + deviation, 1)
    share = x / size
    return PChart(expected, share, lower, upper, (share < lower) | (share > upper))
