"""Which pages are due, and what became of them? Claim, send outside any transaction, record the answer."""

from __future__ import annotations

import random
import time
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from controlplane import channels, pagers
from controlplane.models import Alert, Channel, Delivery
from controlplane.pagers.base import Message, PagerError
from controlplane.problems import Problem

RETRY_SECONDS = (0, 5, 30, 120, 300, 900)  # before each attempt; after the last one the page has failed
JITTER = 0.2  # share by which a wait is lengthened, so that receivers are not hit in step
CLAIM_SECONDS = 60.0  # a claim this old belongs to a worker that died
RUN_SECONDS = 5.0
State = Delivery.State


def deliver(now: datetime, run_seconds: float = RUN_SECONDS) -> int:
    """Send what is due, one after the other, for at most `run_seconds`; return how many were attempted.

    Any number of workers may run this: a claim is a conditional UPDATE. Delivery is at least once; the message
    id stays the same, so that a receiver can drop the repeat of a page whose answer was lost.
    """
    _give_up(now)
    started, attempted = time.monotonic(), 0
    while time.monotonic() - started < run_seconds:
        delivery = _claim(now)
        if delivery is None:
            break
        _send(delivery)
        attempted += 1
    return attempted


def _claim(now: datetime) -> Delivery | None:
    """Mark the longest due delivery "sending" and return it; None when nothing is due.

    Within one alert and channel events keep their order: none is due while an earlier one is under way.
    """
    due = Q(state=State.PENDING, next_attempt_at__lte=now) | _abandoned(now)
    earlier = Delivery.objects.filter(
        alert=OuterRef("alert"),
        channel=OuterRef("channel"),
        pk__lt=OuterRef("pk"),
        state__in=(State.PENDING, State.SENDING),
    )
    with transaction.atomic():
        found = (
            Delivery.objects.select_for_update(skip_locked=True, of=("self",))
            .filter(due, ~Exists(earlier), channel__enabled=True)
            .order_by("next_attempt_at", "pk")
            .first()
        )
        if found is None:
            return None
        found.state, found.claimed_at, found.attempts = State.SENDING, now, found.attempts + 1
        found.save(update_fields=["state", "claimed_at", "attempts"])
    return Delivery.objects.select_related("channel", "alert").get(pk=found.pk)


def _send(delivery: Delivery) -> None:
    channel = delivery.channel
    try:
        answer = pagers.get(channel.kind).send(
            message_of(delivery), channel.config, channels.secret_of(channel)
        )
    except PagerError as err:
        _record_failure(delivery, err, timezone.now())
    except Problem as err:  # a pager that is no more, a secret that cannot be read
        _record(delivery, state=State.FAILED, answer=str(err))
    else:
        _record(delivery, state=State.SENT, answer=answer, sent_at=timezone.now())


def _record_failure(delivery: Delivery, err: PagerError, now: datetime) -> None:
    if err.gone:
        disable(delivery.channel, f"the receiver answered: {err}")
    if err.retry and not err.gone and delivery.attempts < len(RETRY_SECONDS):
        wait = RETRY_SECONDS[delivery.attempts] * (1 + JITTER * random.random())  # noqa: S311 - not a secret
        _record(delivery, state=State.PENDING, answer=str(err), next_attempt_at=now + timedelta(seconds=wait))
    else:
        _record(delivery, state=State.FAILED, answer=str(err))


def _record(delivery: Delivery, **facts: object) -> None:
    """Write the outcome, unless the claim was taken over meanwhile."""
    ours = Delivery.objects.filter(pk=delivery.pk, state=State.SENDING, claimed_at=delivery.claimed_at)
    ours.update(**facts)


def disable(channel: Channel, reason: str) -> None:
    """Stop sending to a channel; what waits for it fails with the reason."""
    with transaction.atomic():
        Channel.objects.filter(pk=channel.pk).update(enabled=False, disabled_reason=reason)
        channel.deliveries.filter(state=State.PENDING).update(
            state=State.FAILED, answer=f"not sent: {reason}"
        )


def _abandoned(now: datetime) -> Q:
    """Claims whose worker died; a call in progress is never that old."""
    longest_call = timedelta(seconds=max(CLAIM_SECONDS, 3 * settings.OUTBOUND_TIMEOUT_SECONDS))
    return Q(state=State.SENDING, claimed_at__lt=now - longest_call)


def _give_up(now: datetime) -> None:
    """Fail what must not be sent any more: the resolution of a page that never arrived, pages to a channel that a
    person disabled, and a page at which every attempt's worker died."""
    untold = Delivery.objects.filter(
        alert=OuterRef("alert"), channel=OuterRef("channel"), event=Delivery.Event.TRIGGER, state=State.FAILED
    )
    waiting = Delivery.objects.filter(state=State.PENDING, next_attempt_at__lte=now)
    followers = waiting.filter(Exists(untold), event__in=(Delivery.Event.ACKNOWLEDGE, Delivery.Event.RESOLVE))
    followers.update(state=State.FAILED, answer="not sent: its trigger was never delivered")
    deadly = Delivery.objects.filter(_abandoned(now), attempts__gte=len(RETRY_SECONDS))
    deadly.update(state=State.FAILED, answer="not sent: the worker died at every attempt")
    waiting.filter(channel__enabled=False).update(
        state=State.FAILED, answer="not sent: the channel is disabled"
    )


def _summary(alert: Alert, event: str) -> str:
    """What happened; for the end of it, how it ended."""
    return f"Resolved: {alert.resolution}" if event == Delivery.Event.RESOLVE else alert.summary


def message_of(delivery: Delivery) -> Message:
    """What a pager is told about a delivery; a test page stands for no alert."""
    alert: Alert | None = delivery.alert
    url = settings.PUBLIC_URL
    if alert is None:
        summary = f"Test page from Davy to {delivery.channel.name}"
        return Message(
            str(delivery.message_id),
            delivery.event,
            delivery.created_at,
            "test",
            "info",
            summary,
            {},
            f"{url}/alerts",
        )
    detail = {
        **alert.detail,
        "alert": alert.pk,
        "count": alert.count,
        "model": alert.model.name if alert.model else None,
        "version": alert.version.name if alert.version else None,
        "fleet": alert.fleet.name if alert.fleet else None,
        "opened_at": alert.opened_at.isoformat(),
        "resolved_at": alert.resolved_at.isoformat() if alert.resolved_at else None,
        "resolution": alert.resolution,
    }
    return Message(
        id=str(delivery.message_id),
        event=delivery.event,
        at=delivery.created_at,
        cause=alert.cause,
        severity=alert.severity,
        summary=_summary(alert, delivery.event),
        detail=detail,
        url=f"{url}/alerts/{alert.pk}",
    )
