"""Did the hour that just closed go beyond what is normal for this version? An episode, an alert, and its end."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from django.db import transaction
from django.db.models import Q

from controlplane import alerts
from controlplane.models import Alert, ModelVersion, Severity
from monitoring import calibrations, causes, rollups, series
from monitoring.calibrations import moment
from monitoring.detectors import DETECTORS
from monitoring.detectors.base import Status
from monitoring.models import Calibration, DetectorState, Episode, Finding, Unrolled
from monitoring.statistics import scores
from monitoring.statistics.calibration import STATISTICS, Look, Memory, look
from monitoring.statistics.calibration import Calibration as Limits

QUIET_HOURS = 6
LONGEST_BACK = timedelta(days=7)  # what a worker that was away looks at when it is back
SILENT = timedelta(days=2)  # without an hour that says something an episode is over
WORDS = {"largest": "one hour's deviation", "t2": "T² of all scores", "ewma": "the average of hours"}
ADVICE = "compare the images of these hours with earlier ones, and label a measure sample to see if accuracy changed"


def evaluate(now: datetime) -> int:
    """Look at every closed hour of every calibrated version and family once; returns at how many families."""
    until = rollups.closed(now, rollups.HOUR)
    return sum(_evaluate(row, seen, until, now) for row, seen in calibrations.due(calibrations.hourly, until))


def _evaluate(calibration: Calibration, seen: datetime | None, closed: datetime, now: datetime) -> bool:
    """Claim, look, save, alert: one transaction, so an hour is looked at once or not at all."""
    version, family = calibration.version, calibrations.family_of(calibration)
    name = calibrations.hourly(family)
    until = _rolled(version, seen, closed)
    if seen is not None and seen >= until:
        return False
    with transaction.atomic():
        DetectorState.objects.get_or_create(version=version, detector=name)
        claim = Q(evaluated_until__isnull=True) if seen is None else Q(evaluated_until=seen)
        if not DetectorState.objects.filter(claim, version=version, detector=name).update(
            evaluated_until=until
        ):
            return False
        row = DetectorState.objects.get(version=version, detector=name)
        row.version = version
        since = max(until - LONGEST_BACK, seen or until - timedelta(hours=1))
        limits = calibrations.limits_of(calibration)
        found = look(limits, series.scores(version, family, since, until), _memory(row, limits))
        episode = _follow(row, _Seen(calibration, limits, found), until, now)
    if episode is not None and not episode.attribution:
        _explain(episode, family, until)
    return True


def _explain(episode: Episode, family: scores.Family, until: datetime) -> None:
    """Say once, in the episode and its alert, where it comes from. Reads weeks of cells: outside of a transaction."""
    found = causes.explain(episode.version, family, episode.began, until)
    Episode.objects.filter(pk=episode.pk).update(attribution=asdict(found))
    with transaction.atomic():
        alert = Alert.objects.select_for_update().filter(pk=episode.alert_id or 0, resolved_at=None).first()
        if alert is not None:
            alert.summary = f"{alert.summary} {found.sentence[:1].upper()}{found.sentence[1:]}."
            alert.detail = {**alert.detail, "attribution": asdict(found)}
            alert.save(update_fields=["summary", "detail"])


def _rolled(version: ModelVersion, seen: datetime | None, closed: datetime) -> datetime:
    """Up to where the hours have been added up; a late report for an hour that was looked at holds nothing up."""
    marks = Unrolled.objects.filter(version=version, seconds=rollups.HOUR, start__lt=closed)
    if seen is not None:
        marks = marks.filter(start__gte=seen)
    first = marks.order_by("start").values_list("start", flat=True).first()
    return closed if first is None else first


def _memory(row: DetectorState, limits: Limits) -> Memory | None:
    kept = row.state.get("memory")
    if kept is None or len(kept["ewma"]) != len(limits.scale):  # another reference has other components
        return None
    return Memory(kept["hour"], np.array(kept["ewma"]))


@dataclass(frozen=True)
class _Seen:
    calibration: Calibration
    limits: Limits
    look: Look

    def hours(self) -> list[int]:
        """Places in the look of the hours that say something."""
        return np.flatnonzero(self.look.coordinate >= 0).tolist()

    def result(self, place: int) -> dict[str, Any]:
        """One hour's numbers, as JSON; its statistic, value and limit are those of the least probable one."""
        which = int(self.look.which[place])
        coordinate = int(self.look.coordinate[place])
        names = scores.names(calibrations.family_of(self.calibration), len(self.limits.scale))
        return {
            "hour": moment(int(self.look.hours[place])).isoformat(),
            "statistic": STATISTICS[which],
            "value": float(self.look.statistics[place, which]),
            "limit": float(self.look.limits[which]),
            "p": float(self.look.p[place]),
            "score": names[coordinate],
            "deviation": float(self.look.deviation[place]),
            "usual": float(self.limits.scale[coordinate]),
            "statistics": dict(zip(STATISTICS, self.look.statistics[place].tolist(), strict=True)),
            "limits": dict(zip(STATISTICS, self.look.limits.tolist(), strict=True)),
            "calibrated_on_days": self.limits.days,
            "calibrated_at": self.calibration.made_at.isoformat(),
            "budget_days": self.limits.budget_days,
        }

    def reason(self, result: dict[str, Any], drifted: bool) -> str:
        """A sentence to follow the version's name."""
        verb = "leave" if drifted else "stay within"
        return (
            f"{self.calibration.family} scores {verb} what is normal by the hour: {WORDS[result['statistic']]} is"
            f" {result['value']:.1f}, limit {result['limit']:.1f}; furthest is {result['score']},"
            f" {result['deviation']:+.3f} off where ±{result['usual']:.3f} is usual; calibrated on"
            f" {result['calibrated_on_days']} days, chance alarms once in {result['budget_days']:g} days"
        )


def _follow(row: DetectorState, seen: _Seen, until: datetime, now: datetime) -> Episode | None:
    """Open, prolong and end the episode hour by hour; save what the last hour says; the episode that is still open."""
    version, family = row.version, seen.calibration.family
    episode = Episode.objects.filter(version=version, family=family, segment_key="", ended=None).first()
    places = seen.hours()
    for place in places:
        at = moment(int(seen.look.hours[place]))
        if seen.look.fired[place]:
            episode = _fired(row, seen, episode, place, at, now)
        elif episode is not None and at - episode.last > timedelta(hours=QUIET_HOURS):
            _end(row, seen, episode, at, f"has been quiet for more than {QUIET_HOURS} hours", now)
            episode = None
    if episode is not None and not places and until - episode.last > SILENT:
        _end(row, seen, episode, until, "has had too few images an hour for two days", now)
        episode = None
    if places:
        row.result = seen.result(places[-1])
        row.status = Status.STABLE if episode is None else Status.DRIFTED
        row.reason = seen.reason(row.result, episode is not None)
    memory = seen.look.memory
    row.state = {"memory": None if memory is None else {"hour": memory.hour, "ewma": memory.ewma.tolist()}}
    row.save(update_fields=["status", "reason", "result", "state"])
    return episode


def _fired(
    row: DetectorState, seen: _Seen, episode: Episode | None, place: int, at: datetime, now: datetime
) -> Episode:
    """The first hour of an episode opens it and the alert; a later one within the quiet hours prolongs it."""
    result = seen.result(place)
    if episode is not None:
        if at - episode.last <= timedelta(hours=QUIET_HOURS + 1):
            episode.last = at
            episode.save(update_fields=["last"])
            return episode
        _end(row, seen, episode, at, f"was quiet for more than {QUIET_HOURS} hours", now)
    version = row.version
    row.status, row.result, row.reason = Status.DRIFTED, result, seen.reason(result, True)
    alert = alerts.open(
        calibrations.cause(version, seen.calibration.family),
        severity=Severity.WARNING,
        summary=f"{version} {row.reason}; since {at:%Y-%m-%d %H:%M} UTC; {ADVICE}.",
        now=now,
        detail=result,
        model=version.model,
        version=version,
    )
    _record(row, alert, now)
    return Episode.objects.create(
        version=version,
        family=seen.calibration.family,
        began=at,
        last=at,
        statistic=result["statistic"],
        value=result["value"],
        limit=result["limit"],
        alert=alert,
    )


def _end(row: DetectorState, seen: _Seen, episode: Episode, at: datetime, why: str, now: datetime) -> None:
    episode.ended = at
    episode.save(update_fields=["ended"])
    version, family = row.version, seen.calibration.family
    row.status, row.reason = Status.STABLE, why
    alert = None
    if not _drifted_now(version, family):
        alert = alerts.resolve(calibrations.cause(version, family), resolution=f"{version} {why}", now=now)
    _record(row, alert, now)


def _drifted_now(version: ModelVersion, family: str) -> bool:
    """Whether the detector of the sliding window, whose alert is the same, still says drifted."""
    names = [name for name, detector in DETECTORS.items() if detector.subject == family]
    return DetectorState.objects.filter(
        version=version, detector__in=names, state__decided=Status.DRIFTED
    ).exists()


def _record(row: DetectorState, alert: Alert | None, now: datetime) -> None:
    Finding.objects.create(
        version=row.version,
        detector=row.detector,
        at=now,
        status=row.status,
        reason=row.reason,
        result=row.result,
        alert=alert,
    )
