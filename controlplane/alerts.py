"""What is wrong now? One open alert per cause: its row is the outbox of its pages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Q

from controlplane import audit, problems
from controlplane.models import Alert, Channel, Delivery, Fleet, Model, ModelVersion, Severity

LOUDNESS = {severity: rank for rank, severity in enumerate(reversed(Severity.values))}


def open(
    cause: str,
    *,
    severity: str,
    summary: str,
    now: datetime,
    detail: dict[str, Any] | None = None,
    model: Model | None = None,
    version: ModelVersion | None = None,
    fleet: Fleet | None = None,
) -> Alert:
    """Open the alert of `cause`, or count a repeat of the open one, in the caller's transaction if any.

    `cause` is a stable string without values or times. A repeat refreshes summary and detail and pages nobody
    twice; when it is louder than before, the channels that only listen to louder ones are paged now.
    """
    facts = {"summary": summary, "detail": detail or {}, "updated_at": now}
    about = {"model": model, "version": version, "fleet": fleet, "opened_at": now}
    with transaction.atomic():
        alert = _locked(cause)
        if alert is None:
            try:
                with transaction.atomic():
                    alert = Alert.objects.create(cause=cause, severity=severity, **about, **facts)
            except IntegrityError:  # the unique constraint: another process opened it a moment ago
                alert = Alert.objects.select_for_update().get(cause=cause, resolved_at=None)
                _repeat(alert, severity, facts)
        else:
            _repeat(alert, severity, facts)
        listening = Channel.objects.filter(
            Q(severities=[]) | Q(severities__contains=[alert.severity]), enabled=True
        )
        _page(alert, Delivery.Event.TRIGGER, [channel.pk for channel in listening], now)
    return alert


def resolve(cause: str, *, resolution: str, now: datetime) -> Alert | None:
    """Resolve the open alert of `cause` and tell every channel that was paged; None when nothing was open."""
    with transaction.atomic():
        alert = _locked(cause)
        if alert is not None:
            _close(alert, resolution, now)
    return alert


def acknowledge(alert: Alert, *, actor: str, now: datetime) -> Alert:
    """Say that somebody is on it; a second acknowledgement changes nothing. A resolved alert is a 409."""
    with transaction.atomic():
        alert = _open_one(alert)
        if alert.acknowledged_at is None:
            alert.acknowledged_at, alert.acknowledged_by, alert.updated_at = now, actor, now
            alert.save(update_fields=["acknowledged_at", "acknowledged_by", "updated_at"])
            _page(alert, Delivery.Event.ACKNOWLEDGE, _paged(alert), now)
            audit.record(actor, "alert.acknowledge", alert.cause)
    return alert


def snooze(alert: Alert, *, until: datetime, actor: str, now: datetime) -> Alert:
    """Keep quiet until `until` (aware, later than now): unsent pages wait for it. Resolved: 409."""
    if until <= now:
        raise problems.field("/until", "in_the_past", "until must be later than now")
    with transaction.atomic():
        alert = _open_one(alert)
        alert.snoozed_until, alert.updated_at = until, now
        alert.save(update_fields=["snoozed_until", "updated_at"])
        alert.deliveries.filter(state=Delivery.State.PENDING).update(next_attempt_at=until)
        audit.record(actor, "alert.snooze", alert.cause, detail={"until": until.isoformat()})
    return alert


def resolve_by_hand(alert: Alert, *, actor: str, reason: str, now: datetime) -> Alert:
    """Resolve an alert because a person says so; `reason` is kept. A resolved alert is a 409."""
    with transaction.atomic():
        alert = _open_one(alert)
        _close(alert, f"{actor}: {reason}" if reason else actor, now)
        audit.record(actor, "alert.resolve", alert.cause, reason)
    return alert


def _locked(cause: str) -> Alert | None:
    return Alert.objects.select_for_update().filter(cause=cause, resolved_at=None).first()


def _repeat(alert: Alert, severity: str, facts: dict[str, Any]) -> None:
    louder = severity if LOUDNESS[severity] > LOUDNESS[alert.severity] else alert.severity
    Alert.objects.filter(pk=alert.pk).update(count=F("count") + 1, severity=louder, **facts)
    alert.refresh_from_db()


def _open_one(alert: Alert) -> Alert:
    locked = Alert.objects.select_for_update().get(pk=alert.pk)
    if locked.resolved_at is not None:
        raise problems.Problem(409, "already_resolved", f"alert {alert.pk} is resolved")
    return locked


def _close(alert: Alert, resolution: str, now: datetime) -> None:
    alert.resolved_at, alert.resolution, alert.updated_at = now, resolution, now
    alert.save(update_fields=["resolved_at", "resolution", "updated_at"])
    if alert.snoozed_until is not None:  # pages that wait for the end of the snooze need not wait any longer
        waiting = alert.deliveries.filter(state=Delivery.State.PENDING, next_attempt_at=alert.snoozed_until)
        waiting.update(next_attempt_at=now)
    _page(alert, Delivery.Event.RESOLVE, _paged(alert), now)


def _paged(alert: Alert) -> list[int]:
    return list(
        alert.deliveries.filter(event=Delivery.Event.TRIGGER)
        .order_by("pk")
        .values_list("channel_id", flat=True)
    )


def _page(alert: Alert, event: Delivery.Event, channels: list[int], now: datetime) -> None:
    """Put one pending delivery per channel into the outbox; those there already stay as they are."""
    due = alert.snoozed_until if alert.snoozed_until and event == Delivery.Event.TRIGGER else now
    Delivery.objects.bulk_create(
        [
            Delivery(
                alert=alert, channel_id=channel, event=event, next_attempt_at=max(due, now), created_at=now
            )
            for channel in channels
        ],
        ignore_conflicts=True,
    )
