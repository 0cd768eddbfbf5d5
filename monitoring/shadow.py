"""What would the canary have answered? Live requests that were mirrored, matched with stable's answers.

While a rollout mirrors requests it asks for a draw (`ask`), again and again. Both versions' collectors hear its share
in the answer to their next report, and sample the requests whose hash is below it: stable's the live ones, the canary's
the mirrored ones, under the same request ids. Neither knows of the other. A timer matches what came, whichever came
first; what has no twin after WAIT is given up. Raw predictions (posted without a collector) are matched likewise.

On the wire a draw costs about SAMPLES_A_SECOND rows a second of stable's traffic and as much of that as is mirrored: a
row is some 330 bytes of JSON, 60 gzipped (5.5 kB and 2.4 kB where the collector sends 512-d embeddings).
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
from django.db import connection, transaction
from django.db.models import Max, Min, Q, QuerySet, Sum

from controlplane.models import ModelVersion
from monitoring.models import Prediction, Purpose, ShadowDraw, ShadowPair, Window
from monitoring.statistics import agreement

SAMPLER = "shadow"
SAMPLES_A_SECOND = 100.0  # of stable's live requests, over all its servers
FIRST_SHARE = 0.01  # before anything is known of stable's traffic
LASTS = timedelta(seconds=60)  # a draw that nobody asks for again
RATE_OVER = timedelta(seconds=60)
WAIT = timedelta(seconds=120)  # for the twin of a mirrored request
BATCH = 500


def ask(version: ModelVersion, stable: ModelVersion, now: datetime) -> None:
    """Have the requests of `stable` that are mirrored to `version` sampled for another minute. Safe to repeat."""
    running = ShadowDraw.objects.filter(version=version, stable=stable, until__gt=now + LASTS / 2)
    if not running.exists():
        ShadowDraw.objects.update_or_create(
            version=version, stable=stable, defaults={"share": _share(stable, now), "until": now + LASTS}
        )


def _share(stable: ModelVersion, now: datetime) -> float:
    """The share at which about SAMPLES_A_SECOND of stable's live requests are drawn."""
    lately = Window.objects.filter(
        version=stable, purpose=Purpose.LIVE, start__gte=now - RATE_OVER, end__lte=now
    )
    found = lately.aggregate(n=Sum("n"), first=Min("start"), last=Max("end"))
    if not found["n"]:
        return FIRST_SHARE
    rate = found["n"] / (found["last"] - found["first"]).total_seconds()
    return float(min(1.0, SAMPLES_A_SECOND / rate))


#: In SQL, because every report asks: to compose it with the ORM took eight times as long.
_SHARE = """
    SELECT max(share) FROM monitoring_shadowdraw WHERE (version_id = %s OR stable_id = %s) AND until > %s
"""


def share(version: ModelVersion, now: datetime) -> float:
    """The share of requests that the version's collectors should sample for comparison; 0 for none."""
    with connection.cursor() as cursor:
        cursor.execute(_SHARE, [version.pk, version.pk, now])
        (most,) = cursor.fetchone()
    return float(most or 0.0)


def match(now: datetime) -> int:
    """Match the mirrored requests that have a twin; returns how many were matched. Safe to repeat.

    Workers share the work by SKIP LOCKED; a request makes one pair, by a unique constraint.
    """
    matched = 0
    for draw in ShadowDraw.objects.filter(until__gte=now - WAIT).select_related("version", "stable"):
        last: int | None = 0
        while last is not None:
            found, last = _match(draw, last, now)
            matched += found
    Prediction.objects.filter(_waiting(), received_at__lt=now - WAIT).update(paired_at=now)
    return matched


def _waiting() -> Q:
    return Q(purpose=Purpose.SHADOW, paired_at__isnull=True)


def _match(draw: ShadowDraw, after: int, now: datetime) -> tuple[int, int | None]:
    """Look at the next BATCH mirrored requests; returns how many had a twin, and where to go on (None: the end).

    Two plain look-ups by key instead of one join: a join of a version that the planner has no statistics of yet
    took 8 s for 5,000 rows, these take milliseconds.
    """
    waiting = Prediction.objects.filter(_waiting(), version=draw.version, pk__gt=after).order_by("id")
    with transaction.atomic():
        locked = waiting.select_for_update(skip_locked=True, of=("self",))
        rows = list(locked.values_list("request_id", "sampler", "pk")[:BATCH])
        asked = {request_id for request_id, _, _ in rows}
        found = _twins(draw.stable).filter(request_id__in=asked).values_list("request_id", "sampler", "pk")
        twins = {(request_id, sampler): pk for request_id, sampler, pk in found}
        both = {pk: twins[request, sampler] for request, sampler, pk in rows if (request, sampler) in twins}
        whole = Prediction.objects.in_bulk([*both, *both.values()])
        pairs = [_pair(draw, whole[one], whole[other], now) for one, other in both.items()]
        told = [pair for pair in pairs if pair.agreed is not None or pair.cosine is not None]
        told.sort(key=lambda pair: pair.request_id)  # one order for all workers: no deadlock
        ShadowPair.objects.bulk_create(told, ignore_conflicts=True)
        Prediction.objects.filter(pk__in=list(both)).update(paired_at=now)
    return len(both), rows[-1][2] if len(rows) == BATCH else None


def _twins(stable: ModelVersion) -> QuerySet[Prediction]:
    """Stable's answers to live requests: sampled to be compared, or posted raw."""
    return Prediction.objects.filter(version=stable, purpose=Purpose.LIVE, sampler__in=(SAMPLER, ""))


def _pair(draw: ShadowDraw, canary: Prediction, stable: Prediction, now: datetime) -> ShadowPair:
    """Both answers side by side. A raw prediction was drawn with probability 1."""
    agreed, iou = _compared(canary, stable)
    vectors = (np.frombuffer(bytes(row.embedding), "<f4") for row in (canary, stable))
    return ShadowPair(
        version=draw.version,
        stable=draw.stable,
        request_id=canary.request_id,
        at=stable.at,
        matched_at=now,
        stable_label=_answer(stable),
        stable_confidence=stable.confidence,
        canary_label=_answer(canary),
        canary_confidence=canary.confidence,
        agreed=agreed,
        iou=iou,
        cosine=agreement.cosine(*vectors),
        inclusion_probability=min(canary.inclusion_probability or 1.0, stable.inclusion_probability or 1.0),
        image=stable.image or canary.image,
        segment=stable.segment,
    )


def _compared(canary: Prediction, stable: Prediction) -> tuple[bool | None, float | None]:
    """(agreed, mean IoU): by boxes where both have detections, by labels where both have one."""
    if canary.detections is not None and stable.detections is not None:
        found = agreement.match_boxes(stable.detections, canary.detections)
        return found.agreed, found.iou
    if canary.label and stable.label:
        return canary.label == stable.label, None
    return None, None


def _answer(row: Prediction) -> str:
    return row.label if row.detections is None else agreement.in_words(row.detections)
