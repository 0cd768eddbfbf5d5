"""How full is each model's queue, and how many of the measure draws were never answered?"""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

from django.db.models import Count, Exists, OuterRef, Q

from labeling.models import Lease, Task


class Measure(TypedDict):
    """One model's measure budget: `non_response` = skipped / (done + skipped), None before any answer."""

    open: int
    done: int
    skipped: int
    non_response: float | None


class QueueNumbers(TypedDict):
    """One model's queue: `open` waits, `leased` is held, both are state open; `at` is when it was counted."""

    model: str
    open: int
    leased: int
    done: int
    skipped: int
    measure: Measure
    at: datetime


def queues(now: datetime) -> list[QueueNumbers]:
    """The queue of every model that has tasks, by name."""
    held = Exists(Lease.objects.filter(task=OuterRef("pk"), returned_at__isnull=True, expires_at__gt=now))
    measure = Q(budget=Task.Budget.MEASURE)
    is_open, done, skipped = (
        Q(state=state) for state in (Task.State.OPEN, Task.State.DONE, Task.State.SKIPPED)
    )
    counted = (
        Task.objects.annotate(held=held)
        .values("model__name")
        .annotate(
            free=Count("pk", filter=is_open & Q(held=False)),
            leased=Count("pk", filter=is_open & Q(held=True)),
            done=Count("pk", filter=done),
            skipped=Count("pk", filter=skipped),
            measure_open=Count("pk", filter=is_open & measure),
            measure_done=Count("pk", filter=done & measure),
            measure_skipped=Count("pk", filter=skipped & measure),
        )
        .order_by("model__name")
    )
    return [
        QueueNumbers(
            model=row["model__name"],
            open=row["free"],
            leased=row["leased"],
            done=row["done"],
            skipped=row["skipped"],
            measure=_measure(row["measure_open"], row["measure_done"], row["measure_skipped"]),
            at=now,
        )
        for row in counted
    ]


def _measure(waiting: int, done: int, skipped: int) -> Measure:
    ended = done + skipped
    return Measure(open=waiting, done=done, skipped=skipped, non_response=skipped / ended if ended else None)
