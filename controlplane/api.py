"""JSON for models and versions, alerts and channels, tokens and the audit."""

from __future__ import annotations

from typing import Any, Literal

from django.http import HttpRequest, HttpResponse, JsonResponse
from ninja import Router

from controlplane import http, registry
from controlplane.models import Model

router = Router()


class NewModel(http.Body):
    """POST /models."""

    name: str
    task: Literal["classification", "detection", "embedding"] = "classification"
    description: str = ""


def model_json(model: Model) -> dict[str, Any]:
    """A model as REST shows it."""
    return {
        "name": model.name,
        "task": model.task,
        "description": model.description,
        "created_at": model.created_at,
    }


@router.get("/models", auth=http.scope("read"))
def list_models(request: HttpRequest) -> HttpResponse:
    """All models by name, a page at a time."""
    return http.paginate(request, Model.objects.all(), model_json, order="name")


@router.post("/models", auth=http.scope("deploy"))
def create_model(request: HttpRequest, body: NewModel) -> HttpResponse:
    """Make a model: 201, or 200 when it is there already."""
    model, created = registry.create_model(**body.model_dump(), actor=http.actor(request))
    return JsonResponse(model_json(model), status=201 if created else 200)


@router.get("/models/{model}", auth=http.scope("read"))
def show_model(request: HttpRequest, model: str) -> HttpResponse:
    """One model."""
    return JsonResponse(model_json(registry.get_model(model)))
