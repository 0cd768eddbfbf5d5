"""JSON for references: freeze one, read it, or the arrays that a collector counts with."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Router

from controlplane import audit, http, problems, registry
from monitoring import npz, references
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
