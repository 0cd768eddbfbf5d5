"""Was this POST made before? The same Idempotency-Key and body get the same answer, from any web worker."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from controlplane import problems, sealing
from controlplane.access import Identity
from controlplane.models import IdempotencyRecord

RETAKE_AFTER = timedelta(seconds=60)  # an answer that took longer died with its worker
FORGET_AFTER = timedelta(hours=24)
KEPT_BYTES = 2**20  # longer answers are not kept; such a POST may then be made again
NOT_AN_ANSWER = frozenset({401, 403, 408, 409, 413, 429})  # about this attempt, not about what was asked


def begin(
    request: HttpRequest, identify: Callable[[HttpRequest], Identity | None], now: datetime
) -> HttpResponse | None:
    """Claim the request's Idempotency-Key; None when the view is to run, else the answer given before.

    Raises a Problem: 422 when the key came with another path or body, 409 while the first is in flight. A
    request without a key, or without an identity (it is about to be refused), is not claimed.
    """
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return None
    if len(key) > 255 or not key.isprintable():
        raise problems.field("/Idempotency-Key", "bad_key", "1 to 255 printable characters")
    identity = identify(request)
    if identity is None:
        return None
    who = f"token {identity.token.public_id}" if identity.token else identity.user.get_username()
    path = request.get_full_path()
    body_sha256 = hashlib.sha256(path.encode() + b"\n" + request.body).hexdigest()
    IdempotencyRecord.objects.filter(actor=who, created_at__lt=now - FORGET_AFTER).delete()
    record = _claim(who, key, path, body_sha256, now)
    if record is not None:
        request.META["davy.idempotency"] = record
        return None
    return _earlier(request, who, key, body_sha256, now)


def finish(request: HttpRequest, response: HttpResponseBase) -> None:
    """Keep the answer to a claimed request, or give the claim back (5xx, refused, a stream)."""
    record: IdempotencyRecord | None = request.META.get("davy.idempotency")
    if record is None:
        return
    ours = IdempotencyRecord.objects.filter(pk=record.pk, status=None, created_at=record.created_at)
    passing = response.status_code >= 500 or response.status_code in NOT_AN_ANSWER
    if passing or not isinstance(response, HttpResponse) or len(response.content) > KEPT_BYTES:
        ours.delete()
    else:  # sealed: the answer to POST /tokens holds a secret that is kept nowhere else
        ours.update(status=response.status_code, body=sealing.seal(response.content))


def _claim(who: str, key: str, path: str, body_sha256: str, now: datetime) -> IdempotencyRecord | None:
    try:
        with transaction.atomic():
            return IdempotencyRecord.objects.create(
                actor=who, key=key, path=path[:255], body_sha256=body_sha256, created_at=now
            )
    except IntegrityError:
        return None


def _earlier(
    request: HttpRequest, who: str, key: str, body_sha256: str, now: datetime
) -> HttpResponse | None:
    record = IdempotencyRecord.objects.filter(actor=who, key=key).first()
    if record is not None and record.body_sha256 != body_sha256:
        raise problems.field(
            "/Idempotency-Key", "key_reused", "this key came before with another path or body"
        )
    if record is None or (record.status is None and not _retake(record, now)):
        raise problems.Problem(
            409, "in_flight", "the first request with this Idempotency-Key is still running"
        )
    if record.status is None:
        request.META["davy.idempotency"] = record
        return None
    kind = "application/json" if record.status < 400 else "application/problem+json"
    response = HttpResponse(sealing.unseal(bytes(record.body)), status=record.status, content_type=kind)
    response["Idempotency-Replayed"] = "true"
    return response


def _retake(record: IdempotencyRecord, now: datetime) -> bool:
    """Take over a claim whose worker died; of several that try, the conditional UPDATE lets one."""
    if record.created_at > now - RETAKE_AFTER:
        return False
    stale = IdempotencyRecord.objects.filter(pk=record.pk, status=None, created_at=record.created_at)
    record.created_at = now
    return stale.update(created_at=now) == 1
