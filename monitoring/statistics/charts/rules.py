"""Which points break which run rule? Western Electric 1–4 and Nelson 1–8. PURE.

Sources: Western Electric, Statistical Quality Control Handbook, 1956; Nelson, J. Quality Technology 16, 1984. Each
rule adds false alarms of its own: Western Electric's four together give one in 92 points in control, rule 1 alone one
in 370 (run_length.arl_rules).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from monitoring.statistics.charts.chart import Bools, Numbers

WESTERN_ELECTRIC: Mapping[int, str] = {
    1: "one point beyond 3 sigmas",
    2: "two of three points beyond 2 sigmas on one side",
    3: "four of five points beyond 1 sigma on one side",
    4: "eight points in a row on one side of the centre",
}
NELSON: Mapping[int, str] = {
    1: "one point beyond 3 sigmas",
    2: "nine points in a row on one side of the centre",
    3: "six points in a row going up or going down",
    4: "fourteen points in a row alternating up and down",
    5: "two of three points beyond 2 sigmas on one side",
    6: "four of five points beyond 1 sigma on one side",
    7: "fifteen points in a row within 1 sigma",
    8: "eight points in a row beyond 1 sigma, on both sides",
}

Points = dict[int, tuple[int, ...]]


def western_electric(z: ArrayLike) -> Points:
    """Per rule 1–4 the points (0-based) that complete it, of z (m,) in sigmas from the centre, NaN for a gap.

    Every point at which a rule holds is named, so a run of ten names its eighth, ninth and tenth. A gap breaks runs
    and takes its place among "two of three" and "four of five", where the last point must be beyond as well.
    """
    x = _series(z)
    return _named([_beyond(x, 3, 1, 1), _beyond(x, 2, 2, 3), _beyond(x, 1, 4, 5), _beyond(x, 0, 8, 8)])


def nelson(z: ArrayLike) -> Points:
    """Per rule 1–8 the points (0-based) that complete it; z (m,) and gaps as in `western_electric`."""
    x = _series(z)
    with np.errstate(invalid="ignore"):  # ∞ − ∞, where sigma is 0, is neither up nor down
        steps = np.diff(x, prepend=np.nan)
    turns = steps * np.roll(steps, 1)  # the first step is none, so nothing comes round
    within = _last(np.abs(x) < 1, 15, 15)
    outside = _last(np.abs(x) > 1, 8, 8) & ~_last(x > 0, 8, 8) & ~_last(x < 0, 8, 8)
    return _named(
        [
            _beyond(x, 3, 1, 1),
            _beyond(x, 0, 9, 9),
            _last(steps > 0, 5, 5) | _last(steps < 0, 5, 5),
            _last(turns < 0, 12, 12),
            _beyond(x, 2, 2, 3),
            _beyond(x, 1, 4, 5),
            within,
            outside,
        ]
    )


def _series(z: ArrayLike) -> Numbers:
    x = np.asarray(z, np.float64)
    if x.ndim != 1:
        raise ValueError(f"want one series, not {x.shape}")
    return x


def _beyond(x: Numbers, sigmas: float, least: int, of: int) -> Bools:
    """(m,) where the point and at least `least` of the last `of` are beyond, all on one side."""
    up, down = x > sigmas, x < -sigmas
    return (up & _last(up, least, of)) | (down & _last(down, least, of))


def _last(true: Bools, least: int, of: int) -> Bools:
    """(m,) where at least `least` of the last `of` are true; before the first point nothing is."""
    total = np.concatenate([np.zeros(of), np.cumsum(true)])
    enough: Bools = total[of:] - total[:-of] >= least
    return enough


def _named(broken: list[Bools]) -> Points:
    return {rule: tuple(np.flatnonzero(where).tolist()) for rule, where in enumerate(broken, start=1)}
