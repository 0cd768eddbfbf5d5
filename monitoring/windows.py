"""How many predictions of a version were there in each interval, how sure, how fast, how many failed?

Reports and raw predictions are folded into Window rows exactly once: a worker claims them with SKIP LOCKED,
adds them to the windows and marks them folded in one transaction; a crash leaves them unfolded and whole. The same
transaction adds to the version's totals and marks the minutes and hours that have to be rolled up (again).
"""

from __future__ import annotations

import logging
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import numpy as np
from davy import counting, wire
from davy.reference import Reference as Bins
from django.db import transaction
from django.db.models import DateTimeField, ExpressionWrapper, F, Q
from django.utils import timezone
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import references, totals
from monitoring.merging import Key, Tally, added_up, admitted, merge
from monitoring.models import Prediction, Purpose, Report, Reporting, Rollup, Unrolled, Window

log = logging.getLogger(__name__)

Array = NDArray[np.int64]

REPORTS_PER_TRANSACTION = 200
PREDICTIONS_PER_TRANSACTION = 5000
RAW_WINDOW_SECONDS = 10  # raw predictions are counted into UTC-aligned windows of this length
RAW_REPORTER = UUID(int=0)  # of raw predictions, whoever posted them
SKEW_SECONDS = 1.0  # a larger difference of the clocks moves the interval
LATE = str(
    Rollup.Source.LATE
)  # live windows of a reporter beyond 5 minutes of skew: shown, never rollout evidence
IMPORT = str(Rollup.Source.IMPORT)  # live windows of an imported history: likewise
READ_FOR = timedelta(days=7)  # windows are kept a day longer; what is older is read from roll-ups
HOUR = timedelta(hours=1)
ROLLED = (60, 3600)  # seconds of the roll-ups that are made of windows


@dataclass(frozen=True)
class Counts:
    """Counts of one interval over all segments and reporters; histograms as in davy.counting."""

    start: datetime
    end: datetime
    n: int
    errors: int
    confidence: Array  # (100,)
    latency: Array  # (96,)


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
    for row in query.only("start", "end", "n", "errors", "confidence", "latency"):
        grouped[row.start, row.end].append(row)
    return [
        Counts(
            start=start,
            end=end,
            n=sum(row.n for row in rows),
            errors=sum(row.errors for row in rows),
            confidence=added_up((row.confidence for row in rows), counting.CONFIDENCE_BINS),
            latency=added_up((row.latency for row in rows), counting.LATENCY_BINS),
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

    Late reporters and imported history count here when `purpose` is live: an old count is still a count. `embedding`
    adds the windows that were counted in the bins of the version's present reference. What lies more than a week back
    is read by whole hours.
    """
    shape = references.shape_of(version)
    columns = ["start", "end", "n", "errors", "confidence", "latency", "detections"]
    columns += ("embedding", "reference_digest") if shape else ()
    rows = _within(version, since, until, purpose, dict(segment or {}), columns)
    own = (row["embedding"] for row in rows if shape and row["reference_digest"] == shape.digest)
    return Total(
        start=min((row["start"] for row in rows), default=None),
        end=max((row["end"] for row in rows), default=None),
        windows=len(rows),
        n=sum(row["n"] for row in rows),
        errors=sum(row["errors"] for row in rows),
        confidence=added_up((row["confidence"] for row in rows), counting.CONFIDENCE_BINS),
        latency=added_up((row["latency"] for row in rows), counting.LATENCY_BINS),
        detections=added_up((row["detections"] for row in rows), counting.DETECTION_BINS),
        embedding=added_up(own, shape.rows, shape.bins) if shape else None,
    )


def _within(
    version: ModelVersion,
    since: datetime,
    until: datetime,
    purpose: str,
    segment: Mapping[str, str],
    columns: Sequence[str],
) -> list[dict[str, Any]]:
    """The rows of `total`: windows of the last week, before that roll-ups by the hour."""
    purposes = [purpose, LATE, IMPORT] if purpose == Purpose.LIVE else [purpose]
    mine = Q(version=version, purpose__in=purposes, segment__contains=segment)
    week = aligned(timezone.now() - READ_FOR, 3600)
    if since >= week:
        return list(Window.objects.filter(mine, start__gte=since, end__lte=until).values(*columns))
    ending = {"end": ExpressionWrapper(F("start") + HOUR, output_field=DateTimeField())}
    hours = Rollup.objects.filter(mine, seconds=3600, start__gte=since, start__lte=min(until, week) - HOUR)
    stored = [name for name in columns if name != "end"]
    return list(hours.values(*stored, **ending)) + list(
        Window.objects.filter(mine, start__gte=week, end__lte=until).values(*columns)
    )


def aligned(at: datetime, seconds: float) -> datetime:
    """The latest multiple of `seconds` since 1970 UTC that is not after `at`."""
    return datetime.fromtimestamp(at.timestamp() // seconds * seconds, UTC)


def fold(now: datetime, seconds: float | None = None) -> int:
    """Fold reports and raw predictions, for about `seconds` or until none is left; returns how many. Safe to repeat.

    Any number of workers may fold at once; each report and prediction is added exactly once.
    """
    until = None if seconds is None else time.monotonic() + seconds
    folded = 0
    for claim in (_fold_reports, _fold_predictions):
        while claimed := claim(now):
            folded += claimed
            if until is not None and time.monotonic() > until:
                break
    return folded


def _fold_reports(now: datetime) -> int:
    with transaction.atomic():
        unfolded = Report.objects.filter(folded_at__isnull=True).order_by("received_at")
        rows = list(unfolded.select_for_update(skip_locked=True)[:REPORTS_PER_TRANSACTION])
        if rows:
            _merge(admitted(_tally_reports(rows), now), now)
            # the counts are in the windows now: 10,000 servers would leave 44 GB of bodies in two hours
            Report.objects.filter(pk__in=[row.pk for row in rows]).update(folded_at=now, body=b"")
        return len(rows)


def _tally_reports(rows: Iterable[Report]) -> dict[Key, Tally]:
    """What reports hold, by window. One that cannot be read, or whose version is gone, is logged."""
    ids: dict[tuple[str, str], int] = {}
    tallies: dict[Key, Tally] = {}
    for row in rows:  # one at a time: 90 segments take 6 MiB when they are unpacked
        try:
            report = wire.decode_report(bytes(row.body))
        except ValueError:
            log.exception("report %s cannot be read and is left out", row)
            continue
        name = (report.model, report.version)
        if name not in ids:
            ids |= version_ids([name])
        if name not in ids:
            log.error("report %s is left out: no version %s %s", row, report.model, report.version)
            continue
        start, end = corrected_interval(report, None if row.imported else row.received_at)
        for window in report.windows:
            purpose = _purpose(row, window)
            place = wire.segment_key(window.segment)
            key = Key(ids[name], purpose, place, report.reference_digest, report.fleet, start, end)
            tally = tallies.setdefault(key, Tally(wire.WindowCounts(segment=window.segment)))
            tally.add(window, [row.reporter])
    return tallies


def _purpose(row: Report, window: wire.WindowCounts) -> str:
    if window.purpose != Purpose.LIVE:
        return window.purpose
    if row.imported:
        return IMPORT
    return LATE if row.late else window.purpose


def version_ids(names: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Primary keys by (model name, version name), in one query; unknown names are absent."""
    wanted = set(names)
    found = ModelVersion.objects.filter(
        model__name__in={model for model, _ in wanted}, name__in={version for _, version in wanted}
    ).values_list("model__name", "name", "pk")
    return {(model, name): pk for model, name, pk in found if (model, name) in wanted}


def corrected_interval(report: wire.Report, received_at: datetime | None) -> tuple[datetime, datetime]:
    """The report's interval by this server's clock; as it stands without `received_at`, of an imported history.

    A skew (received − sent) beyond 1 s moves it by the nearest number of whole intervals, so that it stays
    aligned with everybody else's; a skew of less than half an interval therefore moves nothing.
    """
    skew = 0.0 if received_at is None else received_at.timestamp() - report.sent_at
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
            _merge(admitted(_tally_predictions(rows), now), now)
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
    """Add to windows and totals, tell who reported, mark what is to be rolled up; inside the caller's transaction."""
    added = _added(tallies)
    _tell(tallies)
    merge(tallies, now)
    _mark(tallies)
    totals.add(added, now)


def _added(tallies: Mapping[Key, Tally]) -> dict[totals.Place, totals.Added]:
    """What live traffic adds to the totals."""
    added: dict[totals.Place, totals.Added] = defaultdict(totals.Added)
    for key, tally in tallies.items():
        if key.purpose in (Purpose.LIVE, LATE):
            added[totals.Place(key.version_id, key.fleet)].add(tally.counts)
    return added


def _tell(tallies: Mapping[Key, Tally]) -> None:
    """Who reported live counts: in rows of this transaction alone, so that nobody waits and nothing is written anew."""
    told: dict[tuple[int, str, datetime, datetime], set[UUID]] = defaultdict(set)
    for key, tally in tallies.items():
        if key.purpose == Purpose.LIVE:
            told[key.version_id, key.fleet, key.start, key.end] |= tally.reporters
    Reporting.objects.bulk_create(
        Reporting(version_id=pk, fleet=fleet, start=start, end=end, reporters=sorted(reporters))
        for (pk, fleet, start, end), reporters in told.items()
    )


def _mark(keys: Iterable[Key]) -> None:
    """Say that the minutes and hours in which windows begin have changed. The marks stay locked until the commit."""
    marks = {
        (key.version_id, seconds, aligned(key.start, seconds))
        for key in keys
        for seconds in ROLLED
        if (key.end - key.start).total_seconds() <= seconds
    }
    Unrolled.objects.bulk_create(
        [Unrolled(version_id=pk, seconds=seconds, start=start) for pk, seconds, start in sorted(marks)],
        update_conflicts=True,
        unique_fields=["version", "seconds", "start"],
        update_fields=["touched"],
    )
