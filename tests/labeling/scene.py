"""What the labeling tests start from: a model with a version, annotators, predictions and tasks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from controlplane.models import Model, ModelVersion, User
from labeling.models import Task
from monitoring.models import Prediction

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_version(model: str = "products", name: str = "v1", **fields: Any) -> ModelVersion:
    row, _ = Model.objects.get_or_create(name=model)
    return ModelVersion.objects.create(
        model=row, name=name, artifact_uri="file:///v1", digest="0" * 64, **fields
    )


def an_annotator(name: str = "ann") -> User:
    return User.objects.create_user(name, role="annotator")


def predictions(version: ModelVersion, count: int, **fields: Any) -> list[Prediction]:
    """`count` raw predictions of confidence .47 with an image, unless `fields` say otherwise."""
    start = Prediction.objects.count()
    values: dict[str, Any] = {"confidence": 0.47, "label": "shoe", "image": "https://images.test/1.png"}
    values.update(fields)
    return Prediction.objects.bulk_create(
        Prediction(version=version, request_id=f"r{start + i}", at=NOW, **values) for i in range(count)
    )


def tasks(version: ModelVersion, count: int, **fields: Any) -> list[Task]:
    """`count` open improve tasks of priority 0, unless `fields` say otherwise."""
    start = Task.objects.count()
    values: dict[str, Any] = {
        "budget": "improve",
        "sampler": "band",
        "image": "https://images.test/1.png",
        "suggestion": {"label": "shoe", "confidence": 0.47, "probabilities": None},
        "why": "confidence .47 is between .30 and .60",
    }
    values.update(fields)
    return Task.objects.bulk_create(
        Task(model=version.model, version=version, request_id=f"t{start + i}", requested_at=NOW, **values)
        for i in range(count)
    )
