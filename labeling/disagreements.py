"""Which requests, answered differently by stable and canary, become tasks? All of them, before anything else.

Where both agree, both are right or both are wrong: only a disagreement can tell which version is better, so these few
labels decide the accuracy gate. The annotator is not told which version said what.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet

from labeling.models import Task
from monitoring.disagreements import SAMPLER
from monitoring.models import ShadowPair

__all__ = ["PRIORITY", "SAMPLER", "route"]

PRIORITY = 2.0  # above the measure sampler's and every improve task's
BATCH = 500
OPEN_LIMIT = 500  # open tasks per model; the other disagreements wait, and count as not labelled
FRESH = timedelta(hours=6)  # an older disagreement decides nothing any more


def route(now: datetime, *, open_limit: int = OPEN_LIMIT) -> Counter[str]:
    """Make tasks of the disagreements that nobody has looked at; counts by what happened.

    `disagreement` (tasks), `no_image`, and `stale`, those that were not offered within FRESH. Whether one is
    offered does not depend on who is right, only on how many are open. One transaction, shared by SKIP LOCKED.
    """
    seen: Counter[str] = Counter()
    unseen = ShadowPair.objects.filter(routed_at__isnull=True, agreed=False, iou__isnull=True)  # no boxes
    for model_id in (
        unseen.values_list("version__model_id", flat=True).distinct().order_by("version__model_id")
    ):
        _route(unseen.filter(version__model_id=model_id), model_id, now, open_limit, seen)
    return seen


def _route(
    unseen: QuerySet[ShadowPair], model_id: int, now: datetime, open_limit: int, seen: Counter[str]
) -> None:
    mine = Task.objects.filter(model_id=model_id, state=Task.State.OPEN, budget=Task.Budget.MEASURE)
    with transaction.atomic():
        stale = unseen.filter(matched_at__lt=now - FRESH).select_for_update(skip_locked=True, of=("self",))
        seen["stale"] += _looked_at(list(stale[:BATCH]), now)
        room = min(BATCH, open_limit - mine.filter(sampler=SAMPLER).count())
        if room <= 0:
            return
        locked = unseen.select_related("version").select_for_update(skip_locked=True, of=("self",))
        rows = list(locked.order_by("id")[:room])
        tasks = [_task(row, model_id, now) for row in rows if row.image]
        tasks.sort(key=lambda task: (task.version_id, task.request_id))
        Task.objects.bulk_create(tasks, ignore_conflicts=True)
        _looked_at(rows, now)
        seen["disagreement"] += len(tasks)
        seen["no_image"] += len(rows) - len(tasks)


def _looked_at(rows: Sequence[ShadowPair], now: datetime) -> int:
    return ShadowPair.objects.filter(pk__in=[row.pk for row in rows]).update(routed_at=now)


def _task(pair: ShadowPair, model_id: int, now: datetime) -> Task:
    one, other = sorted((pair.stable_label, pair.canary_label))
    return Task(
        model_id=model_id,
        version=pair.version,  # the canary's: it may know classes that stable does not
        request_id=pair.request_id,
        requested_at=pair.at,
        budget=Task.Budget.MEASURE,
        sampler=SAMPLER,
        inclusion_probability=pair.inclusion_probability,
        segment=pair.segment,
        image=pair.image,
        suggestion={"label": None, "confidence": None, "probabilities": None},
        why=f"two versions disagree: {one} or {other}",
        priority=PRIORITY,
        created_at=now,
    )
