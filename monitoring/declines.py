"""Has a version moved away from its approved level, slowly? Once a day, on its last months."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import Q

from controlplane import alerts
from controlplane.models import Alert, ModelVersion, Severity
from monitoring import calibrations, rollups, series
from monitoring.calibrations import moment
from monitoring.models import Calibration, DetectorState, Finding
from monitoring.statistics import scores
from monitoring.statistics.calibration import Calibration as Limits
from monitoring.statistics.calibration import Series
from monitoring.statistics.slow_decline import SLOPE_DAYS, WINDOW_DAYS, Slow, daily, slow

Status = DetectorState.Status

READ_DAYS = 28  # of hourly rows at a time
ADVICE = (
    "label a measure sample to see whether accuracy fell; if what the fleet does now is right, approve the proposed"
    " calibration, else retrain"
)
SEASON = "less than a year of history: a yearly season looks like this, too"


def evaluate(now: datetime) -> int:
    """Look at every closed UTC day of every calibrated version and family once; returns how many were looked at."""
    until = rollups.closed(now, rollups.DAY)
    return sum(_evaluate(row, until, now) for row, _ in calibrations.due(calibrations.slow, until))


def _evaluate(calibration: Calibration, until: datetime, now: datetime) -> bool:
    version, family = calibration.version, calibrations.family_of(calibration)
    name = calibrations.slow(family)
    with transaction.atomic():
        DetectorState.objects.get_or_create(version=version, detector=name)
        new = Q(evaluated_until__isnull=True) | Q(evaluated_until__lt=until)
        if not DetectorState.objects.filter(new, version=version, detector=name).update(
            evaluated_until=until
        ):
            return False
        row = DetectorState.objects.get(version=version, detector=name)
        row.version = version
        limits = calibrations.limits_of(calibration)
        found = slow(limits, _days(version, family, limits, until, WINDOW_DAYS))
        if found.alarmed:  # now the whole course is wanted
            found = slow(limits, _days(version, family, limits, until, SLOPE_DAYS))
        _save(row, calibration, limits, found, now)
    return True


def _days(version: ModelVersion, family: scores.Family, limits: Limits, until: datetime, days: int) -> Series:
    """The last `days` by day, read in parts: a day of hours is many rows when there are many segments."""
    parts = []
    for back in range(days, 0, -READ_DAYS):
        start = until - timedelta(days=back)
        end = min(start + timedelta(days=READ_DAYS), until)
        parts.append(daily(limits, series.scores(version, family, start, end)))
    return Series(
        np.concatenate([part.hours for part in parts]),
        np.concatenate([part.n for part in parts]),
        np.concatenate([part.values for part in parts]),
    )


def _save(row: DetectorState, calibration: Calibration, limits: Limits, found: Slow, now: datetime) -> None:
    before = row.status
    if found.known:
        row.status = Status.DRIFTED if found.alarmed else Status.STABLE
        row.result = _result(calibration, limits, found)
        row.reason = _reason(calibration.family, row.result, found)
    else:
        row.reason = f"has fewer than half of {WINDOW_DAYS} days to compare with its approved level"
        if before == Status.DRIFTED and limits.baseline.since >= row.state["since_hour"]:
            row.status = (
                Status.TOO_FEW
            )  # a person has approved what it alarmed at; else an alarm that was on stays on
    if found.since is not None:
        row.state = {"since_hour": 24 * found.since}
    row.save(update_fields=["status", "reason", "result", "state"])
    if row.status != before:
        _record(row, _alert(row, calibration, before, now), now)


def _alert(row: DetectorState, calibration: Calibration, before: str, now: datetime) -> Alert | None:
    """Opened when it begins to decline, resolved when that is over."""
    version, name = row.version, cause(row.version, calibration.family)
    if row.status == Status.DRIFTED:
        return alerts.open(
            name,
            severity=Severity.WARNING,
            summary=f"{version} {row.reason}; {ADVICE}.",
            now=now,
            detail={key: value for key, value in row.result.items() if key not in ("days", "shape")},
            model=version.model,
            version=version,
        )
    if before == Status.DRIFTED:
        return alerts.resolve(name, resolution=f"{version} {row.reason}", now=now)
    return None


def _result(calibration: Calibration, limits: Limits, found: Slow) -> dict[str, Any]:
    names = scores.names(calibrations.family_of(calibration), len(limits.scale))
    day = timedelta(days=1)
    epoch = datetime.fromtimestamp(0, UTC)
    return {
        "largest": found.largest,
        "mean_square": found.mean_square,
        "limits": {"largest": found.limits[0], "mean_square": found.limits[1]},
        "score": names[found.coordinate],
        "deviation": found.deviation,
        "since": None if found.since is None else moment(24 * found.since).date().isoformat(),
        "slope_per_30_days": found.slope_per_30_days,
        "slope_interval": [found.slope_low, found.slope_high],
        "days": [(epoch + day * int(one)).date().isoformat() for one in found.days],
        "shape": found.shape.tolist(),
        "whole_year": found.whole_year,
        "baseline_days": limits.baseline.days,
    }


def _reason(family: str, result: Mapping[str, Any], found: Slow) -> str:
    if not found.alarmed:
        return (
            f"{family} scores of the last {WINDOW_DAYS} days lie at their approved level: furthest is"
            f" {result['score']}, {found.largest:.1f} standard errors off, limit {found.limits[0]:.1f}"
        )
    season = "" if found.whole_year else f"; {SEASON}"
    return (
        f"{family} scores have moved slowly since about {result['since']}: {result['score']} lies"
        f" {found.deviation:+.3f} off its approved level, {found.largest:.1f} standard errors"
        f" (limit {found.limits[0]:.1f}), and goes"
        f" {found.slope_per_30_days:+.3f} in 30 days{season}"
    )


def _record(row: DetectorState, alert: Alert | None, now: datetime) -> None:
    Finding.objects.create(
        version=row.version,
        detector=row.detector,
        at=now,
        status=row.status,
        reason=row.reason,
        result={},
        alert=alert,
    )


def cause(version: ModelVersion, family: str) -> str:
    """The alert's cause; another than that of the hours, since it asks for another act."""
    return f"decline/{family}/{version.model.name}/{version.name}"
