"""What comes in: reports and the windows they add up to, predictions."""

from __future__ import annotations

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import ModelVersion


class Purpose(models.TextChoices):
    """Why a request reached a server. Only live requests are evidence."""

    LIVE = "live"
    PINNED = "pinned"
    SHADOW = "shadow"


class Report(models.Model):
    """One collector report as it came, stored once per (reporter, sequence) until it is folded into windows."""

    reporter = models.UUIDField()
    sequence = models.PositiveBigIntegerField()
    received_at = models.DateTimeField(default=timezone.now)
    body = models.BinaryField()
    folded_at = models.DateTimeField(null=True, blank=True)
    late = models.BooleanField(default=False)  # skew beyond 5 minutes: kept out of rollout evidence
    imported = models.BooleanField(default=False)  # history, of whatever age: shown, never rollout evidence

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["reporter", "sequence"], name="report_once_per_sequence")
        ]
        indexes = [
            models.Index(fields=["received_at"], condition=Q(folded_at__isnull=True), name="report_unfolded")
        ]

    def __str__(self) -> str:
        return f"{self.reporter} {self.sequence}"


class Reporting(models.Model):
    """Who reported live counts of one interval, as one transaction folded them. Rows of an interval add up to all."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    fleet = models.CharField(max_length=63, blank=True, default="")
    start = models.DateTimeField()
    end = models.DateTimeField()
    reporters = ArrayField(models.UUIDField())

    class Meta:
        indexes = [models.Index(fields=["version", "start"], name="reporting_by_version_time")]

    def __str__(self) -> str:
        return f"{self.version} {self.start:%H:%M:%S}: {len(self.reporters)}"


class Window(models.Model):
    """Counts of predictions of one version and segment over one interval. Windows add up exactly."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="windows")
    purpose = models.CharField(max_length=8, choices=Purpose.choices, default=Purpose.LIVE)
    segment = models.JSONField(default=dict)
    segment_key = models.CharField(max_length=255, default="")  # canonical text of `segment`, for uniqueness
    start = models.DateTimeField()
    end = models.DateTimeField()
    reference_digest = models.CharField(max_length=64, blank=True, default="")
    fleet = models.CharField(max_length=63, blank=True, default="")  # as its reporters say; empty: unknown
    n = models.PositiveBigIntegerField()
    errors = models.PositiveBigIntegerField()
    errors_by_key_bucket = models.BinaryField(default=b"")
    confidence = models.BinaryField(default=b"")  # packed counts, see davy.wire
    latency = models.BinaryField(default=b"")
    detections = models.BinaryField(default=b"")
    embedding = models.BinaryField(default=b"")
    folded_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "purpose", "segment_key", "reference_digest", "fleet", "start", "end"],
                name="one_window_per_version_segment_interval",
            )
        ]
        indexes = [models.Index(fields=["version", "start"], name="window_by_version_time")]

    def __str__(self) -> str:
        return f"{self.version} {self.start:%H:%M:%S} n={self.n}"


class Prediction(models.Model):
    """One image's result, posted raw by a small user or sampled by a collector for labeling."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="predictions")
    request_id = models.CharField(max_length=128)
    at = models.DateTimeField()
    received_at = models.DateTimeField(default=timezone.now)
    purpose = models.CharField(max_length=8, choices=Purpose.choices, default=Purpose.LIVE)
    confidence = models.FloatField(null=True, blank=True)
    label = models.CharField(max_length=255, blank=True, default="")
    probabilities = models.JSONField(null=True, blank=True)
    detections = models.JSONField(null=True, blank=True)
    embedding = models.BinaryField(default=b"")  # little-endian float32
    segment = models.JSONField(default=dict)
    latency_ms = models.FloatField(null=True, blank=True)
    error = models.TextField(blank=True, default="")
    image = models.TextField(blank=True, default="")
    key = models.CharField(max_length=255, blank=True, default="")
    sampler = models.CharField(
        max_length=32, blank=True, default=""
    )  # empty: a raw prediction, to be counted
    inclusion_probability = models.FloatField(null=True, blank=True)
    stratum = models.CharField(max_length=32, blank=True, default="")
    counted_at = models.DateTimeField(null=True, blank=True)
    routed_at = models.DateTimeField(null=True, blank=True)  # labeling has looked at it
    paired_at = models.DateTimeField(
        null=True, blank=True
    )  # a mirrored one: compared with stable's answer, or given up

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "request_id", "sampler"], name="prediction_once_per_version"
            )
        ]
        indexes = [
            models.Index(
                fields=["received_at"],
                condition=Q(counted_at__isnull=True, sampler=""),
                name="prediction_uncounted",
            ),
            models.Index(fields=["id"], condition=Q(routed_at__isnull=True), name="prediction_unrouted"),
            models.Index(
                fields=["version", "id"],
                condition=Q(paired_at__isnull=True, purpose="shadow"),
                name="prediction_unpaired",
            ),
            models.Index(
                fields=["version", "at"], condition=Q(sampler="measure"), name="prediction_measured"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.version} {self.request_id}"
