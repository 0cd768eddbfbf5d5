"""JSON for annotators and their tools: queues, leases, answers, images, exports."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from ninja import Router
from pydantic import Field

from controlplane import http, registry
from controlplane.access import Identity
from controlplane.models import User
from controlplane.problems import Problem, field
from labeling import exports, images, labels, numbers, queue
from labeling.models import Annotation, Lease, Task

router = Router()
CHUNK_LINES = 500


class Next(http.Body):
    """POST /labeling/tasks/next: any model's most urgent task, or one model's."""

    model: str | None = None


class Hold(http.Body):
    """What every call about a leased task carries."""

    token: str


class Submission(Hold):
    """POST …/submit."""

    label: str


class Skip(Hold):
    """POST …/skip."""

    reason: str = Field(default="", max_length=1_000)


@router.get("/labeling/queues", auth=http.scope("read"))
def list_queues(request: HttpRequest) -> HttpResponse:
    """Each model's queue: open, leased, done, skipped, and the measure budget's non-response."""
    return JsonResponse({"items": numbers.queues(timezone.now())})


@router.post("/labeling/tasks/next", auth=http.scope("label"))
def next_task(request: HttpRequest, body: Next | None = None) -> HttpResponse:
    """Lease the next task: 200 with the lease, or 204 when there is nothing to label."""
    model = registry.get_model(body.model) if body and body.model is not None else None
    lease = queue.next_task(_annotator(request), timezone.now(), model)
    return HttpResponse(status=204) if lease is None else JsonResponse(lease_json(lease))


@router.post("/labeling/tasks/{int:task_id}/submit", auth=http.scope("label"))
def submit(request: HttpRequest, task_id: int, body: Submission) -> HttpResponse:
    """Answer a leased task. The same again is 200 again; another label under the same token is 409."""
    token = _held(request, task_id, body.token)
    return JsonResponse(annotation_json(queue.submit(token, body.label, timezone.now())))


@router.post("/labeling/tasks/{int:task_id}/skip", auth=http.scope("label"))
def skip(request: HttpRequest, task_id: int, body: Skip) -> HttpResponse:
    """Say that a leased task cannot be labelled; it counts as non-response."""
    token = _held(request, task_id, body.token)
    return JsonResponse(annotation_json(queue.skip(token, body.reason, timezone.now())))


@router.post("/labeling/tasks/{int:task_id}/heartbeat", auth=http.scope("label"))
def heartbeat(request: HttpRequest, task_id: int, body: Hold) -> HttpResponse:
    """Keep a leased task for another lease time."""
    lease = queue.heartbeat(_held(request, task_id, body.token), timezone.now())
    return JsonResponse({"task": lease.task_id, "expires_at": lease.expires_at})


@router.get("/labeling/tasks/{int:task_id}/image", auth=http.scope("label"), url_name="task-image")
def image(request: HttpRequest, task_id: int) -> HttpResponse:
    """The image's bytes, fetched from its source, so that a page needs no access to the source."""
    fetched = images.fetch(_task(task_id))
    response = HttpResponse(fetched.data, content_type=fetched.content_type)
    response["Cache-Control"] = "private, max-age=300"
    return response


@router.get("/labeling/exports", auth=http.scope("label"))
def export(
    request: HttpRequest, format: str = "jsonl", until: str = "", model: str = ""
) -> StreamingHttpResponse:
    """Every label of the tasks done before `until` (now, when not given; said in X-Davy-Until)."""
    try:
        chosen = exports.get(format)
    except exports.UnknownExportError as err:
        raise field("/format", "unknown_format", str(err)) from err
    now = timezone.now()
    end = _until(until, now)
    only = registry.get_model(model) if model else None
    response = StreamingHttpResponse(
        _chunks(chosen.write(labels.rows(end, only))), content_type=f"{chosen.content_type}; charset=utf-8"
    )
    response["Content-Disposition"] = f'attachment; filename="labels.{chosen.name}"'
    response["X-Davy-Until"] = end.isoformat()
    return response


def lease_json(lease: Lease) -> dict[str, Any]:
    """A lease for an annotator's page or program; `image` is the source, `image_url` serves its bytes."""
    task = lease.task
    return {
        "task": task.pk,
        "token": str(lease.token),
        "expires_at": lease.expires_at,
        "model": task.model.name,
        "version": task.version.name,
        "request_id": task.request_id,
        "segment": task.segment,
        "image": task.image,
        "image_url": reverse("api:task-image", args=[task.pk]),
        "suggestion": task.suggestion,
        "classes": queue.classes(task),
        "why": task.why,
        "budget": task.budget,
    }


def annotation_json(annotation: Annotation) -> dict[str, Any]:
    """An answer as it was stored."""
    return {
        "task": annotation.task_id,
        "label": annotation.label,
        "skipped": annotation.skipped,
        "reason": annotation.reason,
        "seconds": annotation.seconds,
        "at": annotation.created_at,
    }


def _annotator(request: HttpRequest) -> User:
    identity: Identity = request.auth  # type: ignore[attr-defined]  # set by http.scope
    return identity.user


def _task(task_id: int) -> Task:
    task = Task.objects.filter(pk=task_id).first()
    if task is None:
        raise Problem(404, "unknown_task", f"no task {task_id}")
    return task


def _held(request: HttpRequest, task_id: int, text: str) -> uuid.UUID:
    """The token of this person's lease of this task; whether it still holds is the queue's to say."""
    _task(task_id)
    try:
        token = uuid.UUID(text)
    except ValueError as err:
        raise field("/token", "bad_token", "a lease's token is a UUID") from err
    lease = Lease.objects.filter(token=token).first()
    if lease is not None and lease.task_id != task_id:
        raise field("/token", "other_task", f"this token is not of task {task_id}", status=409)
    if lease is not None and lease.annotator_id != _annotator(request).pk:
        raise field("/token", "not_your_lease", "somebody else holds this lease", status=403)
    return token


def _until(text: str, now: datetime) -> datetime:
    try:
        moment = parse_datetime(text) if text else now
    except ValueError:
        moment = None
    if moment is None or timezone.is_naive(moment):
        raise field(
            "/until", "bad_time", "until is an ISO 8601 time with its zone, e.g. 2026-03-01T12:00:00Z"
        )
    if moment > now:
        raise field("/until", "in_the_future", "labels after now are not known yet")
    return moment


async def _chunks(lines: Iterator[str]) -> AsyncIterator[bytes]:
    """Lines in chunks, made in the thread that may use the database: ASGI streams async iterators only."""
    while chunk := await sync_to_async(_join)(lines):
        yield chunk


def _join(lines: Iterator[str]) -> bytes:
    return "".join(islice(lines, CHUNK_LINES)).encode()
