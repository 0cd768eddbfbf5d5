"""What is normal for a version? Learnt from its own hours, anew every week, and stored with its date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
from django.conf import settings
from django.db import transaction
from django.db.models import Exists, F, OuterRef
from numpy.typing import NDArray

from controlplane import audit, problems
from controlplane.models import Alert, ModelVersion
from monitoring import references, rollups, series
from monitoring.models import Calibration, DetectorState, Episode, Rollup
from monitoring.statistics import scores
from monitoring.statistics.calibration import STATISTICS, Learning, Series
from monitoring.statistics.calibration import Calibration as Limits
from monitoring.statistics.calibration import calibrate as learn
from monitoring.statistics.recalibration import HISTORY_HOURS, renew

State = Calibration.State

FAMILIES: tuple[scores.Family, ...] = ("embedding", "confidence", "detections")
EMBEDDING = "embedding"

DUE = timedelta(days=7)
LEARNING_DUE = timedelta(hours=6)
PROPOSED_DUE = timedelta(days=1)
LONGEST_INCIDENT = timedelta(days=7)
HEARD = timedelta(days=2)  # versions without an hour since then are left as they are


def calibrate(now: datetime) -> int:
    """Calibrate every version and family that is due: weekly, while learning every six hours. Returns how many."""
    until = rollups.closed(now, rollups.HOUR)
    hours = Rollup.objects.filter(
        version=OuterRef("pk"), seconds=rollups.HOUR, purpose__in=series.PURPOSES, start__gte=until - HEARD
    )
    versions = ModelVersion.objects.filter(Exists(hours)).select_related("model")
    return sum(
        _calibrate(version, family, until, now) for version in versions for family in _due(version, now)
    )


def _due(version: ModelVersion, now: datetime) -> list[scores.Family]:
    digest = _digest(version)
    rows: dict[str, list[Calibration]] = {family: [] for family in FAMILIES}
    for row in Calibration.objects.filter(version=version, segment_key="").defer("data"):
        rows[row.family].append(row)
    return [family for family in FAMILIES if _is_due(version, family, rows[family], digest, now)]


def _is_due(
    version: ModelVersion, family: scores.Family, rows: list[Calibration], digest: str, now: datetime
) -> bool:
    """Weekly; while learning every six hours, and while an alarm is on every day, so that there is a proposal."""
    newest = max(rows, key=lambda row: row.made_at, default=None)
    if newest is None or (family == EMBEDDING and newest.reference_digest != digest):
        return True
    wait = LEARNING_DUE if newest.state == State.LEARNING else DUE
    if newest.made_at > now - wait and newest.made_at <= now - PROPOSED_DUE:
        return changed_since(version, family) is not None
    return newest.made_at <= now - wait


def _digest(version: ModelVersion) -> str:
    """The reference that embeddings are scored with."""
    shape = references.shape_of(version)
    return shape.digest if shape else ""


def _calibrate(version: ModelVersion, family: scores.Family, until: datetime, now: datetime) -> bool:
    """Read, and then decide under a lock on the version's calibrations: two workers make one."""
    history = series.scores(version, family, until - timedelta(hours=HISTORY_HOURS), until)
    if not len(history.usable().hours):
        return False
    digest = _digest(version) if family == EMBEDDING else ""
    with transaction.atomic():
        Calibration.objects.get_or_create(
            version=version,
            family=family,
            segment_key="",
            number=1,
            defaults={
                "state": State.LEARNING,
                "made_at": datetime.fromtimestamp(0, UTC),
                "reference_digest": digest,
            },
        )
        rows = list(
            Calibration.objects.select_for_update()
            .filter(version=version, family=family, segment_key="")
            .order_by("number")
        )
        if not _is_due(version, family, rows, digest, now):
            return False
        current = next((row for row in rows if row.state == State.ACTIVE), None)
        if current is None or current.reference_digest != digest:
            _first(rows, history, digest, now)
        else:
            _next(rows, current, history, now)
        return True


def _first(rows: list[Calibration], history: Series, digest: str, now: datetime) -> None:
    """Of a version that has none, or none in the bins of the reference in force."""
    last = rows[-1]
    calm = history.without(_alarmed_hours(last.version, family_of(last)))
    made = learn(calm, budget_days=settings.ALARM_BUDGET_DAYS)
    state = State.LEARNING if isinstance(made, Learning) else State.ACTIVE
    _retire(rows, State.ACTIVE, State.PROPOSED)
    _fill(_next_row(rows, digest), state, made, history, now)


def _next(rows: list[Calibration], current: Calibration, history: Series, now: datetime) -> None:
    """Of a version that has one in force. Too little history since an approved change: it stays in force."""
    version, family = current.version, family_of(current)
    alarmed, since = _alarmed_hours(version, family), changed_since(version, family)
    renewal = renew(limits_of(current), history, alarmed, changed_since=since)
    row = _next_row(rows, current.reference_digest)
    if isinstance(renewal.made, Learning):
        state = State.LEARNING
    elif renewal.needs_approval:
        state = State.PROPOSED
        _retire(rows, State.PROPOSED)
    else:
        state = State.ACTIVE
        _retire(rows, State.ACTIVE, State.PROPOSED)
    _fill(row, state, renewal.made, history, now)


def _retire(rows: list[Calibration], *states: str) -> None:
    Calibration.objects.filter(pk__in=[row.pk for row in rows], state__in=states).update(state=State.RETIRED)


def _next_row(rows: list[Calibration], digest: str) -> Calibration:
    """The row that was learning, or one with the next number."""
    last = rows[-1]
    if last.state == State.LEARNING:
        last.reference_digest = digest
        return last
    return Calibration(
        version=last.version, family=last.family, number=last.number + 1, reference_digest=digest
    )


def _fill(row: Calibration, state: str, made: Limits | Learning, history: Series, now: datetime) -> None:
    known = history.usable()
    row.state, row.made_at, row.hours = state, now, len(known.hours)
    row.history_from, row.history_until = moment(int(known.hours[0])), moment(int(known.hours[-1]) + 1)
    if isinstance(made, Learning):
        row.limits = {"days": made.days, "of": made.of}
    else:
        row.data = made.to_npz()
        row.limits = {
            "days": made.days,
            "baseline_days": made.baseline.days,
            "budget_days": made.budget_days,
            **dict(zip(STATISTICS, made.limits.tolist(), strict=True)),
        }
    row.save()


def moment(hour: int) -> datetime:
    """The beginning of an hour since 1970."""
    return datetime.fromtimestamp(3600 * hour, UTC)


def limits_of(row: Calibration) -> Limits:
    """A stored calibration with its arrays, at the rate of false alarms that is set today."""
    return replace(Limits.from_npz(bytes(row.data)), budget_days=settings.ALARM_BUDGET_DAYS)


def family_of(row: Calibration) -> scores.Family:
    """Its family, by the name that the statistics know."""
    return next(family for family in FAMILIES if family == row.family)


def in_force(version: ModelVersion, family: scores.Family) -> Calibration | None:
    """The version's active calibration, else the one that is learning."""
    found = Calibration.objects.filter(
        version=version, family=family, segment_key="", state__in=(State.ACTIVE, State.LEARNING)
    )
    return found.defer("data").order_by("state", "-number").first()  # "active" comes before "learning"


def hourly(family: str) -> str:
    """The name of the detector that looks at a family's hours."""
    return f"{family}_hourly"


def slow(family: str) -> str:
    """The name of the detector that looks at a family's months."""
    return f"{family}_slow"


def due(detector: Callable[[str], str], until: datetime) -> list[tuple[Calibration, datetime | None]]:
    """Calibrations in force whose `detector` (`hourly` or `slow`) has not looked up to `until`, and up to where it
    has.

    Those of embeddings only while scores are made with the reference that was calibrated: another has other bins.
    """
    rows = Calibration.objects.filter(state=State.ACTIVE, segment_key="").defer("data")
    states = DetectorState.objects.filter(detector__in=[detector(family) for family in FAMILIES])
    seen = {(pk, name): at for pk, name, at in states.values_list("version", "detector", "evaluated_until")}
    found = [
        (row, seen.get((row.version_id, detector(row.family))))
        for row in rows.select_related("version__model")
    ]
    return [
        (row, at)
        for row, at in found
        if (at is None or at < until)
        and (row.family != EMBEDDING or row.reference_digest == _digest(row.version))
    ]


def cause(version: ModelVersion, family: str) -> str:
    """The cause of a family's alert by the hour, and by the sliding window: one drift pages once."""
    return f"drift/{family}/{version.model.name}/{version.name}"


def _alarmed_hours(version: ModelVersion, family: scores.Family) -> NDArray[np.int64]:
    """Hours (since 1970) of episodes, and of incidents that the sliding window alarmed at and that are over.

    What it alarmed at for longer than a week is no incident: then the reference is unlike all live images.
    """
    episodes = Episode.objects.filter(version=version, family=family, segment_key="")
    over = Alert.objects.filter(
        cause=cause(version, family),
        resolved_at__isnull=False,
        resolved_at__lt=F("opened_at") + LONGEST_INCIDENT,
    )
    spans = [*episodes.values_list("began", "last"), *over.values_list("opened_at", "resolved_at")]
    hours = [
        np.arange(int(began.timestamp()) // 3600, int(last.timestamp()) // 3600 + 1)
        for began, last in spans
        if last
    ]
    return np.concatenate([np.empty(0, np.int64), *hours])


def changed_since(version: ModelVersion, family: scores.Family) -> int | None:
    """The hour since 1970 from which on an alarm that is on says that all is different; None without one."""
    began = Episode.objects.filter(version=version, family=family, segment_key="", ended=None).values_list(
        "began", flat=True
    )
    declining = DetectorState.objects.filter(
        version=version, detector=slow(family), status=DetectorState.Status.DRIFTED
    )
    found = [int(at.timestamp()) // 3600 for at in began]
    found += [state.state["since_hour"] for state in declining]
    return min(found, default=None)


def approve(calibration: Calibration, by: str, reason: str, now: datetime) -> Calibration:
    """Put a proposed calibration in force: what the fleet does now is normal. The one before is retired.

    409 for any other than the newest proposal. What is open is judged anew by the next look: alarms end by themselves.
    """
    if not reason.strip():
        raise problems.field("/reason", "missing", "say why the new level is normal")
    with transaction.atomic():
        rows = list(
            Calibration.objects.select_for_update()
            .filter(version=calibration.version, family=calibration.family, segment_key="")
            .order_by("number")
        )
        row = next(found for found in rows if found.pk == calibration.pk)
        if row.state != State.PROPOSED:
            raise problems.Problem(
                409, "not_proposed", f"calibration {row.number} is {row.state}, not proposed"
            )
        _retire(rows, State.ACTIVE)
        row.state, row.approved_by, row.approved_at, row.reason = State.ACTIVE, by, now, reason
        row.save(update_fields=["state", "approved_by", "approved_at", "reason"])
        DetectorState.objects.filter(version=row.version, detector=hourly(row.family)).update(state={})
        audit.record(
            by,
            "calibration.approve",
            str(row.version),
            reason,
            detail={"family": row.family, "number": row.number},
        )
    return row


def find(version: ModelVersion, family: str, number: int) -> Calibration:
    """A version's calibration by its number; 404."""
    row = Calibration.objects.filter(
        version=version, family=family, segment_key="", number=number
    ).select_related("version__model")
    found = row.first()
    if found is None:
        raise problems.field(
            "/number", "unknown_calibration", f"{version} has no {family} calibration {number}", status=404
        )
    return found


def as_json(row: Calibration) -> dict[str, object]:
    """A calibration as the API shows it."""
    return {
        "family": row.family,
        "number": row.number,
        "state": row.state,
        "calibrated_at": row.made_at,
        "history_from": row.history_from,
        "history_until": row.history_until,
        "hours": row.hours,
        "limits": row.limits,
        "approved_by": row.approved_by,
        "approved_at": row.approved_at,
        "reason": row.reason,
    }
