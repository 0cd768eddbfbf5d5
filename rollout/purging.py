"""Who is told that the answers in caches are a former version's? The purge hook, at least once per cache epoch."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import F

from controlplane import outbound
from rollout.models import Purge

log = logging.getLogger(__name__)

CALL_SECONDS = 5.0
FIRST_WAIT_SECONDS = 5
LONGEST_WAIT_SECONDS = 600


def call_due(now: datetime) -> int:
    """Call the hook for every epoch that it has not confirmed (2xx); returns how many it confirmed."""
    due = Purge.objects.filter(done_at__isnull=True, next_attempt_at__lte=now)
    rows = due.select_related("route__model", "route__fleet", "version").order_by("pk")
    return sum(_call(row, now) for row in rows)


def _call(row: Purge, now: datetime) -> bool:
    wait = min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**row.attempts)
    claimed = Purge.objects.filter(pk=row.pk, done_at__isnull=True, attempts=row.attempts).update(
        attempts=F("attempts") + 1, next_attempt_at=now + timedelta(seconds=wait)
    )
    if not claimed:
        return False  # another worker calls it
    body = {
        "model": row.route.model.name,
        "fleet": row.route.fleet.name,
        "version": row.version.name,
        "cache_epoch": row.epoch,
        "at": row.at.isoformat(),
    }
    try:
        answer = outbound.admin_request("POST", settings.PURGE_URL, body=body, timeout=CALL_SECONDS)
        heard, words = 200 <= answer.status < 300, f"{answer.status}"
    except outbound.OutboundError as err:
        heard, words = False, str(err)
    done = {"done_at": now} if heard else {}
    Purge.objects.filter(pk=row.pk).update(answer=words[:500], **done)
    if not heard:
        log.warning("%s: %s", row, words)
    return heard
