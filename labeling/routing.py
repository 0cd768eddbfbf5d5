"""Which predictions become tasks?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from django.db import transaction

from labeling import samplers
from labeling.models import Lease, Task
from labeling.samplers.base import Candidate, Choice, Sampler
from labeling.samplers.measure import Measure
from monitoring import shadow
from monitoring.models import Prediction, Purpose

BATCH = 500
LOSSES = frozenset({"no_image", "no_probability", "unknown_sampler", "dropped"})
OPEN_IMPROVE_LIMIT = 2_000  # open improve tasks per model: about a day's work of four annotators


def route(
    now: datetime,
    *,
    limit: int = BATCH,
    table: Mapping[str, Sampler] = samplers.SAMPLERS,
    open_limit: int = OPEN_IMPROVE_LIMIT,
) -> Counter[str]:
    """Look at up to `limit` predictions that nobody has looked at and make tasks of the chosen ones.

    One transaction: the tasks and `routed_at` are stored together or not at all, so a crash loses and
    doubles nothing. Several workers share the work by SKIP LOCKED. Returns counts by what happened:
    `looked_at` (all); `improve` and `measure` (tasks); `not_chosen`, `not_live`, `compared` (see disagreements.py);
    what would have been a task but is not: `no_image`, `no_probability`, `unknown_sampler`; and `dropped`, the
    improve tasks that were deleted because a model had more than `open_limit` open (the most uncertain stay).
    """
    seen: Counter[str] = Counter()
    with transaction.atomic():
        rows = list(
            Prediction.objects.filter(routed_at__isnull=True)
            .select_related("version__model")
            .defer("embedding", "detections")
            .select_for_update(skip_locked=True, of=("self",))
            .order_by("id")[:limit]
        )
        tasks = _tasks(rows, table, now, seen)
        Task.objects.bulk_create(tasks, ignore_conflicts=True)
        Prediction.objects.filter(pk__in=[row.pk for row in rows]).update(routed_at=now)
        for model_id in sorted({task.model_id for task in tasks if task.budget == Task.Budget.IMPROVE}):
            seen["dropped"] += _trim(model_id, open_limit)
    seen["looked_at"] += len(rows)
    return seen


def _tasks(
    rows: Sequence[Prediction], table: Mapping[str, Sampler], now: datetime, seen: Counter[str]
) -> list[Task]:
    """The tasks of a batch, in the order of their unique key: two workers' inserts cannot deadlock."""
    tasks = []
    live = [row for row in rows if row.purpose == Purpose.LIVE]
    seen["not_live"] += len(rows) - len(live)
    choices = _choices(live, table)
    for index, row in enumerate(live):
        choice = choices.get(index)
        if choice is None:
            seen[_why_not(row, table)] += 1
        elif not row.image:
            seen["no_image"] += 1
        else:
            seen[choice.budget] += 1
            tasks.append(_task(row, choice, now))
    return sorted(tasks, key=lambda task: (task.version_id, task.request_id, task.sampler))


def _choices(rows: Sequence[Prediction], table: Mapping[str, Sampler]) -> dict[int, Choice]:
    """Each row's choice by index; the first sampler of the table that wants a row gets it."""
    batch = [Candidate(row.confidence, row.sampler, row.inclusion_probability, row.stratum) for row in rows]
    choices: dict[int, Choice] = {}
    for sampler in table.values():
        for index, choice in sampler.choose(batch).items():
            choices.setdefault(index, choice)
    return choices


def _why_not(row: Prediction, table: Mapping[str, Sampler]) -> str:
    if row.sampler == shadow.SAMPLER:
        return "compared"
    if row.sampler and row.sampler not in table:
        return "unknown_sampler"
    return "no_probability" if row.sampler == Measure.name else "not_chosen"


def _task(row: Prediction, choice: Choice, now: datetime) -> Task:
    return Task(
        model=row.version.model,
        version=row.version,
        request_id=row.request_id,
        requested_at=row.at,
        budget=choice.budget,
        sampler=choice.sampler,
        inclusion_probability=choice.inclusion_probability,
        stratum=choice.stratum,
        segment=row.segment,
        image=row.image,
        suggestion={
            "label": row.label,
            "confidence": row.confidence,
            "probabilities": row.probabilities,
        },
        why=choice.why,
        priority=choice.priority,
        created_at=now,
    )


def _trim(model_id: int, open_limit: int) -> int:
    """Delete a model's open improve tasks beyond the `open_limit` best; returns how many.

    Measure tasks are never deleted. Nor is a task that anybody was ever handed: their answer may still come.
    The rows are locked first and their leases read by a second statement, because a lease that was
    committed between the snapshot and the lock is invisible to the first one.
    """
    open_tasks = Task.objects.filter(
        model_id=model_id, state=Task.State.OPEN, budget=Task.Budget.IMPROVE
    ).order_by("-priority", "id")
    beyond = list(open_tasks.values_list("pk", flat=True)[open_limit:])
    if not beyond:
        return 0
    locked = set(
        Task.objects.select_for_update(skip_locked=True).filter(pk__in=beyond).values_list("pk", flat=True)
    )
    locked -= set(Lease.objects.filter(task_id__in=locked).values_list("task_id", flat=True))
    return Task.objects.filter(pk__in=locked).delete()[1].get("labeling.Task", 0)
