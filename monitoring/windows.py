"""How many predictions of a version were there in each interval, how sure, how fast, how many failed?

Reports and raw predictions are folded into Window rows exactly once: a worker claims them with SKIP LOCKED,
adds them to the windows and marks them folded in one transaction; a crash leaves them unfolded and whole.
"""

from __future__ import annotations

import logging
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from davy import counting, wire
from davy.reference import Reference as Bins
from django.db import transaction
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import references
from monitoring.models import Prediction, Purpose, Report, Window

log = logging.getLogger(__name__)

Array = NDArray[np.int64]

REPORTS_PER_TRANSACTION = 50
PREDICTIONS_PER_TRANSACTION = 5000
RAW_WINDOW_SECONDS = 10  # raw predictions are counted into UTC-aligned windows of this length
RAW_REPORTER = "api"
SKEW_SECONDS = 1.0  # a larger difference of the clocks moves the interval
LATE = "late"  # purpose of live windows of a reporter beyond 5 minutes of skew: shown, never rollout evidence


@dataclass(frozen=True)
class Counts:
    """Counts of one interval over all segments and reporters; histograms as in davy.counting."""

    start: datetime
    end: datetime
    n: int
    errors: int
    confidence: Array  # (100,)
    latency: Array  # (96,)
    reporters: frozenset[str]


@dataclass(frozen=True)
class Total:
    """Windows of a period added up. `start` and `end` are what was found, None when nothing was."""

    start: datetime | None
    end: datetime | None
    windows: int
    n: int
    errors: int
    confidence: Array  # (100,)
    latency: Array  # (96,)
    detections: Array  # (64,)
    embedding: Array | None  # (k+1, B) in the bins of the version's reference; None without a reference
    reporters: frozenset[str]


def intervals(
    version: ModelVersion,
    since: datetime,
    until: datetime,
    purpose: str = Purpose.LIVE,
    segment: Mapping[str, str] | None = None,
) -> list[Counts]:
    """One Counts per distinct (start, end) within [since, until], by start; segments and references added.

    `segment` keeps windows that have all of its keys and values. Windows of late reporters have a purpose of
    their own and are not among them.
    """
    query = Window.objects.filter(version=version, purpose=purpose, start__gte=since, end__lte=until)
    if segment:
        query = query.filter(segment__contains=dict(segment))
    grouped: dict[tuple[datetime, datetime], list[Window]] = defaultdict(list)
    for row in query.only("start", "end", "n", "errors", "confidence", "latency", "reporters"):
        grouped[row.start, row.end].append(row)
    return [
        Counts(
            start=start,
            end=end,
            n=sum(row.n for row in rows),
            errors=sum(row.errors for row in rows),
            confidence=_sum((row.confidence for row in rows), counting.CONFIDENCE_BINS),
            latency=_sum((row.latency for row in rows), counting.LATENCY_BINS),
            reporters=frozenset(name for row in rows for name in row.reporters),
        )
        for (start, end), rows in sorted(grouped.items(), key=lambda item: item[0])
    ]


def total(
    version: ModelVersion,
    since: datetime,
    until: datetime,
    *,
    purpose: str = Purpose.LIVE,
    segment: Mapping[str, str] | None = None,
) -> Total:
    """All windows within [since, until] added up; `segment` keeps those that have all of its keys and values.

    Late reporters count here when `purpose` is live: an old count is still a count. `embedding` adds the
    windows that were counted in the bins of the version's present reference.
    """
    purposes = [purpose, LATE] if purpose == Purpose.LIVE else [purpose]
    query = Window.objects.filter(version=version, purpose__in=purposes, start__gte=since, end__lte=until)
    if segment:
        query = query.filter(segment__contains=dict(segment))
    shape = references.shape_of(version)
    columns = ["start", "end", "n", "errors", "confidence", "latency", "detections", "reporters"]
    rows = list(query.values(*columns, *(("embedding", "reference_digest") if shape else ())))
    own = (row["embedding"] for row in rows if shape and row["reference_digest"] == shape.digest)
    return Total(
        start=min((row["start"] for row in rows), default=None),
        end=max((row["end"] for row in rows), default=None),
        windows=len(rows),
        n=sum(row["n"] for row in rows),
        errors=sum(row["errors"] for row in rows),
        confidence=_sum((row["confidence"] for row in rows), counting.CONFIDENCE_BINS),
        latency=_sum((row["latency"] for row in rows), counting.LATENCY_BINS),
        detections=_sum((row["detections"] for row in rows), counting.DETECTION_BINS),
        embedding=_sum(own, shape.rows, shape.bins) if shape else None,
        reporters=frozenset(name for row in rows for name in row["reporters"]),
    )


def _sum(packed: Iterable[bytes | memoryview], *shape: int) -> Array:
    counts = np.zeros(shape, np.int64)
    for data in packed:
        if data:
            counts += wire.unpack(bytes(data), shape)
    return counts


def aligned(at: datetime, seconds: float) -> datetime:
    """The latest multiple of `seconds` since 1970 UTC that is not after `at`."""
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)


class Key(NamedTuple):
    """The identity of a window. Workers lock windows in the order of their keys, so they cannot deadlock."""

    version_id: int
    purpose: str
    segment_key: str
    reference_digest: str
    fleet: str
    start: datetime
    end: datetime


@dataclass
class Tally:
    """A window while it is being added up; `counts.purpose` is not used, the key has it."""

    counts: wire.WindowCounts
    reporters: set[str] = field(default_factory=set)
    packed_embedding: bytes = b""  # what is stored, and stays when nothing is added to it

    def add(self, other: wire.WindowCounts, reporters: Iterable[str]) -> None:
        """Add counts of the same interval and segment, in place."""
        self.counts.add(other)
        self.reporters.update(reporters)


def fold(now: datetime, limit: int = 500) -> int:
    """Fold up to about `limit` reports, and all uncounted raw predictions; returns how many. Safe to repeat.

    Any number of workers may fold at once; each report and prediction is added exactly once.
    """
    folded = 0
    while folded < limit and (claimed := _fold_reports(now, min(REPORTS_PER_TRANSACTION, limit - folded))):
        folded += claimed
    while claimed := _fold_predictions(now):
        folded += claimed
    return folded


def _fold_reports(now: datetime, limit: int) -> int:
    with transaction.atomic():
        unfolded = Report.objects.filter(folded_at__isnull=True).order_by("received_at")
        rows = list(unfolded.select_for_update(skip_locked=True)[:limit])
        if rows:
            _merge(_tally_reports(rows), now)
            Report.objects.filter(pk__in=[row.pk for row in rows]).update(folded_at=now)
        return len(rows)


def _tally_reports(rows: Iterable[Report]) -> dict[Key, Tally]:
    """What reports hold, by window. One that cannot be read, or whose version is gone, is logged."""
    decoded: list[tuple[Report, wire.Report]] = []
    for row in rows:
        try:
            decoded.append((row, wire.decode_report(bytes(row.body))))
        except ValueError:
            log.exception("report %s cannot be read and is left out", row)
    ids = version_ids((report.model, report.version) for _, report in decoded)
    tallies: dict[Key, Tally] = {}
    for row, report in decoded:
        version_id = ids.get((report.model, report.version))
        if version_id is None:
            log.error("report %s is left out: no version %s %s", row, report.model, report.version)
            continue
        start, end = corrected_interval(report, row.received_at)
        for window in report.windows:
            purpose = LATE if row.late and window.purpose == Purpose.LIVE else window.purpose
            place = wire.segment_key(window.segment)
            key = Key(version_id, purpose, place, report.reference_digest, report.fleet, start, end)
            tally = tallies.setdefault(key, Tally(wire.WindowCounts(segment=window.segment)))
            tally.add(window, [report.reporter])
    return tallies


def version_ids(names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Primary keys by (model name, version name), in one query; unknown names are absent."""
    wanted = set(names)
    found = ModelVersion.objects.filter(
        model__name__in={model for model, _ in wanted}, name__in={version for _, version in wanted}
    ).values_list("model__name", "name", "pk")
    return {(model, name): pk for model, name, pk in found if (model, name) in wanted}


def corrected_interval(report: wire.Report, received_at: datetime) -> tuple[datetime, datetime]:
    """The report's interval by this server's clock.

    A skew (received − sent) beyond 1 s moves it by the nearest number of whole intervals, so that it stays
    aligned with everybody else's; a skew of less than half an interval therefore moves nothing.
    """
    skew = received_at.timestamp() - report.sent_at
    length = report.end - report.start
    shift = round(skew / length) * length if abs(skew) > SKEW_SECONDS else 0.0
    return (
        datetime.fromtimestamp(report.start + shift, UTC),
        datetime.fromtimestamp(report.end + shift, UTC),
    )


def _fold_predictions(now: datetime) -> int:
    with transaction.atomic():
        uncounted = Prediction.objects.filter(counted_at__isnull=True, sampler="").order_by("received_at")
        rows = list(uncounted.select_for_update(skip_locked=True)[:PREDICTIONS_PER_TRANSACTION])
        if rows:
            _merge(_tally_predictions(rows), now)
            Prediction.objects.filter(pk__in=[row.pk for row in rows]).update(counted_at=now)
        return len(rows)


def _tally_predictions(rows: Iterable[Prediction]) -> dict[Key, Tally]:
    """What raw predictions add up to, by window; embeddings in the bins of the version's reference."""
    rows = list(rows)
    bins = references.by_version({row.version_id for row in rows})
    groups: dict[Key, list[Prediction]] = defaultdict(list)
    for row in rows:
        start = aligned(row.at, RAW_WINDOW_SECONDS)
        end = start + timedelta(seconds=RAW_WINDOW_SECONDS)
        reference = bins.get(row.version_id)
        digest = reference.digest if reference else ""
        key = Key(row.version_id, row.purpose, wire.segment_key(row.segment), digest, "", start, end)
        groups[key].append(row)
    return {
        key: Tally(_counts_of(group, bins.get(key.version_id)), {RAW_REPORTER})
        for key, group in groups.items()
    }


def _counts_of(rows: list[Prediction], bins: Bins | None) -> wire.WindowCounts:
    """Raw predictions of one window as counts; as in a report, errors are in n and in no histogram."""
    good = [row for row in rows if not row.error]
    detections = [len(row.detections) for row in good if row.detections is not None]
    vectors = [np.frombuffer(row.embedding, "<f4") for row in good if row.embedding]
    if bins is not None:
        vectors = [vector for vector in vectors if len(vector) == bins.dimensions]
    buckets = [zlib.crc32(row.key.encode()) % counting.KEY_BUCKETS for row in rows if row.error and row.key]
    return wire.WindowCounts(
        segment=rows[0].segment,
        n=len(rows),
        errors=len(rows) - len(good),
        errors_by_key_bucket=np.bincount(buckets, minlength=counting.KEY_BUCKETS),
        confidence=counting.count_confidence([row.confidence for row in good if row.confidence is not None]),
        latency=counting.count_latency([row.latency_ms / 1000 for row in good if row.latency_ms is not None]),
        detections=counting.count_detections(detections) if detections else None,
        embedding=bins.count(np.stack(vectors)) if bins is not None and vectors else None,
    )


def _merge(tallies: Mapping[Key, Tally], now: datetime) -> None:
    """Add tallies to the stored windows; inside the caller's transaction.

    The first upsert creates the windows that are missing and locks all of them in the order of the keys; what
    is read after it cannot change before the commit. The second upsert writes the sums.
    """
    identity = list(Key._fields)
    keys = sorted(tallies)
    locked = Window.objects.bulk_create(
        [Window(**key._asdict(), n=0, errors=0, folded_at=now) for key in keys],
        update_conflicts=True,
        unique_fields=identity,
        update_fields=["folded_at"],
    )
    for row in Window.objects.filter(pk__in=[row.pk for row in locked]):
        tally = tallies[Key(*(getattr(row, name) for name in identity))]
        mine = tally.counts.embedding
        tally.packed_embedding = bytes(row.embedding)
        tally.add(_stored(row, None if mine is None else mine.shape), row.reporters)
    Window.objects.bulk_create(
        [_row(key, tallies[key], now) for key in keys],
        update_conflicts=True,
        unique_fields=identity,
        update_fields=[*COUNTED, "segment", "reporters", "folded_at"],
    )


COUNTED = ["n", "errors", "errors_by_key_bucket", "confidence", "latency", "detections", "embedding"]


def _row(key: Key, tally: Tally, now: datetime) -> Window:
    counts = tally.counts
    embedding = counts.embedding
    return Window(
        **key._asdict(),
        segment=counts.segment,
        reporters=sorted(tally.reporters),
        n=counts.n,
        errors=counts.errors,
        errors_by_key_bucket=wire.pack(counts.errors_by_key_bucket),
        confidence=wire.pack(counts.confidence),
        latency=wire.pack(counts.latency),
        detections=b"" if counts.detections is None else wire.pack(counts.detections),
        embedding=tally.packed_embedding if embedding is None else wire.pack(embedding),
        folded_at=now,
    )


def _stored(row: Window, shape: tuple[int, ...] | None) -> wire.WindowCounts:
    """The counts of a window; without `shape`, that of its embedding counts, they are left out."""
    return wire.WindowCounts(
        n=row.n,
        errors=row.errors,
        errors_by_key_bucket=_sum([row.errors_by_key_bucket], counting.KEY_BUCKETS),
        confidence=_sum([row.confidence], counting.CONFIDENCE_BINS),
        latency=_sum([row.latency], counting.LATENCY_BINS),
        detections=_sum([row.detections], counting.DETECTION_BINS) if row.detections else None,
        embedding=_sum([row.embedding], *shape) if shape and row.embedding else None,
    )
