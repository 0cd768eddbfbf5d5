"""Who set which limits from which period, and which points were left out of it? Nothing of it is overwritten."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from davy import wire
from django.db import transaction
from django.db.models import Max

from controlplane import audit, problems
from controlplane.models import ModelVersion
from monitoring import charting
from monitoring.charting import Place
from monitoring.models import ChartExclusion, ControlChart, Rollup

LEAST_POINTS = 5  # of phase I; 20 to 25 are usual


def recalculate(
    place: Place,
    since: datetime,
    until: datetime,
    *,
    by: str,
    reason: str,
    now: datetime,
    seconds: int | None = None,
    changes: Mapping[str, Any] | None = None,
) -> ControlChart:
    """Take the limits from the points in [since, until] without the excluded ones; the old chart stays as history.

    seconds, changes  level and settings; what is not given stays as it was (a first chart: hours, the defaults)
    """
    with transaction.atomic():
        _lock(place.version)
        old = place.charts().filter(retired_at=None).first()
        wanted = seconds or (old.settings["seconds"] if old else charting.HOUR)
        before = charting.own_settings(old) if old else {}
        made = _make(place, since, until, wanted, {**before, **(changes or {})}, by, reason, now)
        detail = {"number": made.number, "from": since.isoformat(), "until": until.isoformat()}
        audit.record(by, "chart.recalculate", str(made), reason, detail)
        return made


def exclude(
    version: ModelVersion,
    measure: str,
    start: datetime,
    *,
    by: str,
    reason: str,
    now: datetime,
    segment: Mapping[str, str] | None = None,
) -> ChartExclusion:
    """Leave the interval that begins at `start` out of a measure's charts; phase I with it is recalculated."""
    charting.check_measure(measure)
    with transaction.atomic():
        _lock(version)
        if not Rollup.objects.filter(version=version, start=start).exists():
            raise problems.field("/start", "no_point", f"{version} has no interval that begins at {start}")
        key = wire.segment_key(segment or {})
        same = ChartExclusion.objects.filter(version=version, measure=measure, segment_key=key, start=start)
        if same.filter(withdrawn_at=None).exists():
            raise problems.field("/start", "already_excluded", "this point is left out already", status=409)
        row = ChartExclusion.objects.create(
            version=version, measure=measure, segment_key=key, start=start, reason=reason, by=by, at=now
        )
        audit.record(by, "chart.exclude", str(row), reason)
        _remake(row, segment or {}, by, f"without {start:%Y-%m-%d %H:%M}: {reason}", now)
        return row


def withdraw(version: ModelVersion, pk: int, *, by: str, reason: str, now: datetime) -> ChartExclusion:
    """Take a point back in; charts with it in phase I are recalculated. Once withdrawn it stays so: 409."""
    with transaction.atomic():
        _lock(version)
        row = ChartExclusion.objects.filter(version=version, pk=pk).first()
        if row is None:
            raise problems.field("/exclusion", "unknown_exclusion", f"no exclusion {pk}", status=404)
        if row.withdrawn_at is not None:
            raise problems.field("/exclusion", "withdrawn", "it was withdrawn before", status=409)
        row.withdrawn_at = now
        row.save(update_fields=["withdrawn_at"])
        audit.record(by, "chart.include", str(row), reason)
        _remake(row, charting.segment_of(row.segment_key), by, f"with {row.start:%Y-%m-%d %H:%M} again", now)
        return row


def _lock(version: ModelVersion) -> None:
    """One writer a version; telemetry, which only refers to it, goes on."""
    ModelVersion.objects.select_for_update(no_key=True).get(pk=version.pk)


def _remake(row: ChartExclusion, segment: Mapping[str, str], by: str, reason: str, now: datetime) -> None:
    """New numbers of all charts whose phase I holds the point, each with the same period and settings."""
    found = ControlChart.objects.filter(
        version=row.version,
        measure=row.measure,
        segment_key=row.segment_key,
        retired_at=None,
        phase1_from__lte=row.start,
        phase1_until__gt=row.start,
    )
    for chart in found:
        place = Place(row.version, chart.kind, chart.measure, segment)
        own, seconds = charting.own_settings(chart), chart.settings["seconds"]
        _make(place, chart.phase1_from, chart.phase1_until, seconds, own, by, reason, now)


def _make(
    place: Place,
    since: datetime,
    until: datetime,
    seconds: int,
    given: Mapping[str, Any],
    by: str,
    reason: str,
    now: datetime,
) -> ControlChart:
    """The next number of a chart, in force at once; inside the caller's transaction, under its lock."""
    settings = charting.settings_of(given)
    period = charting.period_of(place, settings, seconds, since, until, now)
    amount, n = charting.read(place, period)
    excluded = charting.exclusions(place, period, settings)
    found = charting.estimate(place, amount, n, settings, excluded)
    if found is None or found.points < LEAST_POINTS:
        seen = found.points if found else 0
        detail = f"{seen} points in that period; {LEAST_POINTS} are the least, 25 are usual"
        raise problems.field("/from", "too_few_points", detail)
    place.charts().filter(retired_at=None).update(retired_at=now)
    latest = place.charts().aggregate(Max("number"))["number__max"] or 0
    return ControlChart.objects.create(
        version=place.version,
        kind=place.kind,
        measure=place.measure,
        segment_key=place.segment_key,
        number=latest + 1,
        phase1_from=period.since,
        phase1_until=period.until,
        settings={
            **asdict(settings),
            "seconds": seconds,
            "estimate": asdict(found),
            "excluded": len(excluded),
        },
        made_by=by,
        reason=reason,
        made_at=now,
    )
