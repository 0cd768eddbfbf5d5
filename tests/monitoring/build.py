"""Rows that the monitoring tests start from."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from davy import counting, wire

from controlplane.models import Model, ModelVersion
from monitoring.models import Report

T0 = datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC)


def version(model: str = "products", name: str = "v1") -> ModelVersion:
    """A registered version."""
    found, _ = Model.objects.get_or_create(name=model)
    return ModelVersion.objects.create(model=found, name=name, artifact_uri="file:///v1", digest="0" * 64)


def window(rng: np.random.Generator, n: int = 100, **fields: Any) -> wire.WindowCounts:
    """Counts of n predictions with confidences and latencies, 3 errors among them."""
    buckets = np.bincount(rng.integers(16, size=3), minlength=16)
    return wire.WindowCounts(
        **{
            "n": n,
            "errors": 3,
            "errors_by_key_bucket": buckets,
            "confidence": counting.count_confidence(rng.random(n - 3)),
            "latency": counting.count_latency(rng.exponential(0.01, n - 3)),
            **fields,
        }
    )


def report(
    of: ModelVersion, windows: list[wire.WindowCounts], start: datetime = T0, seconds: int = 10, **fields: Any
) -> wire.Report:
    """A report of one interval, sent when it closed."""
    end = start + timedelta(seconds=seconds)
    return wire.Report(
        **{
            "reporter": str(uuid.uuid4()),
            "sequence": 1,
            "sent_at": end.timestamp(),
            "model": of.model.name,
            "version": of.name,
            "reference_digest": "",
            "start": start.timestamp(),
            "end": end.timestamp(),
            "windows": windows,
            **fields,
        }
    )


def store(report: wire.Report, received_at: datetime | None = None) -> Report:
    """The report as ingest would have stored it."""
    return Report.objects.create(
        reporter=report.reporter,
        sequence=report.sequence,
        received_at=received_at or datetime.fromtimestamp(report.sent_at, UTC),
        body=wire.encode_report(report),
    )
