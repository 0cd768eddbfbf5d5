"""The facts of labeling: tasks with their provenance, leases, annotations."""

from __future__ import annotations

import uuid

from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import Model, ModelVersion, User


class Task(models.Model):
    """One image to label, with where it came from and the probability with which it was drawn."""

    class Budget(models.TextChoices):
        IMPROVE = "improve"
        MEASURE = "measure"

    class State(models.TextChoices):
        OPEN = "open"
        DONE = "done"
        SKIPPED = "skipped"

    model = models.ForeignKey(Model, on_delete=models.CASCADE, related_name="tasks")
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="tasks")
    request_id = models.CharField(max_length=128)
    requested_at = models.DateTimeField()
    budget = models.CharField(max_length=8, choices=Budget.choices)
    sampler = models.CharField(max_length=32)
    inclusion_probability = models.FloatField(null=True, blank=True)
    stratum = models.CharField(max_length=32, blank=True, default="")
    segment = models.JSONField(default=dict)
    image = models.TextField()
    suggestion = models.JSONField(default=dict)  # {"label", "confidence", "probabilities"}
    why = models.TextField()
    priority = models.FloatField(default=0)  # highest first
    overlap = models.PositiveSmallIntegerField(default=1)
    state = models.CharField(max_length=8, choices=State.choices, default=State.OPEN)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    closed_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "request_id", "sampler"], name="one_task_per_request_and_sampler"
            )
        ]
        indexes = [
            models.Index(
                fields=["model", "budget", "-priority", "id"], condition=Q(state="open"), name="task_next"
            )
        ]

    def __str__(self) -> str:
        return f"task {self.pk}: {self.version} {self.request_id}"


class Lease(models.Model):
    """One annotator's hold on one task. `token` fences off late submissions."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="leases")
    annotator = models.ForeignKey(User, on_delete=models.CASCADE, related_name="leases")
    token = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    leased_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField()
    returned_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["task", "annotator"], name="nobody_gets_the_same_task_twice")
        ]

    def __str__(self) -> str:
        return f"{self.annotator} holds task {self.task_id} until {self.expires_at:%H:%M:%S}"


class Annotation(models.Model):
    """One annotator's answer to one task."""

    task = models.ForeignKey(Task, on_delete=models.CASCADE, related_name="annotations")
    annotator = models.ForeignKey(User, on_delete=models.CASCADE, related_name="annotations")
    lease = models.OneToOneField(Lease, on_delete=models.PROTECT, related_name="annotation")
    label = models.CharField(max_length=255, blank=True, default="")
    skipped = models.BooleanField(default=False)
    reason = models.TextField(blank=True, default="")
    seconds = models.FloatField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["task", "annotator"], name="one_annotation_per_task_and_annotator"
            )
        ]

    def __str__(self) -> str:
        return f"task {self.task_id}: {self.label or 'skipped'}"
