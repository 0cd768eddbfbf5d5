"""Where do pages go? Make, change, test and replay channels; their secrets go in and never come out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cryptography.fernet import InvalidToken
from django.db import transaction

from controlplane import audit, pagers, problems, registry, sealing
from controlplane.models import Channel, Delivery, Severity


def get(channel_id: int) -> Channel:
    """The channel of that id; a 404 problem when there is none."""
    channel = Channel.objects.filter(pk=channel_id).first()
    if channel is None:
        raise problems.field("/channel", "unknown_channel", f"no channel {channel_id}", status=404)
    return channel


def create(
    *,
    name: str,
    kind: str,
    config: Mapping[str, Any],
    secret: str,
    severities: list[str],
    actor: str,
) -> Channel:
    """Make a channel. `severities` are those it is paged for; none means all. A taken name is a 409 at /name."""
    registry.check_name(name, "/name")
    _check_severities(severities)
    pagers.get(kind).check(config, secret)
    with transaction.atomic():
        channel, created = Channel.objects.get_or_create(
            name=name,
            defaults={
                "kind": kind,
                "config": dict(config),
                "secret": sealing.seal(secret.encode()),
                "severities": severities,
            },
        )
        if not created:
            raise problems.field("/name", "name_taken", f"there is a channel {name!r}", status=409)
        audit.record(actor, "channel.create", name, detail={"kind": kind})
    return channel


def change(channel: Channel, changes: Mapping[str, Any], *, actor: str) -> Channel:
    """Change any of config, secret, severities and enabled; the result is checked as a whole."""
    with transaction.atomic():
        row = Channel.objects.select_for_update().get(pk=channel.pk)
        config = changes.get("config", row.config)
        secret = changes["secret"] if "secret" in changes else secret_of(row)
        _check_severities(changes.get("severities", row.severities))
        pagers.get(row.kind).check(config, secret)
        row.config, row.secret = dict(config), sealing.seal(secret.encode())
        row.severities = changes.get("severities", row.severities)
        row.enabled = changes.get("enabled", row.enabled)
        row.disabled_reason = "" if row.enabled else row.disabled_reason or f"disabled by {actor}"
        row.save()
        audit.record(actor, "channel.change", row.name, detail={"changed": sorted(changes)})
    return row


def delete(channel: Channel, *, actor: str) -> None:
    """Remove a channel with its delivery log; alerts stay."""
    with transaction.atomic():
        audit.record(actor, "channel.delete", channel.name)
        channel.delete()


def test(channel: Channel, *, actor: str, now: datetime) -> Delivery:
    """Put a test page into the outbox; the delivery log shows what became of it."""
    if not channel.enabled:
        raise problems.Problem(
            409, "channel_disabled", f"{channel.name} is disabled: {channel.disabled_reason}"
        )
    with transaction.atomic():
        audit.record(actor, "channel.test", channel.name)
        return Delivery.objects.create(
            channel=channel, event=Delivery.Event.TEST, next_attempt_at=now, created_at=now
        )


def replay(delivery_id: int, *, actor: str, now: datetime) -> Delivery:
    """Send a finished delivery again, with the same message id; one that is still under way is a 409."""
    with transaction.atomic():
        delivery = Delivery.objects.select_for_update(of=("self",)).filter(pk=delivery_id).first()
        if delivery is None:
            raise problems.field("/delivery", "unknown_delivery", f"no delivery {delivery_id}", status=404)
        if delivery.state not in (Delivery.State.SENT, Delivery.State.FAILED):
            raise problems.Problem(409, "under_way", f"delivery {delivery_id} is {delivery.state}")
        delivery.state, delivery.attempts, delivery.next_attempt_at = Delivery.State.PENDING, 0, now
        delivery.save(update_fields=["state", "attempts", "next_attempt_at"])
        audit.record(actor, "delivery.replay", f"delivery {delivery_id} to {delivery.channel.name}")
    return delivery


def secret_of(channel: Channel) -> str:
    """The pager's secret in clear, for sending only; a 409 problem when SECRET_KEY has changed since it was set."""
    try:
        return sealing.unseal(bytes(channel.secret)).decode() if channel.secret else ""
    except InvalidToken as err:
        lost = "cannot be read with this DAVY_SECRET_KEY: set it again"
        raise problems.Problem(409, "secret_unreadable", f"the secret of {channel.name} {lost}") from err


def _check_severities(severities: list[str]) -> None:
    for index, severity in enumerate(severities):
        if severity not in Severity.values:
            raise problems.field(f"/severities/{index}", "unknown_severity", f"no severity {severity!r}")
