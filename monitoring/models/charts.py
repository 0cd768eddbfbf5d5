"""Control charts that people have set up: their phase I, and the points that were left out of it, with reasons."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import ModelVersion


class ControlChart(models.Model):
    """The limits of one chart; recalculating makes a new number, the old ones stay as history."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="control_charts")
    kind = models.CharField(max_length=16)
    measure = models.CharField(max_length=32)
    segment_key = models.CharField(max_length=255, blank=True, default="")
    number = models.PositiveIntegerField(default=1)
    phase1_from = models.DateTimeField()
    phase1_until = models.DateTimeField()
    settings = models.JSONField(default=dict)  # sigmas, rules, λ, k, h
    made_by = models.CharField(max_length=255)
    reason = models.TextField(blank=True, default="")
    made_at = models.DateTimeField(default=timezone.now)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "kind", "measure", "segment_key", "number"], name="one_chart_per_number"
            ),
            models.UniqueConstraint(
                fields=["version", "kind", "measure", "segment_key"],
                condition=Q(retired_at__isnull=True),
                name="one_chart_in_force",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} of {self.measure} of {self.version}, number {self.number}"


class ChartExclusion(models.Model):
    """A point that a person leaves out of a measure's phase I, and why; withdrawn, not deleted."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="chart_exclusions")
    measure = models.CharField(max_length=32)
    segment_key = models.CharField(max_length=255, blank=True, default="")
    start = models.DateTimeField()
    reason = models.TextField()
    by = models.CharField(max_length=255)
    at = models.DateTimeField(default=timezone.now)
    withdrawn_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "measure", "segment_key", "start"],
                condition=Q(withdrawn_at__isnull=True),
                name="one_exclusion_per_point",
            )
        ]

    def __str__(self) -> str:
        return f"{self.measure} of {self.version} at {self.start:%Y-%m-%d %H:%M}: {self.reason}"
