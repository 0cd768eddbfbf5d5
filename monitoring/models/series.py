"""What windows add up to over time: minutes, hours, days; the segments there are; totals that never shrink."""

from __future__ import annotations

import uuid

from django.db import models
from django.utils import timezone

from controlplane.models import Model, ModelVersion


class Rollup(models.Model):
    """Windows of one version, purpose, segment and fleet added up over a minute, an hour or a day, exactly."""

    class Source(models.TextChoices):
        LIVE = "live"
        LATE = "late"
        PINNED = "pinned"
        SHADOW = "shadow"
        IMPORT = "import"

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="rollups")
    purpose = models.CharField(max_length=8, choices=Source.choices, default=Source.LIVE)
    segment = models.JSONField(default=dict)
    segment_key = models.CharField(max_length=255, default="")
    reference_digest = models.CharField(max_length=64, blank=True, default="")
    fleet = models.CharField(max_length=63, blank=True, default="")
    start = models.DateTimeField()
    seconds = models.PositiveIntegerField()  # 60, 3600 or 86400
    n = models.PositiveBigIntegerField()
    errors = models.PositiveBigIntegerField()
    errors_by_key_bucket = models.BinaryField(default=b"")
    confidence = models.BinaryField(default=b"")  # packed counts, see davy.wire
    latency = models.BinaryField(default=b"")
    detections = models.BinaryField(default=b"")
    embedding = models.BinaryField(default=b"")
    embedded = models.PositiveBigIntegerField(default=0)  # embeddings that score_sums add up
    score_sums = models.BinaryField(default=b"")  # float64 (2(k+1),): sums of the embedding's normal scores
    rolled_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=[
                    "version",
                    "purpose",
                    "segment_key",
                    "reference_digest",
                    "fleet",
                    "seconds",
                    "start",
                ],
                name="one_rollup_per_version_segment_interval",
            )
        ]
        indexes = [models.Index(fields=["version", "seconds", "start"], name="rollup_by_version_time")]

    def __str__(self) -> str:
        return f"{self.version} {self.start:%Y-%m-%d %H:%M} {self.seconds} s n={self.n}"


class Unrolled(models.Model):
    """A mark: the windows of this minute, hour or day have changed since it was rolled up, or it never was."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    seconds = models.PositiveIntegerField()
    start = models.DateTimeField()
    touched = models.UUIDField(default=uuid.uuid4)  # another one at every change

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "seconds", "start"], name="one_mark_per_interval")
        ]

    def __str__(self) -> str:
        return f"{self.version} {self.start:%Y-%m-%d %H:%M} {self.seconds} s"


class Segment(models.Model):
    """One combination of segment values that a model's telemetry has named; their number is bounded."""

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="segments")
    key = models.CharField(max_length=255)
    values = models.JSONField(default=dict)
    first_seen = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "key"], name="one_segment_per_model_and_key")]

    def __str__(self) -> str:
        return f"{self.model} {self.key}"


class VersionTotal(models.Model):
    """All that one version ever did on one fleet: counters for Prometheus, which must never shrink."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="totals")
    fleet = models.CharField(max_length=63, blank=True, default="")
    n = models.PositiveBigIntegerField(default=0)
    errors = models.PositiveBigIntegerField(default=0)
    confidence = models.BinaryField(default=b"")
    detections = models.BinaryField(default=b"")
    updated_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "fleet"], name="one_total_per_version_and_fleet")
        ]

    def __str__(self) -> str:
        return f"{self.version} on {self.fleet or 'an unknown fleet'}: {self.n}"
