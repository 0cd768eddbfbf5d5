"""Which chart fits a measure, with which settings, and what does it show of a series? PURE.

A series has one entry an interval, NaN for a gap. Phase I: `estimate` from a period that was in order. Phase II:
`lines` around that estimate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from monitoring.statistics.charts import attributes, rules, run_length, shewhart, weighted
from monitoring.statistics.charts.chart import ROUNDING, Bools, Chart, Numbers
from monitoring.statistics.charts.constants import LARGEST_GROUP
from monitoring.statistics.charts.weighted import Limits

RuleSet = Literal["western_electric", "nelson", "none"]

KINDS: Mapping[str, str] = {
    "p": "p chart",
    "laney_p": "Laney p′ chart",
    "np": "np chart",
    "c": "c chart",
    "u": "u chart",
    "laney_u": "Laney u′ chart",
    "individuals": "individuals chart",
    "moving_range": "moving range chart",
    "xbar": "X̄ chart",
    "r": "R chart",
    "s": "S chart",
    "ewma": "EWMA chart",
    "cusum": "CUSUM chart",
}
OF_ANY = ("individuals", "moving_range", "xbar", "r", "s", "ewma", "cusum")
KINDS_OF: Mapping[str, tuple[str, ...]] = {  # by the measure's form
    "share": ("p", "laney_p", "np", "c", *OF_ANY),
    "rate": ("u", "laney_u", "c", *OF_ANY),
    "value": OF_ANY,
}
GROUPED = frozenset({"xbar", "r", "s"})  # a point is a group of neighbouring intervals
SKEWED = frozenset({"moving_range", "r", "s"})  # only rule 1 makes sense of what is not symmetric
WITH_MEMORY = frozenset({"ewma", "cusum"})  # neighbours depend on each other: run rules would misfire
WORDS: Mapping[str, Mapping[int, str]] = {
    "western_electric": rules.WESTERN_ELECTRIC,
    "nelson": rules.NELSON,
    "none": {1: "beyond the limits"},
}


@dataclass(frozen=True)
class Settings:
    """How a chart is drawn. EWMA's and CUSUM's are those of one false alarm in 720 independent points (30 days)."""

    rules: RuleSet = "western_electric"
    group: int = 5  # intervals in a point of X̄, R and S
    lam: float = 0.2
    width: float = 3.082
    limits: Limits = "fixed"
    k: float = 0.5
    h: float = 5.43

    def __post_init__(self) -> None:
        """Refuse what no chart can be drawn with: ValueError, its text beginning with the setting's name."""
        checks = {
            "rules": self.rules in WORDS,
            "group": 2 <= self.group <= LARGEST_GROUP,
            "lam": 0 < self.lam <= 1,
            "width": 0 < self.width <= 10,
            "limits": self.limits in ("fixed", "time_varying"),
            "k": 0 <= self.k <= 10,
            "h": 0 < self.h <= 100,
        }
        for name, holds in checks.items():
            if not holds:
                raise ValueError(f"{name}: {getattr(self, name)!r} is no setting of a chart")


@dataclass(frozen=True)
class Estimate:
    """What phase I found: centre, spread in the sense of `Chart.spread`, and from how many points."""

    center: float
    spread: float
    points: int


@dataclass(frozen=True)
class Lines:
    """What is drawn, each (points,): value between limits, which points signal, and by which rules (numbers).

    CUSUM: value is the upper sum, `below` minus the lower one, the limits are ± h.
    """

    value: Numbers
    center: Numbers
    lower: Numbers
    upper: Numbers
    outside: Bools
    rules: tuple[tuple[int, ...], ...]
    below: Numbers | None = None


def estimate(
    kind: str, amount: Numbers, n: Numbers, settings: Settings, center: float | None = None
) -> Estimate:
    """Centre and spread from the points of phase I: amounts (m,) of n (m,), left-out ones NaN.

    center  what to expect, where it is known (a reference's share); only of charts of shares
    Raises ValueError where the points are too few.
    """
    chart = _plain(kind, amount, n, settings, center, None)
    seen = ~np.isnan(chart.value)
    middle = float(chart.center[seen][0])
    if kind == "np":  # its centre is a number of events of n; what stays the same is the share
        middle /= float(n[seen][0])
    return Estimate(middle, chart.spread, int(seen.sum()))


def lines(
    kind: str, amount: Numbers, n: Numbers, settings: Settings, found: Estimate, left_out: Bools | None = None
) -> Lines:
    """The chart of a series around an estimate. Points that are left out are drawn, but signal nothing.

    left_out  (points,) bool; a run of the others goes on across them, a gap breaks it
    """
    if kind == "cusum":
        return _cusum(amount / n, settings, found, left_out)
    if kind == "ewma":
        x = _without(amount / n, left_out)
        chart = weighted.ewma(x, found.center, found.spread, settings.lam, settings.width, settings.limits)
    else:
        chart = _plain(kind, amount, n, settings, found.center, found.spread)
    used = np.ones(len(chart.value), bool) if left_out is None else ~left_out
    outside = chart.outside & used
    return Lines(
        chart.value, chart.center, chart.lower, chart.upper, outside, _broken(kind, chart, settings, used)
    )


def words_of(kind: str, settings: Settings) -> Mapping[int, str]:
    """The rules that the chart applies, by number."""
    return WORDS["none" if kind in SKEWED | WITH_MEMORY else settings.rules]


def intervals_of(kind: str, settings: Settings) -> int:
    """How many intervals make a point of the chart."""
    return settings.group if kind in GROUPED else 1


def arl(kind: str, settings: Settings) -> float | None:
    """Mean number of points to a false alarm, if points were independent and normal and the estimate exact.

    None for Nelson's rules: no chain that small remembers fifteen points.
    """
    if kind == "ewma":
        return run_length.arl_ewma(settings.lam, settings.width, limits=settings.limits)
    if kind == "cusum":
        return run_length.arl_cusum(settings.k, settings.h)
    if kind in SKEWED or settings.rules == "none":
        return run_length.arl_shewhart()
    return run_length.arl_rules([1, 2, 3, 4]) if settings.rules == "western_electric" else None


def _plain(
    kind: str, amount: Numbers, n: Numbers, settings: Settings, center: float | None, spread: float | None
) -> Chart:
    """The chart without memory; EWMA and CUSUM start from the individuals chart of the same values."""
    match kind:
        case "p":
            return attributes.p(amount, n, center)
        case "np":
            return attributes.np_(amount, n, center)
        case "laney_p":
            return attributes.laney_p(amount, n, center, spread)
        case "c":
            return attributes.c(amount, center)
        case "u":
            return attributes.u(amount, n, center)
        case "laney_u":
            return attributes.laney_u(amount, n, center, spread)
        case "xbar":
            return shewhart.xbar(_groups(amount / n, settings), center, spread)
        case "r":
            return shewhart.r(_groups(amount / n, settings), spread)
        case "s":
            return shewhart.s(_groups(amount / n, settings), spread)
        case "moving_range":
            return shewhart.moving_range(amount / n, spread)
        case "individuals" | "ewma" | "cusum":
            return shewhart.individuals(amount / n, center, spread)
    raise ValueError(f"no chart {kind!r}")


def _groups(x: Numbers, settings: Settings) -> Numbers:
    """(points, group) neighbouring values; what is left over at the end waits for its group."""
    whole = len(x) // settings.group * settings.group
    return x[:whole].reshape(-1, settings.group)


def _cusum(x: Numbers, settings: Settings, found: Estimate, left_out: Bools | None) -> Lines:
    sigma = max(
        found.spread, ROUNDING * abs(found.center), float(np.finfo(float).tiny)
    )  # where nothing varies
    sums = weighted.cusum(_without(x, left_out), found.center, settings.k * sigma, settings.h * sigma)
    line = np.full(len(x), sums.h)
    broken = tuple((1,) if signal else () for signal in sums.signals)
    return Lines(sums.high, np.zeros(len(x)), -line, line, sums.signals, broken, below=-sums.low)


def _without(x: Numbers, left_out: Bools | None) -> Numbers:
    return x if left_out is None else np.where(left_out, np.nan, x)


def _broken(kind: str, chart: Chart, settings: Settings, used: Bools) -> tuple[tuple[int, ...], ...]:
    """The rules that each point completes, (points,); a chart that run rules do not suit has its limits only."""
    if len(words_of(kind, settings)) == 1:
        return tuple((1,) if signal else () for signal in chart.outside & used)
    judge = rules.nelson if settings.rules == "nelson" else rules.western_electric
    places = np.flatnonzero(used)
    found: list[list[int]] = [[] for _ in used]
    for rule, where in judge(chart.z[used]).items():
        for point in where:
            found[places[point]].append(rule)
    return tuple(tuple(numbers) for numbers in found)
