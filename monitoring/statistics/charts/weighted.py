"""Has the level moved a little, for long? EWMA and CUSUM, which remember earlier points. PURE.

Source: Montgomery, Introduction to Statistical Quality Control, ch. 9; Lucas & Saccucci, Technometrics 32, 1990
(EWMA); Page, Biometrika 41, 1954 (CUSUM). A gap (NaN) is passed over: what is remembered stays as it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from monitoring.statistics.charts.chart import Bools, Chart, Numbers, draw, points

Limits = Literal["fixed", "time_varying"]


def ewma(x: ArrayLike, center: float, sigma: float, lam: float, width: float, limits: Limits) -> Chart:
    """Exponentially weighted mean of x (m,), started at the centre: λ · x + (1 − λ) · what it was.

    sigma   of a single x                lam    λ, weight of the newest point, 0 < λ ≤ 1
    width   of the limits in sigmas of the weighted mean, see run_length.ewma_width
    limits  "fixed": those of a long series, center ± width · sigma · sqrt(λ / (2 − λ)) from the first point on;
            "time_varying": narrower at the start, with the factor sqrt(1 − (1 − λ)^(2i)) at the i-th point
    """
    values = points(x)
    if not 0 < lam <= 1 or not sigma >= 0:
        raise ValueError(f"lambda {lam} must be in (0, 1], and sigma {sigma} 0 or more")
    steady = sigma * np.sqrt(lam / (2 - lam))
    here = ~np.isnan(values)
    seen = np.cumsum(here)
    deviation = steady * (
        np.sqrt(1 - (1 - lam) ** (2 * seen)) if limits == "time_varying" else np.ones(len(seen))
    )
    smooth, level = np.full(len(values), np.nan), center
    for i in np.flatnonzero(here):
        level = smooth[i] = lam * values[i] + (1 - lam) * level
    return draw("ewma", smooth, center, deviation, sigma, sigmas=width)


@dataclass(frozen=True)
class Cusum:
    """Both sums (m,) ≥ 0 in the unit of x, NaN at a gap, and where either is above h."""

    high: Numbers  # evidence that the level went up
    low: Numbers  # that it went down
    h: float
    signals: Bools


def cusum(x: ArrayLike, target: float, k: float, h: float) -> Cusum:
    """Tabular CUSUM of x (m,), started at 0 and not restarted by a signal.

    high = max(0, high + x − target − k), low = max(0, low + target − k − x); a signal where one is above h.
    k and h are in the unit of x: half a sigma and 5 sigmas, say. See run_length.cusum_h.
    """
    values = points(x)
    if not (k >= 0 and h > 0):
        raise ValueError(f"k {k} must be 0 or more, and h {h} above 0")
    high, low = np.full(len(values), np.nan), np.full(len(values), np.nan)
    up = down = 0.0
    for i in np.flatnonzero(~np.isnan(values)):
        up = high[i] = max(0.0, up + values[i] - target - k)
        down = low[i] = max(0.0, down + target - k - values[i])
    return Cusum(high, low, h, (high > h) | (low > h))
