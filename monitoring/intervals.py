"""What did a version do in each interval, in all that a rollout's gates may read? By interval, and by segment.

Two steps, because unpacking counts costs far more than finding out who has reported: first `heard`, then `read` of the
intervals that are complete, with the columns that somebody will look at. Both are asked for every open rollout every
few seconds: hence for both arms in one statement, and in SQL, because the ORM composes a statement anew each time.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from davy import counting, wire
from django.db import connection
from django.db.models import Min, Sum
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import references
from monitoring.models import Purpose, Window
from monitoring.statistics import binning

Array = NDArray[np.int64]

#: Columns that may be asked for besides n and errors, with their bins.
HISTOGRAMS = {
    "confidence": counting.CONFIDENCE_BINS,
    "latency": counting.LATENCY_BINS,
    "detections": counting.DETECTION_BINS,
    "errors_by_key_bucket": counting.KEY_BUCKETS,
}
EMBEDDING = "embedding"

Span = tuple[datetime, datetime]  # start, end


@dataclass(frozen=True)
class Heard:
    """Who has reported of one interval."""

    start: datetime
    end: datetime
    reporters: frozenset[str]  # UUIDs, as text


@dataclass(frozen=True)
class Observed:
    """Counts of one interval over all reporters. A column that nobody counted, or nobody asked for, is None."""

    start: datetime
    end: datetime
    n: int
    errors: int
    confidence: Array | None = None  # (100,)
    latency: Array | None = None  # (96,)
    detections: Array | None = None  # (64,)
    errors_by_key_bucket: Array | None = None  # (16,)
    embedding: Array | None = None  # (rows, quantiles + 1) between quantiles of the version's reference
    reference: Array | None = None  # (rows, quantiles + 1) the reference's own counts there
    reference_digest: str = ""
    segments: Mapping[str, Observed] = field(default_factory=dict)  # by "device=nano"

    def plus(self, other: Observed) -> Observed:
        """Both added up, less their segments: of the same interval, and of the same reference."""
        sums: dict[str, Any] = {
            name: _sum(getattr(self, name), getattr(other, name)) for name in (*HISTOGRAMS, EMBEDDING)
        }
        return replace(
            self,
            n=self.n + other.n,
            errors=self.errors + other.errors,
            reference=other.reference if self.reference is None else self.reference,
            reference_digest=self.reference_digest or other.reference_digest,
            segments={},
            **sums,
        )


@dataclass(frozen=True)
class Coarse:
    """A reference in few bins: enough to compare it at some quantiles, and small enough to be kept as evidence."""

    digest: str
    shape: tuple[int, int]  # of the counts that collectors send
    rows: Array  # those that are kept
    edges: Array  # (rows, quantiles) the inner edges nearest to the quantiles
    reference: Array  # (rows, quantiles + 1)

    def counts(self, packed: bytes) -> Array:
        """(rows, quantiles + 1) of a window's embedding counts."""
        return binning.between(wire.unpack(packed, self.shape)[self.rows], self.edges)


def coarse(version: ModelVersion, quantiles: tuple[float, ...], most_rows: int) -> Coarse | None:
    """The version's reference at these quantiles: its first components, and always its last row; None without one."""
    shape = references.shape_of(version)
    return _coarse(version.pk, shape.digest, quantiles, most_rows) if shape else None


@lru_cache(maxsize=64)
def _coarse(version_id: int, digest: str, quantiles: tuple[float, ...], most_rows: int) -> Coarse:
    """A reference never changes."""
    counts = references.by_version([version_id])[version_id].counts
    whole = len(counts)
    rows = np.arange(whole) if whole <= most_rows else np.append(np.arange(most_rows - 1), whole - 1)
    edges = binning.nearest_edges(counts[rows], np.asarray(quantiles))
    return Coarse(digest, (whole, counts.shape[1]), rows, edges, binning.between(counts[rows], edges))


def heard(
    versions: Sequence[ModelVersion], since: datetime, until: datetime, *, fleet: str = ""
) -> list[list[Heard]]:
    """Per version one Heard per distinct (start, end) of live windows within [since, until], by start.

    Known for a day. fleet leaves out what reporters of other fleets say; those who do not know theirs are heard by all.
    """
    found: dict[int, dict[Span, set[str]]] = {version.pk: defaultdict(set) for version in versions}
    statement = """
        SELECT version_id, start, "end", reporters FROM monitoring_reporting
        WHERE version_id = ANY(%s) AND start >= %s AND "end" <= %s AND (%s = '' OR fleet IN ('', %s))
    """
    with connection.cursor() as cursor:
        cursor.execute(statement, [[version.pk for version in versions], since, until, fleet, fleet])
        for version_id, start, end, reporters in cursor.fetchall():
            found[version_id][start, end].update(map(str, reporters))
    return [
        [Heard(start, end, frozenset(names)) for (start, end), names in sorted(found[version.pk].items())]
        for version in versions
    ]


def read(
    versions: Sequence[ModelVersion],
    since: datetime,
    until: datetime,
    columns: Collection[str],
    *,
    by: Collection[str] = (),
    bins: Sequence[Coarse | None] = (),
    fleet: str = "",
) -> list[list[Observed]]:
    """Per version one Observed per distinct (start, end) of live windows within [since, until], by start.

    columns  of HISTOGRAMS and EMBEDDING; only these are read
    by       segment keys: each of their values is counted besides the whole
    bins     of the versions' references, for EMBEDDING; what was counted with another reference is left out of it
    fleet    as for `heard`
    """
    coarse = {version.pk: own for version, own in zip(versions, bins, strict=False)}
    told = ("start", "end", "n", "errors", "segment", "reference_digest")
    grouped: dict[int, dict[Span, list[tuple[Mapping[str, Any], Observed]]]] = {
        version.pk: defaultdict(list) for version in versions
    }
    for row in _live_rows(("version_id", *told, *columns), versions, since, until, fleet):
        counts = _observed(row, columns, coarse.get(row["version_id"]))
        grouped[row["version_id"]][row["start"], row["end"]].append((row["segment"], counts))
    return [[_added(rows, by) for _, rows in sorted(grouped[version.pk].items())] for version in versions]


def _live(version: ModelVersion, since: datetime, until: datetime, fleet: str) -> Any:
    rows = Window.objects.filter(version=version, purpose=Purpose.LIVE, start__gte=since, end__lte=until)
    return rows.filter(fleet__in=("", fleet)) if fleet else rows


def _live_rows(
    columns: Sequence[str], versions: Sequence[ModelVersion], since: datetime, until: datetime, fleet: str
) -> list[dict[str, Any]]:
    """The rows of `_live` of several versions, by column."""
    names = ", ".join(f'"{column}"' for column in columns)
    statement = f"""
        SELECT {names} FROM monitoring_window
        WHERE version_id = ANY(%s) AND purpose = %s AND start >= %s AND "end" <= %s AND (%s = '' OR fleet IN ('', %s))
    """  # noqa: S608 - columns of the model
    wanted = [version.pk for version in versions], str(Purpose.LIVE), since, until, fleet, fleet
    with connection.cursor() as cursor:
        cursor.execute(statement, wanted)
        rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    for row in rows:
        row["segment"] = json.loads(row["segment"])
    return rows


def _observed(row: Mapping[str, Any], columns: Collection[str], bins: Coarse | None) -> Observed:
    found: dict[str, Any] = {}
    for name in columns:
        data = bytes(row[name])
        if not data:
            continue
        if name != EMBEDDING:
            found[name] = wire.unpack(data, (HISTOGRAMS[name],))
        elif bins is not None and row["reference_digest"] == bins.digest:
            found |= {"reference": bins.reference, "reference_digest": bins.digest}
            found[name] = bins.counts(data)
    return Observed(row["start"], row["end"], row["n"], row["errors"], **found)


def _added(rows: list[tuple[Mapping[str, Any], Observed]], by: Collection[str]) -> Observed:
    parts: dict[str, list[Observed]] = defaultdict(list)
    for segment, counts in rows:
        for key in by:
            if key in segment:
                parts[f"{key}={segment[key]}"].append(counts)
    segments = {label: reduce(Observed.plus, found) for label, found in parts.items()}
    return replace(reduce(Observed.plus, (counts for _, counts in rows)), segments=segments)


def _sum(one: Array | None, other: Array | None) -> Array | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


@dataclass(frozen=True)
class ErrorHistory:
    """The intervals of a period in which there were errors, and how much of it the version has been there."""

    seconds: float
    intervals: list[Observed]


def error_history(
    version: ModelVersion, since: datetime, until: datetime, *, fleet: str = ""
) -> ErrorHistory:
    """Errors by hash bucket of their key within [since, until]; intervals without errors are only counted as time."""
    rows = _live(version, since, until, fleet)
    began = rows.aggregate(began=Min("start"))["began"]
    if began is None:
        return ErrorHistory(0.0, [])
    columns = ("errors_by_key_bucket",)
    grouped: dict[Span, list[Observed]] = defaultdict(list)
    for row in rows.filter(errors__gt=0).values("start", "end", "n", "errors", *columns):
        grouped[row["start"], row["end"]].append(_observed(row, columns, None))
    totals = _requests(rows.filter(start__in={start for start, _ in grouped}))
    intervals = [
        replace(reduce(Observed.plus, found), n=totals[place]) for place, found in sorted(grouped.items())
    ]
    return ErrorHistory((until - began).total_seconds(), intervals)


def _requests(rows: Any) -> dict[Span, int]:
    """n by interval over all segments; those without errors are requests, too."""
    found: Iterable[Mapping[str, Any]] = rows.order_by().values("start", "end").annotate(requests=Sum("n"))
    return {(row["start"], row["end"]): int(row["requests"]) for row in found}
