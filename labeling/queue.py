"""Who labels what next? Tasks are leased, answered once, and come back when a lease runs out."""

from __future__ import annotations

import logging
import uuid
from collections import Counter
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Subquery
from django.db.models.functions import Coalesce

from controlplane.models import Model, User
from controlplane.problems import Problem, field
from labeling import disagreements, routing
from labeling.models import Annotation, Lease, Task
from monitoring.disagreements import settle
from monitoring.models import Outcome

logger = logging.getLogger(__name__)
MEASURE_EVERY = 5  # one lease in five is of the measure budget, as long as both budgets have tasks
URGENT = disagreements.PRIORITY  # measure tasks of this priority come before everything else
MAX_BATCHES = 20  # one fill looks at no more than 10,000 predictions; the timer comes again


def fill(now: datetime) -> Counter[str]:
    """Route what nobody has looked at into the queue; safe to repeat. Counts as `route`; losses are logged."""
    total: Counter[str] = disagreements.route(now)
    for _ in range(MAX_BATCHES):
        seen = routing.route(now)
        total += seen
        if seen["looked_at"] < routing.BATCH:
            break
    lost = {reason: n for reason, n in total.items() if reason in routing.LOSSES}
    if lost:
        logger.info("of %d predictions not made into tasks: %s", total["looked_at"], lost)
    return total


def next_task(annotator: User, now: datetime, model: Model | None = None) -> Lease | None:
    """Lease a free task to `annotator` for settings.LEASE_SECONDS; None: no task.

    Disagreements between stable and a canary come first: a rollout waits for them. Else one lease in MEASURE_EVERY
    prefers the measure budget, the others improve, so that neither starves; within a budget the highest
    priority comes first, then the oldest.
    A task is free while fewer than `overlap` people have answered or hold it. Nobody gets a task that
    they have answered or hold. Who let a lease run out may get the task again: the same Lease row with a
    new token and a new time, so that what was written under the old token is fenced off.
    """
    for budget in _budgets():
        for model_id in _models_by_urgency(model, budget):
            lease = _lease_one(annotator, now, model_id, budget)
            if lease is not None:
                return lease
    return None


def _budgets() -> list[Task.Budget]:
    """Both budgets, the one whose turn it is first."""
    order = [Task.Budget.IMPROVE, Task.Budget.MEASURE]
    urgent = Task.objects.filter(state=Task.State.OPEN, budget=Task.Budget.MEASURE, priority__gte=URGENT)
    if urgent.exists():
        return order[::-1]
    last = Lease.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
    return order[::-1] if last % MEASURE_EVERY == 0 else order


def heartbeat(token: uuid.UUID, now: datetime) -> Lease:
    """Extend a lease by settings.LEASE_SECONDS from `now`. Problem 409 when the task is closed or lost."""
    with transaction.atomic():
        lease = _locked(token)
        _require_held(lease, now)
        lease.expires_at = _expiry(now)
        lease.save(update_fields=["expires_at"])
        return lease


def submit(token: uuid.UUID, label: str, now: datetime) -> Annotation:
    """Store the annotator's label; with it, in one transaction, the task's end and its Outcome.

    A repeated submission of the same label gets the same answer. A late one is accepted while the task is
    open and not somebody else's. Problems: 404 `unknown_lease`, 409 `lease_lost`, `task_closed`,
    `already_answered` (with another label), 422 for a label that the version does not have.
    """
    return _answer(token, label, now, skipped=False, reason="")


def skip(token: uuid.UUID, reason: str, now: datetime) -> Annotation:
    """Close the annotator's part without a label: non-response, never silently replaced by another draw."""
    return _answer(token, "", now, skipped=True, reason=reason)


def classes(task: Task) -> list[str]:
    """The labels that `task` may get, from its version's bundle; [] (any text) when the bundle names none."""
    named = task.version.bundle.get("classes")
    return [str(name) for name in named] if isinstance(named, list) else []


def _expiry(now: datetime) -> datetime:
    return now + timedelta(seconds=settings.LEASE_SECONDS)


def _taken(now: datetime) -> Q:
    """Leases that count against a task's overlap: answered, or running."""
    return Q(returned_at__isnull=False) | Q(expires_at__gt=now)


def _models_by_urgency(model: Model | None, budget: str) -> list[int]:
    """The models to look into, the one with the most urgent open task first. One index probe per model."""
    if model is not None:
        return [model.pk]
    open_tasks = Task.objects.filter(model=OuterRef("pk"), state=Task.State.OPEN, budget=budget)
    first = open_tasks.order_by("-priority", "id")
    ranked = Model.objects.annotate(urgency=Subquery(first.values("priority")[:1]))
    return list(ranked.filter(urgency__isnull=False).order_by("-urgency", "id").values_list("pk", flat=True))


def _free(annotator: User, now: datetime, model_id: int, budget: str) -> QuerySet[Task]:
    taken = Lease.objects.filter(_taken(now), task=OuterRef("pk")).order_by().values("task")
    return (
        Task.objects.filter(model_id=model_id, state=Task.State.OPEN, budget=budget)
        .filter(overlap__gt=Coalesce(Subquery(taken.annotate(n=Count("pk")).values("n")), 0))
        .exclude(Exists(Lease.objects.filter(_taken(now), task=OuterRef("pk"), annotator=annotator)))
        .order_by("-priority", "id")
    )


def _lease_one(annotator: User, now: datetime, model_id: int, budget: str) -> Lease | None:
    """Lock a free task, make sure that it is still free, lease it.

    The lock alone is not enough: another annotator's lease may be committed between this statement's snapshot
    and its lock, and PostgreSQL re-checks only rows that changed, which the task did not. The question
    is therefore asked again under the lock, by a new statement with a new snapshot.
    """
    with transaction.atomic():
        while True:
            free = _free(annotator, now, model_id, budget)
            task = free.select_for_update(skip_locked=True, of=("self",)).first()
            if task is None:
                return None
            if free.filter(pk=task.pk).exists():
                break
        lease, _ = Lease.objects.update_or_create(
            task=task,
            annotator=annotator,
            defaults={
                "token": uuid.uuid4(),
                "leased_at": now,
                "expires_at": _expiry(now),
                "returned_at": None,
            },
        )
        return lease


def _locked(token: uuid.UUID) -> Lease:
    """The lease of a token, its task locked: whatever is decided about a task is decided under this lock."""
    task_id = Lease.objects.filter(token=token).values_list("task_id", flat=True).first()
    if task_id is not None:
        Task.objects.select_for_update().filter(pk=task_id).first()
    lease = Lease.objects.select_related("task__version").filter(token=token).first()
    if lease is None:
        raise field(
            "/token", "unknown_lease", "no such lease: it ran out and was given out again", status=404
        )
    return lease


def _require_held(lease: Lease, now: datetime) -> None:
    """Problem 409 unless the task is open and the lease runs, or ran out and nobody else took the place."""
    task = lease.task
    if task.state != Task.State.OPEN:
        raise Problem(409, "task_closed", f"task {task.pk} is {task.state}: somebody else answered it")
    if lease.returned_at is not None:
        raise Problem(409, "already_answered", f"task {task.pk} was already answered under this token")
    if lease.expires_at <= now:
        others = Lease.objects.filter(_taken(now), task=task).exclude(pk=lease.pk).count()
        if others >= task.overlap:
            raise Problem(
                409,
                "lease_lost",
                f"the lease ran out at {lease.expires_at:%H:%M:%S} and somebody else has task {task.pk}",
            )


def _answer(token: uuid.UUID, label: str, now: datetime, *, skipped: bool, reason: str) -> Annotation:
    with transaction.atomic():
        lease = _locked(token)
        given = Annotation.objects.filter(lease=lease).first()
        if given is not None:
            if (given.label, given.skipped) == (label, skipped):
                return given
            said = "skipped" if given.skipped else f"answered {given.label!r}"
            raise field("/token", "already_answered", f"this task was already {said}", status=409)
        _require_held(lease, now)
        if not skipped:
            _require_known(lease.task, label)
        annotation = Annotation.objects.create(
            task=lease.task,
            annotator_id=lease.annotator_id,
            lease=lease,
            label=label,
            skipped=skipped,
            reason=reason,
            seconds=(now - lease.leased_at).total_seconds(),
            created_at=now,
        )
        lease.returned_at = now
        lease.save(update_fields=["returned_at"])
        _close_when_answered(lease.task, now)
        return annotation


def _require_known(task: Task, label: str) -> None:
    known = classes(task)
    if known and label not in known:
        raise field("/label", "unknown_label", f"{label!r} is none of {task.version}'s {len(known)} classes")
    if not label.strip() or len(label) > 255:
        raise field("/label", "invalid_label", "a label has 1 to 255 characters")


def _close_when_answered(task: Task, now: datetime) -> None:
    """End a task that has its `overlap` answers, and record the truth where its labels agree on one."""
    answers = list(task.annotations.values_list("label", "skipped"))
    if len(answers) < task.overlap:
        return
    labels = Counter(label for label, skipped in answers if not skipped)
    task.state = Task.State.DONE if labels else Task.State.SKIPPED
    task.closed_at = now
    task.save(update_fields=["state", "closed_at"])
    ranked = labels.most_common(2)
    tied = len(ranked) == 2 and ranked[0][1] == ranked[1][1]
    if not labels or tied:
        return  # no truth
    if task.sampler == disagreements.SAMPLER:
        settle(task.version, task.request_id, ranked[0][0], now)
        return
    suggested = task.suggestion.get("label")
    if not suggested:
        return  # nothing that could be wrong
    Outcome.objects.bulk_create(
        [
            Outcome(
                version_id=task.version_id,
                request_id=task.request_id,
                requested_at=task.requested_at,
                stratum=task.stratum,
                wrong=ranked[0][0] != suggested,
                sampler=task.sampler,
                inclusion_probability=task.inclusion_probability,
                created_at=now,
            )
        ],
        ignore_conflicts=True,
    )
