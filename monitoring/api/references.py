"""JSON for references: freeze, propose, approve or read one, or the arrays that a collector counts with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import Field

from controlplane import audit, http, problems, registry
from controlplane.models import ModelVersion
from monitoring import proposals, references
from monitoring.models import Reference
from monitoring.predictions import moment

router = Router()

NPZ = "application/x-npz"


class Wanted(http.Body):
    """Where a proposed reference comes from: `windows` of a period and segment, or an `artifact` of the MLflow run."""

    source: Literal["windows", "mlflow"]
    since: str | None = Field(None, alias="from")
    to: str | None = None
    segment: dict[str, str] = {}
    artifact: str = ""


class Approval(http.Body):
    """Why the reference should be in force from now on."""

    reason: str


@router.put("/models/{model}/versions/{version}/reference", auth=http.scope("deploy"))
def put_reference(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """Freeze a reference from an npz of `embeddings` and `confidences`.

    Optional: `labels` with `predictions`, `detections`, `times`. 201 when it is new, 200 for the same content again,
    422 naming the array. The first is in force at once; another content is proposed, and waits for approval.
    """
    owner = registry.get_version(model, version)
    arrays = proposals.arrays_of(request.body)
    return _answer(request, owner, lambda: references.freeze(owner, **arrays))


@router.post("/models/{model}/versions/{version}/references", auth=http.scope("deploy"))
def propose_reference(request: HttpRequest, model: str, version: str, body: Wanted) -> HttpResponse:
    """Make a reference of live windows, or of the MLflow run's artifact; in force once it is approved."""
    owner = registry.get_version(model, version)
    if body.source == "mlflow":
        arrays = proposals.mlflow_arrays(owner, body.artifact)
        detail = {"artifact": body.artifact, "run": owner.mlflow_run_id}
        mlflow = Reference.Source.MLFLOW
        return _answer(
            request, owner, lambda: references.freeze(owner, **arrays, source=mlflow, detail=detail)
        )
    since, until = _moment("/from", body.since), _moment("/to", body.to)
    if since >= until:
        raise problems.field("/from", "bad_period", "from must be before to")
    return _answer(request, owner, lambda: proposals.from_windows(owner, since, until, body.segment))


def _moment(pointer: str, text: str | None) -> Any:
    if text is None:
        raise problems.field(pointer, "missing", "a period is wanted: from and to")
    try:
        return moment(text)
    except ValueError as err:
        raise problems.field(pointer, "bad_time", f"{text!r}: {err}") from None


def _answer(
    request: HttpRequest, owner: ModelVersion, make: Callable[[], tuple[Reference, bool]]
) -> HttpResponse:
    with transaction.atomic():
        reference, created = make()
        if created:
            act = "reference.freeze" if reference.state == references.ACTIVE else "reference.propose"
            detail = {name: getattr(reference, name) for name in ("number", "source", "rows", "digest")}
            audit.record(http.actor(request), act, str(owner), detail=detail)
    return JsonResponse(reference_json(reference), status=201 if created else 200)


@router.post("/models/{model}/versions/{version}/references/{int:number}/approve", auth=http.scope("deploy"))
def approve_reference(
    request: HttpRequest, model: str, version: str, number: int, body: Approval
) -> HttpResponse:
    """Put the reference in force; the one before is retired. 409 when it is in force."""
    owner = registry.get_version(model, version)
    with transaction.atomic():
        reference = references.approve(owner, number, http.actor(request), body.reason, timezone.now())
        audit.record(
            http.actor(request),
            "reference.approve",
            str(owner),
            reason=body.reason,
            detail={"number": number},
        )
    return JsonResponse(reference_json(reference))


@router.get("/models/{model}/versions/{version}/references", auth=http.scope("read", "telemetry"))
def list_references(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """The version's references, newest first."""
    owner = registry.get_version(model, version)
    rows = Reference.objects.filter(version=owner).defer("data").order_by("-number")
    return JsonResponse({"items": [reference_json(row) for row in rows]})


@router.get("/models/{model}/versions/{version}/reference", auth=http.scope("read", "telemetry"))
def get_reference(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """The numbers of the one in force, or with `Accept: application/x-npz` the arrays that a collector counts with."""
    owner = registry.get_version(model, version)
    reference = references.active(owner)
    if reference is None:
        raise problems.field("/version", "no_reference", f"{owner} has no reference", status=404)
    return _shown(request, reference)


@router.get(
    "/models/{model}/versions/{version}/references/{int:number}", auth=http.scope("read", "telemetry")
)
def get_numbered_reference(request: HttpRequest, model: str, version: str, number: int) -> HttpResponse:
    """The same of the reference with this number."""
    return _shown(request, references.find(registry.get_version(model, version), number))


def _shown(request: HttpRequest, reference: Reference) -> HttpResponse:
    if request.headers.get("Accept", "").partition(";")[0].strip() == NPZ:
        response = HttpResponse(bytes(reference.data), content_type=NPZ)
    else:
        response = JsonResponse(reference_json(reference))
    response["ETag"] = f'"{reference.digest}"'
    return response


def reference_json(reference: Reference) -> dict[str, Any]:
    """A reference as the API shows it."""
    return {
        "number": reference.number,
        "state": reference.state,
        "source": reference.source,
        "source_detail": reference.source_detail,
        "rows": reference.rows,
        "dimensions": reference.dimensions,
        "components": reference.components,
        "bins": reference.bins,
        "max_bin_mass": reference.max_bin_mass,
        "digest": reference.digest,
        "created_at": reference.created_at,
        "approved_by": reference.approved_by,
        "approved_at": reference.approved_at,
        "reason": reference.reason,
    }
