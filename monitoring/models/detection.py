"""What detectors remember and find: states, findings, calibrations, episodes."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import Alert, ModelVersion


class DetectorState(models.Model):
    """What one detector remembers of one version between evaluations."""

    class Status(models.TextChoices):
        STABLE = "STABLE"
        DRIFTED = "DRIFTED"
        TOO_FEW = "TOO_FEW"

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="detector_states")
    detector = models.CharField(max_length=32)
    status = models.CharField(max_length=8, choices=Status.choices, default=Status.TOO_FEW)
    reason = models.TextField(blank=True, default="")
    state = models.JSONField(default=dict)
    result = models.JSONField(default=dict)  # numbers of the latest evaluation, with their n and times
    evaluated_until = models.DateTimeField(
        null=True, blank=True
    )  # the claim: end of the last interval evaluated

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "detector"], name="one_state_per_version_and_detector")
        ]

    def __str__(self) -> str:
        return f"{self.detector} on {self.version}: {self.status}"


class Finding(models.Model):
    """A change of a detector's answer."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="findings")
    detector = models.CharField(max_length=32)
    at = models.DateTimeField(default=timezone.now)
    status = models.CharField(max_length=8, choices=DetectorState.Status.choices)
    reason = models.TextField()
    result = models.JSONField(default=dict)
    alert = models.ForeignKey(
        Alert, on_delete=models.SET_NULL, null=True, blank=True, related_name="findings"
    )

    class Meta:
        indexes = [models.Index(fields=["version", "-at"], name="finding_latest")]

    def __str__(self) -> str:
        return f"{self.detector} on {self.version}: {self.status}"


class Family(models.TextChoices):
    """What is calibrated together, with one budget of false alarms."""

    EMBEDDING = "embedding"
    CONFIDENCE = "confidence"
    DETECTIONS = "detections"


class Calibration(models.Model):
    """A version's own natural variation, as hourly history showed it; a new one is numbered, old ones stay."""

    class State(models.TextChoices):
        LEARNING = "learning"
        ACTIVE = "active"
        PROPOSED = "proposed"  # would move an unapproved trend into the baseline: waits for a person
        RETIRED = "retired"

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="calibrations")
    family = models.CharField(max_length=16, choices=Family.choices)
    reference_digest = models.CharField(max_length=64, blank=True, default="")
    segment_key = models.CharField(max_length=255, blank=True, default="")
    number = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=8, choices=State.choices)
    made_at = models.DateTimeField(default=timezone.now)
    history_from = models.DateTimeField(null=True, blank=True)
    history_until = models.DateTimeField(null=True, blank=True)
    hours = models.PositiveIntegerField(default=0)  # with enough rows
    limits = models.JSONField(default=dict)
    data = models.BinaryField(default=b"")  # npz: see monitoring.statistics.calibration
    approved_by = models.CharField(max_length=255, blank=True, default="")
    approved_at = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "family", "segment_key", "number"], name="one_calibration_per_number"
            ),
            models.UniqueConstraint(
                fields=["version", "family", "segment_key"],
                condition=Q(state="active"),
                name="one_calibration_in_force",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.family} of {self.version}, calibration {self.number}: {self.state}"


class Episode(models.Model):
    """One run of alarms of a family: alarms less than six quiet hours apart are one."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="episodes")
    family = models.CharField(max_length=16, choices=Family.choices)
    segment_key = models.CharField(max_length=255, blank=True, default="")
    began = models.DateTimeField()
    last = models.DateTimeField()  # the last hour that fired
    ended = models.DateTimeField(null=True, blank=True)
    statistic = models.CharField(max_length=32)
    value = models.FloatField()
    limit = models.FloatField()
    attribution = models.JSONField(default=dict)
    alert = models.ForeignKey(Alert, on_delete=models.SET_NULL, null=True, blank=True, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "family", "segment_key"],
                condition=Q(ended__isnull=True),
                name="one_open_episode",
            )
        ]
        indexes = [models.Index(fields=["version", "-began"], name="episode_latest")]

    def __str__(self) -> str:
        return f"{self.family} of {self.version} since {self.began:%Y-%m-%d %H:%M}"
