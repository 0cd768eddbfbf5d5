"""How does an annotator work through the queue, one image after another?"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone

from controlplane.models import Model, User
from controlplane.problems import Problem
from controlplane.views import act, may, person, signed_in
from labeling import numbers, queue
from labeling.models import Annotation, Lease, Task
from labeling.samplers.band import Band

KEYS = "1234567890"  # one key a class, for the first ten


@dataclass(frozen=True)
class Choice:
    """A class that the annotator may choose; `key` is "" for none, `score` the model's, `suggested` its first guess."""

    name: str
    key: str
    score: float | None
    suggested: bool


@signed_in
def labeling(request: HttpRequest) -> HttpResponse:
    """The annotator's task, leased now unless one is held already; ?model= works on one model only."""
    now = timezone.now()
    model = get_object_or_404(Model, name=request.GET["model"]) if request.GET.get("model") else None
    lease = _lease(person(request), now, model) if may(request, "label") else None
    queues = numbers.queues(now)
    answered = Annotation.objects.filter(annotator=person(request), skipped=False)
    context = {
        "lease": lease,
        "choices": choices(queue.classes(lease.task), lease.task.suggestion) if lease else [],
        "model": model,
        "queues": queues,
        "waiting": sum(
            row["open"] + row["leased"] for row in queues if model is None or row["model"] == model.name
        ),
        "answered_today": answered.filter(created_at__date=now.date()).count(),
        "may_act": may(request, "label"),
        "band": (Band.low, Band.high),
        "now": now,
    }
    response = render(request, "labeling/labeling.html", context)
    response.headers["Cache-Control"] = "no-store"
    return response


@act("label")
def answer(request: HttpRequest) -> HttpResponse:
    """Store the annotator's answer, or their skip, and go on to the next image."""
    try:
        token = uuid.UUID(request.POST.get("token", ""))
    except ValueError:
        raise Http404("no such lease") from None
    get_object_or_404(Lease, token=token, annotator=person(request))
    try:
        if "skip" in request.POST:
            queue.skip(token, "skipped in the browser", timezone.now())
        else:
            queue.submit(token, request.POST.get("label", "").strip(), timezone.now())
    except Problem as problem:
        messages.error(request, problem.detail)
    model = request.POST.get("model", "")
    return redirect(reverse("labeling") + (f"?{urlencode({'model': model})}" if model else ""))


def _lease(annotator: User, now: datetime, model: Model | None) -> Lease | None:
    """The lease that this person holds, so that a reload shows the same image; else the next task's."""
    held = Lease.objects.filter(
        annotator=annotator, returned_at=None, expires_at__gt=now, task__state=Task.State.OPEN
    )
    if model is not None:
        held = held.filter(task__model=model)
    lease = held.order_by("leased_at").first() or queue.next_task(annotator, now, model)
    if lease is None:
        return None
    return Lease.objects.select_related("task__version", "task__model").get(pk=lease.pk)


def choices(classes: Sequence[str], suggestion: Mapping[str, Any]) -> list[Choice]:
    """The classes in their own order, so that a key always means the same class, with the model's scores.

    Without named classes, those that the suggestion scored. Probabilities are a list in the order of the
    classes, or a mapping by name.
    """
    scored = suggestion.get("probabilities")
    named = scored if isinstance(scored, Mapping) else dict(zip(classes, scored or [], strict=False))
    guess = suggestion.get("label")
    scores: dict[str, float] = {str(name): float(score) for name, score in named.items()}
    if guess and guess not in scores and isinstance(suggestion.get("confidence"), int | float):
        scores[guess] = float(suggestion["confidence"])
    names = list(classes) or list(scores)
    keys = [*KEYS, *[""] * len(names)]
    return [
        Choice(name, key, scores.get(name), name == guess) for name, key in zip(names, keys, strict=False)
    ]
