"""What does a control chart of a version show, around which limits, and which points signal?

Phase I is the period that a person chose (chart_limits.recalculate); what is shown before, within and after it is
judged by its limits. Without one the limits are provisional: those of the points shown, around the reference's share
where there is one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from davy import wire
from numpy.typing import NDArray

from controlplane import problems
from controlplane.models import ModelVersion
from monitoring import references, series, windows
from monitoring.models import ChartExclusion, ControlChart
from monitoring.statistics.charts import kinds, measures
from monitoring.statistics.charts.kinds import Estimate, Lines, Settings

Numbers = NDArray[np.float64]

LEVELS = {
    60: timedelta(hours=3),
    3600: timedelta(days=14),
    86400: timedelta(days=180),
}  # what is shown of each
HOUR = 3600
MOST_INTERVALS = 3000
CHART_OF_SHARES = frozenset({"p", "np", "laney_p"})  # whose centre a reference can give


@dataclass(frozen=True)
class Place:
    """Which chart: of what, of whom. Charts and exclusions are kept by it."""

    version: ModelVersion
    kind: str
    measure: str
    segment: Mapping[str, str]

    def __post_init__(self) -> None:
        """Problems name what there is not, or a measure that the chart cannot show."""
        if self.kind not in kinds.KINDS:
            detail = f"no chart {self.kind!r}; there are {', '.join(kinds.KINDS)}"
            raise problems.field("/chart", "unknown_chart", detail, status=404)
        check_measure(self.measure)
        fitting = kinds.KINDS_OF[measures.MEASURES[self.measure].form]
        if self.kind not in fitting:
            detail = f"{self.measure} is shown by the charts {', '.join(fitting)}, not by {self.kind}"
            raise problems.field("/measure", "wrong_chart", detail)

    @property
    def segment_key(self) -> str:
        """The segment's canonical text."""
        return wire.segment_key(self.segment)

    def charts(self) -> Any:
        """Its control charts, of any number."""
        return ControlChart.objects.filter(
            version=self.version, kind=self.kind, measure=self.measure, segment_key=self.segment_key
        )


@dataclass(frozen=True)
class Period:
    """Whole intervals of `seconds` from since to until, as many as make whole points of the chart."""

    since: datetime
    until: datetime
    seconds: int

    @property
    def intervals(self) -> int:
        """How many there are."""
        return round((self.until - self.since).total_seconds() / self.seconds)

    def start(self, index: int) -> datetime:
        """Where an interval begins."""
        return self.since + timedelta(seconds=index * self.seconds)


@dataclass(frozen=True)
class Point:
    """One point; value None is a gap. `rules` are numbers of the chart's rule set; phase 1 made the limits."""

    start: datetime
    end: datetime
    n: int
    value: float | None
    below: float | None  # CUSUM's lower sum, negative
    center: float | None
    lower: float | None
    upper: float | None
    rules: tuple[int, ...]
    phase: int
    exclusion: ChartExclusion | None


@dataclass(frozen=True)
class Drawn:
    """A chart as it is shown. `chart` None: limits are provisional; `estimate` None: too few points for any."""

    place: Place
    period: Period
    settings: Settings
    chart: ControlChart | None
    estimate: Estimate | None
    limits_from: str  # "phase 1", "reference", "points" or ""
    points: list[Point]

    @property
    def signals(self) -> int:
        """How many points break a rule."""
        return sum(bool(point.rules) for point in self.points)


def segment_of(key: str) -> dict[str, str]:
    """The segment that a canonical text stands for."""
    return dict(json.loads(key)) if key else {}


def check_measure(name: str) -> None:
    """Problem naming the measure where there is none of that name."""
    if name not in measures.MEASURES:
        detail = f"no measure {name!r}; there are {', '.join(measures.MEASURES)}"
        raise problems.field("/measure", "unknown_measure", detail)


def chart_of(
    place: Place,
    now: datetime,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    seconds: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> Drawn:
    """The chart of the intervals in [since, until]; by default the latest of its level (LEVELS).

    seconds  of an interval: 60, 3600 or 86400; None: the chart's own, else 3600
    changes  settings that differ from the chart's own, for this look only
    """
    chart = place.charts().filter(retired_at=None).first()
    if chart is not None and seconds not in (None, chart.settings["seconds"]):
        chart = None  # limits of hours say nothing of minutes
    wanted = seconds or (chart.settings["seconds"] if chart else HOUR)
    settings = settings_of({**(own_settings(chart) if chart else {}), **(changes or {})})
    period = period_of(place, settings, wanted, since, until or now, now)
    amount, n = read(place, period)
    excluded = exclusions(place, period, settings)
    estimate, limits_from = (
        (Estimate(**chart.settings["estimate"]), "phase 1")
        if chart
        else provisional(place, amount, n, settings, excluded)
    )
    points = _points(period, amount, n, place.kind, settings, estimate, excluded, chart)
    return Drawn(place, period, settings, chart, estimate, limits_from, points)


def settings_of(given: Mapping[str, Any]) -> Settings:
    """The settings; a Problem names the one that no chart can be drawn with."""
    try:
        return replace(Settings(), **given)
    except ValueError as err:
        name = str(err).partition(":")[0]
        pointer = "lambda" if name == "lam" else name
        raise problems.field(f"/{pointer}", "bad_setting", str(err)) from None


def own_settings(chart: ControlChart) -> dict[str, Any]:
    """The settings that a chart was made with, without what it found."""
    return {name: chart.settings[name] for name in asdict(Settings())}


def period_of(
    place: Place,
    settings: Settings,
    seconds: int,
    since: datetime | None,
    until: datetime,
    now: datetime,
) -> Period:
    """The whole points of the chart in [since, until], none of them still open. Problems name what is wrong."""
    if seconds not in LEVELS:
        detail = f"no intervals of {seconds} s; there are {', '.join(map(str, LEVELS))}"
        raise problems.field("/seconds", "unknown_level", detail)
    step = seconds * kinds.intervals_of(place.kind, settings)
    last = windows.aligned(min(until, now), step)
    first = since or until - LEVELS[seconds]
    start = windows.aligned(first + timedelta(seconds=step) - timedelta.resolution, step)
    if (last - start).total_seconds() > MOST_INTERVALS * seconds:
        detail = f"more than {MOST_INTERVALS} intervals of {seconds} s; ask for less, or for longer ones"
        raise problems.field("/from", "too_long", detail)
    return Period(start, max(start, last), seconds)


def read(place: Place, period: Period) -> tuple[Numbers, Numbers]:
    """The measure's amounts and its n, each (intervals,), NaN where nothing was seen."""
    column = measures.MEASURES[place.measure].column
    bins = references.load(place.version) if column == series.EMBEDDING else None
    (cell,) = series.series(
        place.version,
        period.since,
        period.until,
        period.seconds,
        columns=(column,) if column in (*series.HISTOGRAMS, series.EMBEDDING) else (),
        where=place.segment,
    )
    amount, n = np.full(period.intervals, np.nan), np.full(period.intervals, np.nan)
    for index, point in enumerate(cell.points):
        found = point and measures.amount(
            place.measure, point.n, point.errors, point.counts.get(column), bins
        )
        if found:
            amount[index], n[index] = found
    return amount, n


def exclusions(place: Place, period: Period, settings: Settings) -> dict[int, ChartExclusion]:
    """The points that are left out, by their number, with who left them out and why."""
    step = period.seconds * kinds.intervals_of(place.kind, settings)
    rows = ChartExclusion.objects.filter(
        version=place.version,
        measure=place.measure,
        segment_key=place.segment_key,
        start__gte=period.since,
        start__lt=period.until,
        withdrawn_at=None,
    )
    return {int((row.start - period.since).total_seconds() // step): row for row in rows.order_by("start")}


def provisional(
    place: Place,
    amount: Numbers,
    n: Numbers,
    settings: Settings,
    excluded: Mapping[int, ChartExclusion],
) -> tuple[Estimate | None, str]:
    """Limits from the points themselves, around the reference's share where there is one; and which it was."""
    center = None
    if place.kind in CHART_OF_SHARES and (bins := references.load(place.version)) is not None:
        center = measures.expected(place.measure, bins)
    found = estimate(place, amount, n, settings, excluded, center)
    return found, "" if found is None else "points" if center is None else "reference"


def estimate(
    place: Place,
    amount: Numbers,
    n: Numbers,
    settings: Settings,
    excluded: Mapping[int, ChartExclusion],
    center: float | None = None,
) -> Estimate | None:
    """Centre and spread of the points that are not left out; None where they are too few."""
    kept, each = amount.copy(), kinds.intervals_of(place.kind, settings)
    for number in excluded:
        kept[number * each : (number + 1) * each] = np.nan
    try:
        return kinds.estimate(place.kind, kept, n, settings, center)
    except ValueError:
        return None


def _points(
    period: Period,
    amount: Numbers,
    n: Numbers,
    kind: str,
    settings: Settings,
    estimate: Estimate | None,
    excluded: Mapping[int, ChartExclusion],
    chart: ControlChart | None,
) -> list[Point]:
    """The points from the first that was seen; nothing before it is a gap."""
    each = kinds.intervals_of(kind, settings)
    count = period.intervals // each
    left_out = np.isin(np.arange(count), list(excluded))
    drawn = (
        kinds.lines(kind, amount, n, settings, estimate, left_out)
        if estimate and count
        else _bare(kind, amount / n, each)
    )
    seen = np.nan_to_num(n[: count * each]).reshape(count, each).sum(axis=1)
    first = int(np.argmax(seen > 0)) if seen.any() else count
    return [
        Point(
            start := period.start(i * each),
            period.start((i + 1) * each),
            int(seen[i]),
            value=_at(drawn.value, i),
            below=_at(drawn.below, i),
            center=_at(drawn.center, i),
            lower=_at(drawn.lower, i),
            upper=_at(drawn.upper, i),
            rules=drawn.rules[i],
            phase=1 if chart and chart.phase1_from <= start < chart.phase1_until else 2,
            exclusion=excluded.get(i),
        )
        for i in range(first, count)
    ]


def _at(line: Numbers | None, index: int) -> float | None:
    return None if line is None or np.isnan(line[index]) else float(line[index])


def _bare(kind: str, value: Numbers, each: int) -> Lines:
    """Points without limits: too few were seen to say what is normal."""
    shown = value[: len(value) // each * each].reshape(-1, each).mean(axis=1)
    if kind in kinds.SKEWED | kinds.WITH_MEMORY:
        shown = np.full(len(shown), np.nan)
    none = np.full(len(shown), np.nan)
    return Lines(shown, none, none, none, np.zeros(len(shown), bool), ((),) * len(shown))
