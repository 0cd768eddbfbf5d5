"""JSON for alerts, the channels that deliver them, and their delivery log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import AwareDatetime, Field, Strict

from controlplane import alerts, channels, http, problems
from controlplane.models import Alert, Channel, Delivery, Severity

router = Router()


class Snooze(http.Body):
    """POST /alerts/{id}/snooze."""

    until: Annotated[AwareDatetime, Strict(False)]


class Reason(http.Body):
    """Why somebody does it, for the audit."""

    reason: str = ""


class NewChannel(http.Body):
    """POST /channels."""

    name: str
    kind: str
    config: dict[str, Any] = {}
    secret: str = Field(default="", max_length=1000)
    severities: list[str] = []


class ChannelChanges(http.Body):
    """PATCH /channels/{id}: what is left out stays."""

    config: dict[str, Any] = {}
    secret: str = Field(default="", max_length=1000)
    severities: list[str] = []
    enabled: bool = True


def alert_json(alert: Alert) -> dict[str, Any]:
    """An alert as REST shows it."""
    return {
        "id": alert.pk,
        "cause": alert.cause,
        "severity": alert.severity,
        "summary": alert.summary,
        "detail": alert.detail,
        "model": alert.model.name if alert.model else None,
        "version": alert.version.name if alert.version else None,
        "fleet": alert.fleet.name if alert.fleet else None,
        "state": "resolved" if alert.resolved_at else "open",
        "count": alert.count,
        "opened_at": alert.opened_at,
        "updated_at": alert.updated_at,
        "acknowledged_at": alert.acknowledged_at,
        "acknowledged_by": alert.acknowledged_by,
        "snoozed_until": alert.snoozed_until,
        "resolved_at": alert.resolved_at,
        "resolution": alert.resolution,
    }


def channel_json(channel: Channel) -> dict[str, Any]:
    """A channel as REST shows it; of its secret only whether there is one."""
    return {
        "id": channel.pk,
        "name": channel.name,
        "kind": channel.kind,
        "config": channel.config,
        "has_secret": bool(channels.secret_of(channel)),
        "severities": channel.severities,
        "enabled": channel.enabled,
        "disabled_reason": channel.disabled_reason,
        "created_at": channel.created_at,
    }


def delivery_json(delivery: Delivery) -> dict[str, Any]:
    """One line of a delivery log."""
    return {
        "id": delivery.pk,
        "message_id": str(delivery.message_id),
        "alert": delivery.alert_id,
        "channel": delivery.channel_id,
        "event": delivery.event,
        "state": delivery.state,
        "attempts": delivery.attempts,
        "next_attempt_at": delivery.next_attempt_at if delivery.state == Delivery.State.PENDING else None,
        "sent_at": delivery.sent_at,
        "answer": delivery.answer,
        "created_at": delivery.created_at,
    }


def _one(alert_id: int) -> Alert:
    alert = Alert.objects.select_related("model", "version", "fleet").filter(pk=alert_id).first()
    if alert is None:
        raise problems.field("/alert", "unknown_alert", f"no alert {alert_id}", status=404)
    return alert


def _in_state(state: str, now: datetime) -> Q:
    """Alerts by state: `open` is all that is not resolved, also when acknowledged or snoozed."""
    states = {
        "open": Q(resolved_at=None),
        "acknowledged": Q(resolved_at=None, acknowledged_at__isnull=False),
        "snoozed": Q(resolved_at=None, snoozed_until__gt=now),
        "resolved": Q(resolved_at__isnull=False),
    }
    if state not in states:
        raise problems.field("/state", "unknown_state", f"no state {state!r}; there are {', '.join(states)}")
    return states[state]


@router.get("/alerts", auth=http.scope("read"))
def list_alerts(
    request: HttpRequest,
    state: str | None = None,
    severity: str | None = None,
    model: str | None = None,
    cause: str | None = None,
) -> HttpResponse:
    """Alerts, newest first; any of ?state=open|acknowledged|snoozed|resolved, ?severity=, ?model=, ?cause=."""
    rows: QuerySet[Alert] = Alert.objects.select_related("model", "version", "fleet")
    if state is not None:
        rows = rows.filter(_in_state(state, timezone.now()))
    if severity is not None:
        if severity not in Severity.values:
            raise problems.field("/severity", "unknown_severity", f"no severity {severity!r}")
        rows = rows.filter(severity=severity)
    if model is not None:
        rows = rows.filter(model__name=model)
    if cause is not None:
        rows = rows.filter(cause=cause)
    return http.paginate(request, rows, alert_json)


@router.get("/alerts/{int:alert_id}", auth=http.scope("read"))
def show_alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    """One alert with every delivery of its events."""
    alert = _one(alert_id)
    log = [delivery_json(delivery) for delivery in alert.deliveries.order_by("pk")]
    return JsonResponse({**alert_json(alert), "deliveries": log})


@router.post("/alerts/{int:alert_id}/acknowledge", auth=http.scope("deploy"))
def acknowledge_alert(request: HttpRequest, alert_id: int) -> HttpResponse:
    """Say that you are on it."""
    alert = alerts.acknowledge(_one(alert_id), actor=http.actor(request), now=timezone.now())
    return JsonResponse(alert_json(alert))


@router.post("/alerts/{int:alert_id}/snooze", auth=http.scope("deploy"))
def snooze_alert(request: HttpRequest, alert_id: int, body: Snooze) -> HttpResponse:
    """Keep quiet until a time."""
    alert = alerts.snooze(_one(alert_id), until=body.until, actor=http.actor(request), now=timezone.now())
    return JsonResponse(alert_json(alert))


@router.post("/alerts/{int:alert_id}/resolve", auth=http.scope("deploy"))
def resolve_alert(request: HttpRequest, alert_id: int, body: Reason | None = None) -> HttpResponse:
    """Resolve by hand; it opens again when its cause is seen again."""
    reason = body.reason if body else ""
    alert = alerts.resolve_by_hand(
        _one(alert_id), actor=http.actor(request), reason=reason, now=timezone.now()
    )
    return JsonResponse(alert_json(alert))


@router.get("/channels", auth=http.scope("read"))
def list_channels(request: HttpRequest) -> HttpResponse:
    """All channels by name."""
    return http.paginate(request, Channel.objects.all(), channel_json, order="name")


@router.post("/channels", auth=http.scope("admin"))
def create_channel(request: HttpRequest, body: NewChannel) -> HttpResponse:
    """Make a channel; its secret is never shown again."""
    channel = channels.create(**body.model_dump(), actor=http.actor(request))
    return JsonResponse(channel_json(channel), status=201)


@router.get("/channels/{int:channel_id}", auth=http.scope("read"))
def show_channel(request: HttpRequest, channel_id: int) -> HttpResponse:
    """One channel."""
    return JsonResponse(channel_json(channels.get(channel_id)))


@router.patch("/channels/{int:channel_id}", auth=http.scope("admin"))
def change_channel(request: HttpRequest, channel_id: int, body: ChannelChanges) -> HttpResponse:
    """Change what the body names."""
    changes = body.model_dump(exclude_unset=True)
    channel = channels.change(channels.get(channel_id), changes, actor=http.actor(request))
    return JsonResponse(channel_json(channel))


@router.delete("/channels/{int:channel_id}", auth=http.scope("admin"))
def delete_channel(request: HttpRequest, channel_id: int) -> HttpResponse:
    """Remove a channel and its delivery log."""
    channels.delete(channels.get(channel_id), actor=http.actor(request))
    return HttpResponse(status=204)


@router.post("/channels/{int:channel_id}/test", auth=http.scope("admin"))
def test_channel(request: HttpRequest, channel_id: int) -> HttpResponse:
    """Send a test page: 202, and the delivery log shows what became of it."""
    delivery = channels.test(channels.get(channel_id), actor=http.actor(request), now=timezone.now())
    return JsonResponse(delivery_json(delivery), status=202)


@router.get("/channels/{int:channel_id}/deliveries", auth=http.scope("read"))
def list_deliveries(request: HttpRequest, channel_id: int) -> HttpResponse:
    """A channel's delivery log, newest first."""
    return http.paginate(request, channels.get(channel_id).deliveries.all(), delivery_json)


@router.post("/deliveries/{int:delivery_id}/replay", auth=http.scope("admin"))
def replay_delivery(request: HttpRequest, delivery_id: int) -> HttpResponse:
    """Send a finished delivery again: 202; 409 while it is under way."""
    delivery = channels.replay(delivery_id, actor=http.actor(request), now=timezone.now())
    return JsonResponse(delivery_json(delivery), status=202)
