"""What has been labelled, in an order that never changes?"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from controlplane.models import Model
from labeling.exports.base import Row
from labeling.models import Annotation, Task

PAGE = 500


def rows(until: datetime, model: Model | None = None) -> Iterator[Row]:
    """Every label of the tasks done before `until`, by task and answer; the same at any later time.

    Pages by key, so that a long export holds neither a transaction nor its rows in memory.
    """
    labels = (
        Annotation.objects.filter(skipped=False, task__state=Task.State.DONE, task__closed_at__lt=until)
        .select_related("task__model", "task__version", "annotator")
        .order_by("task_id", "id")
    )
    if model is not None:
        labels = labels.filter(task__model=model)
    last = 0
    while task_ids := list(
        Task.objects.filter(pk__in=labels.values("task_id"), pk__gt=last)
        .order_by("pk")
        .values_list("pk", flat=True)[:PAGE]
    ):
        for annotation in labels.filter(task_id__in=task_ids):
            yield _row(annotation)
        last = task_ids[-1]


def _row(annotation: Annotation) -> Row:
    task = annotation.task
    return Row(
        task=task.pk,
        model=task.model.name,
        version=task.version.name,
        digest=task.version.digest,
        request_id=task.request_id,
        requested_at=task.requested_at,
        segment=task.segment,
        image=task.image,
        label=annotation.label,
        suggested_label=task.suggestion.get("label") or "",
        suggested_confidence=task.suggestion.get("confidence"),
        budget=task.budget,
        sampler=task.sampler,
        inclusion_probability=task.inclusion_probability,
        stratum=task.stratum,
        why=task.why,
        annotator=annotation.annotator.username,
        labelled_at=annotation.created_at,
    )
