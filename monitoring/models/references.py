"""What is normal for a version: its references, numbered; one is in force."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import ModelVersion


class Reference(models.Model):
    """A frozen picture of a version's normal output. Its arrays never change; another picture is another number."""

    class State(models.TextChoices):
        ACTIVE = "active"
        PROPOSED = "proposed"
        RETIRED = "retired"

    class Source(models.TextChoices):
        FILE = "file"
        WINDOWS = "windows"
        MLFLOW = "mlflow"

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="references")
    number = models.PositiveIntegerField(default=1)
    state = models.CharField(max_length=8, choices=State.choices, default=State.ACTIVE)
    source = models.CharField(max_length=8, choices=Source.choices, default=Source.FILE)
    source_detail = models.JSONField(default=dict)
    rows = models.PositiveIntegerField()
    dimensions = models.PositiveIntegerField()
    components = models.PositiveIntegerField()
    bins = models.PositiveIntegerField()
    max_bin_mass = models.FloatField()
    digest = models.CharField(max_length=64)
    data = models.BinaryField()  # npz: see monitoring.references
    variation = models.BinaryField(default=b"")  # float32 (2(k+1),): see statistics.natural_variation
    correct = models.BinaryField(default=b"")  # packed (2, 100): right answers, and all, by confidence bin
    detection_counts = models.BinaryField(default=b"")  # packed (64,)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    approved_by = models.CharField(max_length=255, blank=True, default="")
    approved_at = models.DateTimeField(null=True, blank=True)
    reason = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "number"], name="one_reference_per_number"),
            models.UniqueConstraint(fields=["version", "digest"], name="one_reference_per_digest"),
            models.UniqueConstraint(
                fields=["version"], condition=Q(state="active"), name="one_reference_in_force"
            ),
        ]

    def __str__(self) -> str:
        return f"reference {self.number} of {self.version}"
