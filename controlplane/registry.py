"""Which versions of which models exist? Register and look up; a version never changes what it contains."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from django.db import transaction

from controlplane import audit, problems
from controlplane.models import NAME_PATTERN, Model, ModelVersion

DIGEST_PATTERN = re.compile(r"^[0-9a-f]{64}$")
NAME_RULE = "1-63 characters: a-z, 0-9, '.', '_', '-'; starts with a letter or digit"


def valid_name(name: str) -> bool:
    """Whether `name` may name a model, version, fleet or channel."""
    return re.fullmatch(NAME_PATTERN, name) is not None


def check_name(name: str, pointer: str) -> None:
    """Refuse a bad name with a problem at `pointer`."""
    if not valid_name(name):
        raise problems.field(pointer, "bad_name", f"{name!r} is not a name: {NAME_RULE}")


def create_model(
    *, name: str, task: str = Model.Task.CLASSIFICATION, description: str = "", actor: str
) -> tuple[Model, bool]:
    """Make a model; the same name and task again returns the one there is, another task is a 409."""
    check_name(name, "/name")
    if task not in Model.Task.values:
        raise problems.field(
            "/task", "unknown_task", f"no task {task!r}; there are {', '.join(Model.Task.values)}"
        )
    with transaction.atomic():
        model, created = Model.objects.get_or_create(
            name=name, defaults={"task": task, "description": description}
        )
        if created:
            audit.record(actor, "model.create", name)
    if model.task != task:
        raise problems.field(
            "/task", "task_differs", f"model {name!r} exists with task {model.task!r}", status=409
        )
    return model, created


def get_model(name: str, pointer: str = "/model") -> Model:
    """The model of that name; a 404 problem at `pointer` when there is none."""
    model = Model.objects.filter(name=name).first()
    if model is None:
        raise problems.field(pointer, "unknown_model", f"no model {name!r}", status=404)
    return model


def get_version(
    model_name: str, version_name: str, pointer_model: str = "/model", pointer_version: str = "/version"
) -> ModelVersion:
    """The version of a model; a 404 problem that names whichever of the two is unknown."""
    version = (
        ModelVersion.objects.select_related("model", "parent")
        .filter(model__name=model_name, name=version_name)
        .first()
    )
    if version is None:
        get_model(model_name, pointer_model)
        raise problems.field(
            pointer_version,
            "unknown_version",
            f"model {model_name!r} has no version {version_name!r}",
            status=404,
        )
    return version


def register(
    *,
    model: Model,
    version: str,
    artifact_uri: str,
    digest: str,
    actor: str,
    now: datetime,
    mlflow_run_id: str = "",
    precision: str = ModelVersion.Precision.FP32,
    device: str = ModelVersion.Device.CPU,
    parent: str = "",
    bundle: Mapping[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    requested_plan: str = "",
    requested_fleet: str = "",
) -> tuple[ModelVersion, bool]:
    """Register one version; return it and whether it is new.

    The same name and digest again returns the one there is, unchanged; the same name with another digest is
    a 409 at /digest; another name for a known digest is a new version. `parent` names the version
    of the same model that this one is a variant of.
    """
    check_name(version, "/version")
    if not DIGEST_PATTERN.fullmatch(digest):
        raise problems.field("/digest", "bad_digest", "a sha256 in 64 lower-case hexadecimal digits")
    if not urlsplit(artifact_uri).scheme:
        raise problems.field(
            "/artifact_uri", "bad_uri", "a URI with a scheme, e.g. file:///srv/bundles/v2 or models:/m/2"
        )
    made_from = get_version(model.name, parent, pointer_version="/variant/parent") if parent else None
    with transaction.atomic():
        row, created = ModelVersion.objects.select_related("model", "parent").get_or_create(
            model=model,
            name=version,
            defaults={
                "artifact_uri": artifact_uri,
                "digest": digest,
                "mlflow_run_id": mlflow_run_id,
                "precision": precision,
                "device": device,
                "parent": made_from,
                "bundle": dict(bundle or {}),
                "metadata": dict(metadata or {}),
                "requested_plan": requested_plan,
                "requested_fleet": requested_fleet,
                "created_at": now,
            },
        )
        if created:
            audit.record(actor, "version.register", str(row), detail={"digest": digest})
    if row.digest != digest:
        raise problems.field(
            "/digest",
            "digest_differs",
            f"{row} is registered with digest {row.digest}; a version is immutable, choose another name",
            status=409,
        )
    return row, created
