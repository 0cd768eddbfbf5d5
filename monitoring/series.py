"""What did a version do hour by hour, minute by minute, on any part of its traffic? Gaps are gaps.

Every reading is a sum: of roll-ups where a level divides the asked length, else of windows. A part of the traffic is
named by segment values, and by "fleet" for that of its reporters.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from davy import counting, wire
from django.db.models import QuerySet
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import references
from monitoring.models import Rollup, Window
from monitoring.rollups import DAY, HOUR, MINUTE
from monitoring.statistics import scores as scoring
from monitoring.statistics.calibration import Series
from monitoring.windows import aligned

Array = NDArray[np.int64]
Numbers = NDArray[np.float64]

FLEET = "fleet"
PURPOSES = ("live", "late", "import")  # real traffic, whenever it was told
EMBEDDING = "embedding"
HISTOGRAMS = {
    "confidence": counting.CONFIDENCE_BINS,
    "latency": counting.LATENCY_BINS,
    "detections": counting.DETECTION_BINS,
    "errors_by_key_bucket": counting.KEY_BUCKETS,
}
ROWS_AT_ONCE = 500


@dataclass
class Point:
    """Counts of one interval. A column that nobody counted, or nobody asked for, is absent from `counts`."""

    start: datetime
    n: int = 0
    errors: int = 0
    counts: dict[str, Array] = field(default_factory=dict)  # confidence (100,) …, embedding (k+1, B)

    def add(self, row: Mapping[str, Any], columns: Collection[str], grid: references.Shape | None) -> None:
        """Add a stored row, in place; embeddings that were counted in other bins than `grid`'s are left out."""
        self.n += row["n"]
        self.errors += row["errors"]
        for name in columns:
            if not row[name] or (name == EMBEDDING and not _fits(row, grid)):
                continue
            shape = (grid.rows, grid.bins) if name == EMBEDDING and grid else (HISTOGRAMS[name],)
            counts = wire.unpack(bytes(row[name]), shape)
            self.counts[name] = self.counts[name] + counts if name in self.counts else counts


@dataclass(frozen=True)
class Cell:
    """A part of the traffic: point i covers `seconds` from start + i·seconds on; None where nobody reported."""

    segment: Mapping[str, str]
    start: datetime
    seconds: int
    points: tuple[Point | None, ...]


def series(
    version: ModelVersion,
    since: datetime,
    until: datetime,
    seconds: int,
    *,
    columns: Collection[str] = (),
    where: Mapping[str, str] | None = None,
    by: Sequence[str] = (),
    purposes: Sequence[str] = PURPOSES,
) -> list[Cell]:
    """The version's counts in intervals of `seconds` that lie within [since, until], one cell per combination of `by`.

    seconds  of an interval; aligned to 1970 UTC. Multiples of a day, an hour or a minute read roll-ups, which are there
             up to `rollups.closed`; other lengths read windows (kept for a week), by where they begin
    columns  of HISTOGRAMS and EMBEDDING, the latter in the bins of the reference in force; n and errors are always read
    where    segment values (and "fleet") that all rows must have
    by       segment names (and "fleet") that part the traffic, "" where a row has no value; none: one cell
    An interval in which others were heard, but not this cell, has n = 0: no traffic is no gap.
    """
    first = aligned(since + timedelta(seconds=seconds, microseconds=-1), seconds)
    last = aligned(until, seconds)
    count = max(round((last - first).total_seconds() / seconds), 0)
    rows = _rows(version, first, last, seconds, purposes)
    grid = references.shape_of(version) if EMBEDDING in columns else None
    heard = {_index(start, first, seconds) for start in rows.values_list("start", flat=True).distinct()}
    found: dict[tuple[str, ...], dict[int, Point]] = defaultdict(dict)
    if not by:
        found[()] = {}
    for row in _where(rows, where, ("n", "errors", "reference_digest", *columns)):
        index = _index(row["start"], first, seconds)
        points = found[_values(row, by)]
        point = points.setdefault(index, Point(first + index * timedelta(seconds=seconds)))
        point.add(row, columns, grid)

    def filled(points: Mapping[int, Point], index: int) -> Point | None:
        silent = Point(first + index * timedelta(seconds=seconds)) if index in heard else None
        return points.get(index, silent)

    return [
        Cell(
            {**dict(where or {}), **dict(zip(by, values, strict=True))},
            first,
            seconds,
            tuple(filled(points, index) for index in range(count)),
        )
        for values, points in sorted(found.items())
    ]


@dataclass(frozen=True)
class CellHours:
    """Hourly mean scores of parts of the traffic, as `statistics.cell_history.usual` takes them.

    names  c tuples, one value per axis; hours (t,) since 1970, those in which anybody was heard, rising
    n      (t, c) rows counted; means (t, c, p), NaN where n is 0
    """

    names: tuple[tuple[str, ...], ...]
    hours: Array
    n: Array
    means: Numbers


def scores(
    version: ModelVersion,
    family: scoring.Family,
    since: datetime,
    until: datetime,
    *,
    where: Mapping[str, str] | None = None,
) -> Series:
    """The family's scores of every hour within [since, until] that was rolled up; others are gaps, hence missing.

    Embeddings by the reference in force: hours counted in other bins are missing, too.
    """
    found = cells(version, family, since, until, (), where=where)
    if not found.names:
        return Series(found.hours, np.zeros(0, np.int64), np.zeros((0, found.means.shape[2])))
    return Series(found.hours, found.n[:, 0], found.means[:, 0])


def cells(
    version: ModelVersion,
    family: scoring.Family,
    since: datetime,
    until: datetime,
    axes: Sequence[str],
    *,
    where: Mapping[str, str] | None = None,
) -> CellHours:
    """The family's scores of every hour within [since, until] by the values of `axes` (segment names, and "fleet")."""
    reads = _embeddings(version) if family == "embedding" else _histograms(family)
    rows = _rows(version, since, aligned(until, HOUR), HOUR, PURPOSES)
    if family == "embedding":
        shape = references.shape_of(version)
        rows = rows.filter(reference_digest=shape.digest if shape else "", embedded__gt=0)
    sums: dict[tuple[datetime, tuple[str, ...]], Numbers] = {}
    for row in _where(rows, where, reads.columns):
        place = (row["start"], _values(row, axes))
        addends = reads.addends(row)
        sums[place] = sums[place] + addends if place in sums else addends
    starts = sorted({start for start, _ in sums})
    names = sorted({values for _, values in sums})
    whole = np.zeros((len(starts), len(names), reads.width))
    at = {start: index for index, start in enumerate(starts)}
    column = {values: index for index, values in enumerate(names)}
    for (start, values), added in sums.items():
        whole[at[start], column[values]] = added
    n, means = reads.means(whole.reshape(-1, reads.width))
    hours = np.array([int(start.timestamp()) // HOUR for start in starts], np.int64)
    places = (len(starts), len(names))
    return CellHours(tuple(names), hours, n.reshape(places), means.reshape(*places, means.shape[1]))


@dataclass(frozen=True)
class _Reading:
    """How a family is read: columns, what of a row adds up (width,), and (m,) n and (m, p) means of (m, width) sums."""

    columns: tuple[str, ...]
    width: int
    addends: Callable[[Mapping[str, Any]], Numbers]
    means: Callable[[Numbers], tuple[Array, Numbers]]


def _embeddings(version: ModelVersion) -> _Reading:
    shape = references.shape_of(version)
    width = 2 * shape.rows if shape else 0

    def addends(row: Mapping[str, Any]) -> Numbers:
        return np.append(np.frombuffer(row["score_sums"], "<f8"), row["embedded"])

    def means(sums: Numbers) -> tuple[Array, Numbers]:
        n = sums[:, -1:]
        return n[:, 0].astype(np.int64), sums[:, :-1] / np.where(n > 0, n, np.nan)

    return _Reading(("score_sums", "embedded"), width + 1, addends, means)


def _histograms(family: scoring.Family) -> _Reading:
    of = scoring.confidence_scores if family == "confidence" else scoring.detection_scores
    bins = HISTOGRAMS[family]

    def addends(row: Mapping[str, Any]) -> Numbers:
        packed = bytes(row[family])
        return wire.unpack(packed, (bins,)).astype(np.float64) if packed else np.zeros(bins)

    def means(sums: Numbers) -> tuple[Array, Numbers]:
        counts = sums.astype(np.int64)
        return counts.sum(axis=1), of(counts)

    return _Reading((family,), bins, addends, means)


def _rows(
    version: ModelVersion, since: datetime, until: datetime, seconds: int, purposes: Sequence[str]
) -> QuerySet[Any]:
    inside = {"version": version, "start__gte": since, "start__lt": until, "purpose__in": purposes}
    level = next((level for level in (DAY, HOUR, MINUTE) if seconds % level == 0), None)
    if level is None:
        return Window.objects.filter(**inside)
    return Rollup.objects.filter(**inside, seconds=level)


def _where(
    rows: QuerySet[Any], where: Mapping[str, str] | None, columns: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    wanted = dict(where or {})
    if FLEET in wanted:
        rows = rows.filter(fleet=wanted.pop(FLEET))
    if wanted:
        rows = rows.filter(segment__contains=wanted)
    return rows.values("start", "segment", FLEET, *columns).iterator(chunk_size=ROWS_AT_ONCE)


def _values(row: Mapping[str, Any], by: Sequence[str]) -> tuple[str, ...]:
    return tuple(row[FLEET] if name == FLEET else row["segment"].get(name, "") for name in by)


def _fits(row: Mapping[str, Any], grid: references.Shape | None) -> bool:
    return grid is not None and row["reference_digest"] == grid.digest


def _index(start: datetime, first: datetime, seconds: int) -> int:
    return int((start - first).total_seconds() // seconds)
