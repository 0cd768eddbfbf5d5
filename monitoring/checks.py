"""Which versions are due for a look, and what changed since the last one? Run the detectors; alert on change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from controlplane import alerts
from controlplane.models import Alert, ModelVersion, Route, Severity
from monitoring import references, windows
from monitoring.detectors import DETECTORS
from monitoring.detectors.base import Answer, Detector, Live, Status
from monitoring.models import DetectorState, Episode, Finding, Window

GRACE = timedelta(seconds=3)  # the reports of a closed interval take a moment to arrive and be folded


def run(now: datetime) -> int:
    """Evaluate every detector on every version that is due; returns how many answers were given.

    Once per closed interval of DRIFT_CHECK_SECONDS, on the windows of the last DRIFT_WINDOW_SECONDS before its end.
    Workers share the versions: each interval of a version is claimed by one of them.
    """
    until = windows.aligned(now - GRACE, settings.DRIFT_CHECK_SECONDS)
    since = until - timedelta(seconds=settings.DRIFT_WINDOW_SECONDS)
    routed = _routed()
    watched = ModelVersion.objects.filter(
        Q(pk__in=routed)
        | Q(pk__in=Window.objects.filter(start__gte=since).values("version"))
        | Q(pk__in=DetectorState.objects.filter(state__decided=Status.DRIFTED).values("version"))
    )
    due = _due(watched.select_related("model"), until)
    return sum(_check(version, names, since, until, version.pk in routed, now) for version, names in due)


def _routed() -> set[int]:
    """Versions that a route serves as stable or canary."""
    pairs = Route.objects.values_list("stable", "canary")
    return {pk for pair in pairs for pk in pair if pk is not None}


def _due(versions: Iterable[ModelVersion], until: datetime) -> list[tuple[ModelVersion, list[str]]]:
    """Versions with their detectors that have not looked at the interval that ends at `until`."""
    by_pk = {version.pk: version for version in versions}
    seen = DetectorState.objects.filter(version__in=by_pk).values_list(
        "version", "detector", "evaluated_until"
    )
    last = {(pk, name): evaluated for pk, name, evaluated in seen}
    missing = [(pk, name) for pk in by_pk for name in DETECTORS if (pk, name) not in last]
    DetectorState.objects.bulk_create(
        [DetectorState(version_id=pk, detector=name) for pk, name in missing], ignore_conflicts=True
    )
    due: dict[int, list[str]] = defaultdict(list)
    for pk in by_pk:
        for name in DETECTORS:
            evaluated = last.get((pk, name))
            if evaluated is None or evaluated < until:
                due[pk].append(name)
    return [(by_pk[pk], names) for pk, names in due.items()]


def _check(
    version: ModelVersion, names: list[str], since: datetime, until: datetime, routed: bool, now: datetime
) -> int:
    """Claim, look, save, alert: one transaction, so an interval is looked at once or not at all."""
    with transaction.atomic():
        claimed = [name for name in sorted(names) if _claim(version, name, until)]
        if not claimed:
            return 0
        total = windows.total(version, since, until)
        live = Live(total.start, total.end, total.n, total.confidence, total.embedding)
        reference = references.load(version)
        for row in DetectorState.objects.filter(version=version, detector__in=claimed):
            row.version = version
            detector = DETECTORS[row.detector]
            if routed or live.n or row.state.get("decided") != Status.DRIFTED:
                _save(row, detector, detector.evaluate(live, reference, row.state), now)
            else:
                _give_up(row, detector, now)
        return len(claimed)


def _claim(version: ModelVersion, name: str, until: datetime) -> bool:
    """Whether this worker is the one to look at the interval. The row stays locked until the commit."""
    before = Q(evaluated_until__isnull=True) | Q(evaluated_until__lt=until)
    states = DetectorState.objects.filter(before, version=version, detector=name)
    return states.update(evaluated_until=until) == 1


def _save(row: DetectorState, detector: Detector, answer: Answer, now: datetime) -> None:
    """Store the answer. One that decides something else than the last that decided is a Finding and an alert."""
    before = row.state.get("decided")
    decided = before if answer.status is Status.TOO_FEW else answer.status.value
    row.status, row.reason, row.result = answer.status.value, answer.reason, answer.result
    row.state = {**answer.state, "decided": decided}
    row.save(update_fields=["status", "reason", "result", "state"])
    if decided == before:
        return
    if decided == Status.DRIFTED:
        alert: Alert | None = alerts.open(
            _cause(row, detector),
            severity=Severity.WARNING,
            summary=_summary(row, detector, answer),
            now=now,
            detail=answer.result,
            model=row.version.model,
            version=row.version,
        )
    elif Episode.objects.filter(
        version=row.version, family=detector.subject, segment_key="", ended=None
    ).exists():
        alert = None  # of the same cause, and the hours still say so
    else:
        alert = alerts.resolve(_cause(row, detector), resolution=f"{row.version} {answer.reason}", now=now)
    _record(row, alert, now)


def _give_up(row: DetectorState, detector: Detector, now: datetime) -> None:
    """A version that drifted and then left every route has nobody left to warn about."""
    row.status, row.reason, row.state = Status.TOO_FEW.value, "serves no traffic any more", {}
    row.save(update_fields=["status", "reason", "state"])
    alert = alerts.resolve(_cause(row, detector), resolution=f"{row.version} {row.reason}", now=now)
    _record(row, alert, now)


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


def _cause(row: DetectorState, detector: Detector) -> str:
    return f"drift/{detector.subject}/{row.version.model.name}/{row.version.name}"


def _summary(row: DetectorState, detector: Detector, answer: Answer) -> str:
    """One sentence: what, to which version, since when, the numbers with their n, what to do next."""
    since = datetime.fromisoformat(answer.state["since"]).astimezone(UTC)
    return f"{row.version} {answer.reason}, since {since:%Y-%m-%d %H:%M:%S} UTC; {detector.advice}."
