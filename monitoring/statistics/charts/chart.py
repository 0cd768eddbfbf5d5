"""What does every control chart consist of? PURE."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
Bools = NDArray[np.bool_]

SIGMAS = 3.0  # Shewhart's width: one point in 370 is outside by chance
ROUNDING = 1e-12  # of the centre: nearer than that is on the line, also where nothing varies


@dataclass(frozen=True)
class Chart:
    """One chart; every array (m,), one entry a point, in the unit of the points. A gap is NaN and never outside.

    value    what is plotted        sigma   its standard deviation
    center, lower, upper            lines; they vary where n does
    outside  beyond the limits
    spread   the estimate under the limits; a later chart (phase II) is given it and the centre again
    """

    kind: str
    center: Numbers
    lower: Numbers
    upper: Numbers
    value: Numbers
    sigma: Numbers
    outside: Bools
    spread: float

    @property
    def z(self) -> Numbers:
        """(m,) distance from the centre in sigmas, what the rules are applied to; ±inf where sigma is 0."""
        away = self.value - self.center
        away[np.abs(away) <= ROUNDING * np.abs(self.center)] = 0
        z = np.where(away == 0, 0.0, np.copysign(np.inf, away))
        np.divide(away, self.sigma, out=z, where=self.sigma > 0)
        return np.where(np.isnan(away), np.nan, z)


def draw(
    kind: str,
    value: Numbers,
    center: ArrayLike,
    sigma: ArrayLike,
    spread: float,
    *,
    sigmas: float = SIGMAS,
    least: float = -np.inf,
    most: ArrayLike = np.inf,
) -> Chart:
    """The chart of values (m,) around center ± sigmas · sigma (scalars or (m,)), limits cut at `least` and `most`."""
    middle, deviation = (np.broadcast_to(np.asarray(x, np.float64), value.shape) for x in (center, sigma))
    lower = np.maximum(middle - sigmas * deviation, least)
    upper = np.minimum(middle + sigmas * deviation, most)
    rounding = ROUNDING * np.abs(middle)
    outside = (value < lower - rounding) | (value > upper + rounding)
    return Chart(kind, middle, lower, upper, value, deviation, outside, spread)


def mean_of(values: Numbers) -> float:
    """Mean without the gaps. Raises ValueError where nothing is left."""
    present = values[~np.isnan(values)]
    if not len(present):
        raise ValueError("there is no point to estimate from")
    return float(present.mean())


def points(x: ArrayLike) -> Numbers:
    """(m,) finite values or gaps (NaN). Raises ValueError for anything else."""
    values = np.asarray(x, np.float64)
    if values.ndim != 1 or not len(values) or np.isinf(values).any():
        raise ValueError("want a series of finite numbers, NaN for a gap")
    return values
