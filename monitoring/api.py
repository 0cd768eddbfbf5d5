"""JSON for monitoring: references, telemetry in, drift, charts and accuracy out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router

from controlplane import audit, http, problems, registry
from monitoring import bodies, ingest, npz, references
from monitoring.models import Reference

router = Router()

NPZ = "application/x-npz"


@router.put("/models/{model}/versions/{version}/reference", auth=http.scope("deploy"))
def put_reference(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """Freeze the version's reference from an npz of `embeddings`, `confidences` and optional `labels`.

    201 when it is new, 200 for the same content again, 409 for another content, 422 naming the array.
    """
    owner = registry.get_version(model, version)
    try:
        arrays = npz.read(request.body, references.MAXIMUM_UNPACKED_BYTES)
    except ValueError as err:
        raise problems.field("", "not_npz", str(err)) from None
    for name in arrays.keys() - {"embeddings", "confidences", "labels"}:
        raise problems.field(f"/{name}", "unknown_array", f"a reference has no array {name!r}")
    for name in ("embeddings", "confidences"):
        if name not in arrays:
            raise problems.field(f"/{name}", "missing", f"the npz has no array {name!r}")
    with transaction.atomic():
        reference, created = references.freeze(owner, **arrays)
        if created:
            audit.record(
                http.actor(request), "reference.freeze", str(owner), detail=_reference_json(reference)
            )
    return JsonResponse(_reference_json(reference), status=201 if created else 200)


@router.get("/models/{model}/versions/{version}/reference", auth=http.scope("read", "telemetry"))
def get_reference(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """The reference's numbers, or with `Accept: application/x-npz` the arrays that a collector counts with."""
    owner = registry.get_version(model, version)
    reference = Reference.objects.filter(version=owner).first()
    if reference is None:
        raise problems.field("/version", "no_reference", f"{owner} has no reference", status=404)
    if request.headers.get("Accept", "").partition(";")[0].strip() == NPZ:
        response = HttpResponse(bytes(reference.data), content_type=NPZ)
    else:
        response = JsonResponse(_reference_json(reference) | {"created_at": reference.created_at})
    response["ETag"] = f'"{reference.digest}"'
    return response


def _reference_json(reference: Reference) -> dict[str, Any]:
    return {
        "rows": reference.rows,
        "dimensions": reference.dimensions,
        "components": reference.components,
        "bins": reference.bins,
        "max_bin_mass": reference.max_bin_mass,
        "digest": reference.digest,
    }


@router.post("/telemetry/windows", auth=http.scope("telemetry"))
def post_windows(request: HttpRequest) -> HttpResponse:
    """Store a collector's report (msgpack), once per (reporter, sequence); 202 after the commit."""
    answer = ingest.store_report(_body(request), timezone.now())
    return JsonResponse({"accepted": answer.accepted, "duplicate": answer.duplicate}, status=202)


@router.post("/telemetry/predictions", auth=http.scope("telemetry"))
def post_predictions(request: HttpRequest) -> HttpResponse:
    """Store up to 10,000 predictions (JSON, NDJSON or msgpack): good rows are kept, bad ones are listed."""
    rows = bodies.rows(_body(request), request.headers.get("Content-Type", ""), ingest.MAX_ROWS)
    return JsonResponse(asdict(ingest.store_predictions(rows, timezone.now())), status=202)


def _body(request: HttpRequest) -> bytes:
    return bodies.inflate(
        request.body, request.headers.get("Content-Encoding", "").lower(), settings.MAX_BODY_BYTES
    )
