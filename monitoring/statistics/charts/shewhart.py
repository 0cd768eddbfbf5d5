"""Is a measured value out of the ordinary? X̄, R, S, individuals and moving ranges. PURE.

Source: Montgomery, Introduction to Statistical Quality Control, ch. 6; as R's qcc computes them. Without centre and
sigma a chart estimates both from its own points (phase I); with those of an earlier chart it only judges (phase II).
Assumes that points are independent: hourly means of a fleet are not, so these limits are for the eye (design/drift).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from monitoring.statistics.charts.chart import Chart, Numbers, draw, mean_of, points
from monitoring.statistics.charts.constants import c4, d2, d3


def xbar(groups: ArrayLike, center: float | None = None, sigma: float | None = None) -> Chart:
    """Means of groups (m, g), 2 ≤ g ≤ 25; a row with NaN is a gap.

    center  mean to expect; None: that of all groups
    sigma   of a single value, as `spread` of an earlier chart; None: the mean range / d2(g)
    """
    rows = _groups(groups)
    means = rows.mean(axis=1)
    expected = mean_of(means) if center is None else center
    spread = mean_of(_ranges(rows)) / d2(rows.shape[1]) if sigma is None else sigma
    return draw("xbar", means, expected, spread / np.sqrt(rows.shape[1]), spread)


def r(groups: ArrayLike, sigma: float | None = None) -> Chart:
    """Ranges of groups (m, g), 2 ≤ g ≤ 25; sigma as in `xbar`. The lower limit is cut at 0."""
    rows = _groups(groups)
    g, ranges = rows.shape[1], _ranges(rows)
    spread = mean_of(ranges) / d2(g) if sigma is None else sigma
    return draw("R", ranges, spread * d2(g), spread * d3(g), spread, least=0)


def s(groups: ArrayLike, sigma: float | None = None) -> Chart:
    """Standard deviations (divisor g − 1) of groups (m, g), g ≥ 2; sigma None: their mean / c4(g). Cut at 0."""
    rows = _groups(groups)
    factor, deviations = c4(rows.shape[1]), rows.std(axis=1, ddof=1)
    spread = mean_of(deviations) / factor if sigma is None else sigma
    return draw("S", deviations, spread * factor, spread * np.sqrt(1 - factor**2), spread, least=0)


def individuals(x: ArrayLike, center: float | None = None, sigma: float | None = None) -> Chart:
    """Single values x (m,), NaN for a gap; center None: their mean; sigma None: the mean moving range / 1.128."""
    values = points(x)
    expected = mean_of(values) if center is None else center
    spread = moving_sigma(values) if sigma is None else sigma
    return draw("individuals", values, expected, spread, spread)


def moving_range(x: ArrayLike, sigma: float | None = None) -> Chart:
    """Absolute differences of neighbours in x (m,); the first point, and one beside a gap, has none (NaN). Cut at 0."""
    values = points(x)
    spread = moving_sigma(values) if sigma is None else sigma
    return draw("moving_range", _moving_ranges(values), spread * d2(2), spread * d3(2), spread, least=0)


def moving_sigma(values: Numbers) -> float:
    """Sigma of single values (m,): mean moving range / d2(2). Raises ValueError without two neighbours."""
    return mean_of(_moving_ranges(values)) / d2(2)


def _moving_ranges(values: Numbers) -> Numbers:
    return np.abs(np.diff(values, prepend=np.nan))


def _groups(groups: ArrayLike) -> Numbers:
    rows = np.asarray(groups, np.float64)
    if rows.ndim != 2 or not len(rows) or rows.shape[1] < 2 or np.isinf(rows).any():
        raise ValueError(f"want groups of at least two finite values, all of one size, not {rows.shape}")
    return rows


def _ranges(rows: Numbers) -> Numbers:
    ranges: Numbers = rows.max(axis=1) - rows.min(axis=1)
    return ranges
