"""Is a count out of the ordinary? Shares (p, np), defects (c, u), and both with Laney's correction. PURE.

Source: Montgomery, Introduction to Statistical Quality Control, ch. 7, as R's qcc computes it; Laney, Quality
Engineering 14, 2002 (p′ and u′). At large n the limits of p and u are far inside any fleet's natural variation;
Laney's are nearer to it and still no alarm with a stated rate (design/drift).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from monitoring.statistics.charts.chart import SIGMAS, Chart, Numbers, draw, points
from monitoring.statistics.charts.shewhart import moving_sigma


def p(events: ArrayLike, n: ArrayLike, center: float | None = None, sigmas: float = SIGMAS) -> Chart:
    """Shares of events (m,) out of n (m,) ≥ 1 each, which may vary; events NaN for a gap.

    center  share to expect, e.g. the reference's; None: that of all points together
    limits  center ± sigmas · sqrt(center · (1 − center) / n), cut at 0 and 1
    """
    x, size = _shares(events, n)
    expected = _ratio(x, size) if center is None else center
    spread = np.sqrt(expected * (1 - expected))
    return draw("p", x / size, expected, spread / np.sqrt(size), spread, sigmas=sigmas, least=0, most=1)


def np_(events: ArrayLike, n: ArrayLike, center: float | None = None, sigmas: float = SIGMAS) -> Chart:
    """Numbers of events (m,) out of n (m,); `center` is the *share* to expect, as in `p`. Cut at 0 and n."""
    x, size = _shares(events, n)
    expected = _ratio(x, size) if center is None else center
    spread = np.sqrt(expected * (1 - expected))
    sigma = spread * np.sqrt(size)
    return draw("np", x, expected * size, sigma, spread, sigmas=sigmas, least=0, most=size)


def c(defects: ArrayLike, center: float | None = None, sigmas: float = SIGMAS) -> Chart:
    """Numbers of defects (m,) in units of one size; Poisson: sigma = sqrt(center). Cut at 0."""
    x = points(defects)
    _, size = _rates(x, np.ones(len(x)))
    expected = _ratio(x, size) if center is None else center
    spread = np.sqrt(expected)
    return draw("c", x, expected, spread, spread, sigmas=sigmas, least=0)


def u(defects: ArrayLike, n: ArrayLike, center: float | None = None, sigmas: float = SIGMAS) -> Chart:
    """Defects (m,) per unit, in n (m,) > 0 units (areas may be broken numbers); sigma = sqrt(center / n). Cut at 0."""
    x, size = _rates(defects, n)
    expected = _ratio(x, size) if center is None else center
    spread = np.sqrt(expected)
    return draw("u", x / size, expected, spread / np.sqrt(size), spread, sigmas=sigmas, least=0)


def laney_p(
    events: ArrayLike,
    n: ArrayLike,
    center: float | None = None,
    sigma_z: float | None = None,
    sigmas: float = SIGMAS,
) -> Chart:
    """p′: `p` with sigmas stretched by sigma_z, the variation of the points' own z from one to the next.

    sigma_z  as `spread` of an earlier chart; None: the mean moving range of z / 1.128
    """
    return _laney("laney_p", p(events, n, center), sigma_z, sigmas, most=1)


def laney_u(
    defects: ArrayLike,
    n: ArrayLike,
    center: float | None = None,
    sigma_z: float | None = None,
    sigmas: float = SIGMAS,
) -> Chart:
    """u′: `u` with sigmas stretched by sigma_z, as in `laney_p`."""
    return _laney("laney_u", u(defects, n, center), sigma_z, sigmas, most=np.inf)


def _laney(kind: str, plain: Chart, sigma_z: float | None, sigmas: float, most: float) -> Chart:
    stretch = moving_sigma(plain.z) if sigma_z is None else sigma_z
    sigma = plain.sigma * stretch
    return draw(kind, plain.value, plain.center, sigma, stretch, sigmas=sigmas, least=0, most=most)


def _shares(events: ArrayLike, n: ArrayLike) -> tuple[Numbers, Numbers]:
    """Events and sizes of a share. Raises ValueError unless 0 ≤ events ≤ n and n ≥ 1 wherever there is no gap."""
    x, size = _rates(events, n)
    here = ~np.isnan(x)
    if (size[here] < 1).any() or (x[here] > size[here]).any():
        raise ValueError("events must be between 0 and n, and n at least 1")
    return x, size


def _rates(events: ArrayLike, n: ArrayLike) -> tuple[Numbers, Numbers]:
    """Events and sizes, NaN in both at a gap. Raises ValueError unless events ≥ 0 and n > 0 elsewhere."""
    x, size = np.asarray(events, np.float64), np.asarray(n, np.float64)
    if x.shape != size.shape or x.ndim != 1 or not len(x):
        raise ValueError(f"{x.shape} events and {size.shape} sizes, want two equal lengths")
    here = ~np.isnan(x)
    if not (np.isfinite(x[here]) & (x[here] >= 0) & np.isfinite(size[here]) & (size[here] > 0)).all():
        raise ValueError("events must be 0 or more, and n greater than 0")
    return x, np.where(here, size, np.nan)


def _ratio(x: Numbers, size: Numbers) -> float:
    if np.isnan(x).all():
        raise ValueError("there is no point to estimate from")
    return float(np.nansum(x) / np.nansum(size))
