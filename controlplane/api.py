"""JSON for models and their versions."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import Field

from controlplane import audit, http, registry
from controlplane.models import Model, ModelVersion

router = Router()


class NewModel(http.Body):
    """POST /models."""

    name: str
    task: Literal["classification", "detection", "embedding"] = "classification"
    description: str = ""


class Variant(http.Body):
    """How a version is built, and the version of the same model that it was made from."""

    precision: Literal["fp32", "fp16", "int8"] = "fp32"
    device: Literal["gpu", "cpu", "mobile"] = "cpu"
    parent: str = ""


class NewVersion(http.Body):
    """POST /models/{model}/versions."""

    version: str
    artifact_uri: str
    digest: str
    mlflow_run_id: str = Field(default="", max_length=64)
    variant: Variant = Variant()
    bundle: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class VersionChanges(http.Body):
    """PATCH /models/{model}/versions/{version}: metadata is all that may change."""

    metadata: dict[str, Any]


def model_json(model: Model) -> dict[str, Any]:
    """A model as REST shows it."""
    return {
        "name": model.name,
        "task": model.task,
        "description": model.description,
        "created_at": model.created_at,
    }


def version_json(version: ModelVersion) -> dict[str, Any]:
    """A version as REST shows it."""
    return {
        "model": version.model.name,
        "version": version.name,
        "artifact_uri": version.artifact_uri,
        "digest": version.digest,
        "mlflow_run_id": version.mlflow_run_id,
        "variant": {
            "precision": version.precision,
            "device": version.device,
            "parent": version.parent.name if version.parent else "",
        },
        "bundle": version.bundle,
        "metadata": version.metadata,
        "requested_plan": version.requested_plan,
        "requested_fleet": version.requested_fleet,
        "retired_at": version.retired_at,
        "created_at": version.created_at,
    }


def etag(version: ModelVersion) -> str:
    """A strong validator of what PATCH may change."""
    text = json.dumps(version.metadata, sort_keys=True)
    return f'"{hashlib.sha256(f"{version.pk} {text}".encode()).hexdigest()[:32]}"'


def _version_answer(version: ModelVersion, status: int = 200) -> HttpResponse:
    return JsonResponse(version_json(version), status=status, headers={"ETag": etag(version)})


@router.get("/models", auth=http.scope("read"))
def list_models(request: HttpRequest) -> HttpResponse:
    """All models by name, a page at a time."""
    return http.paginate(request, Model.objects.all(), model_json, order="name")


@router.post("/models", auth=http.scope("deploy"))
def create_model(request: HttpRequest, body: NewModel) -> HttpResponse:
    """Make a model: 201, or 200 when it is there already with this task."""
    model, created = registry.create_model(**body.model_dump(), actor=http.actor(request))
    return JsonResponse(model_json(model), status=201 if created else 200)


@router.get("/models/{model}", auth=http.scope("read"))
def show_model(request: HttpRequest, model: str) -> HttpResponse:
    """One model."""
    return JsonResponse(model_json(registry.get_model(model)))


@router.get("/models/{model}/versions", auth=http.scope("read"))
def list_versions(request: HttpRequest, model: str) -> HttpResponse:
    """A model's versions, newest first."""
    rows = ModelVersion.objects.filter(model=registry.get_model(model)).select_related("model", "parent")
    return http.paginate(request, rows, version_json)


@router.post("/models/{model}/versions", auth=http.scope("deploy"))
def register_version(request: HttpRequest, model: str, body: NewVersion) -> HttpResponse:
    """Register a version: 201; the same name and digest again 200; the same name, another digest 409."""
    version, created = registry.register(
        model=registry.get_model(model),
        actor=http.actor(request),
        now=timezone.now(),
        **body.variant.model_dump(),
        **body.model_dump(exclude={"variant"}),
    )
    return _version_answer(version, 201 if created else 200)


@router.get("/models/{model}/versions/{version}", auth=http.scope("read"))
def show_version(request: HttpRequest, model: str, version: str) -> HttpResponse:
    """One version, with the ETag that a PATCH needs."""
    return _version_answer(registry.get_version(model, version))


@router.patch("/models/{model}/versions/{version}", auth=http.scope("deploy"))
def change_version(request: HttpRequest, model: str, version: str, body: VersionChanges) -> HttpResponse:
    """Replace the metadata of the version that If-Match names: 428 without it, 412 when it changed meanwhile."""
    found = registry.get_version(model, version)
    with transaction.atomic():
        row = ModelVersion.objects.select_for_update(of=("self",)).get(pk=found.pk)
        http.require_match(request, etag(row))
        row.metadata = body.metadata
        row.save(update_fields=["metadata"])
        audit.record(http.actor(request), "version.metadata", str(row), detail={"metadata": body.metadata})
    return _version_answer(row)
