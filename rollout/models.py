"""The facts of a rollout: where it stands, what happened, and the evidence every verdict was made from."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import ModelVersion, Route

UNDER_WAY = ("running", "paused", "held", "promoting", "watching", "rolling_back")
ACTIVE = ("pending", *UNDER_WAY)


class Rollout(models.Model):
    """The movement of a route from stable to a new version, by a plan of steps."""

    class State(models.TextChoices):
        PENDING = "pending"
        RUNNING = "running"
        PAUSED = "paused"
        HELD = "held"
        PROMOTING = "promoting"
        WATCHING = "watching"
        PROMOTED = "promoted"
        ROLLING_BACK = "rolling_back"
        ROLLED_BACK = "rolled_back"
        ABORTED = "aborted"
        SUPERSEDED = "superseded"
        FAILED = "failed"

    route = models.ForeignKey(Route, on_delete=models.PROTECT, related_name="rollouts")
    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="rollouts")
    stable = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    plan_name = models.CharField(max_length=63)
    plan = models.JSONField()  # frozen at the start: an edited plan applies to the next rollout
    state = models.CharField(max_length=12, choices=State.choices, default=State.PENDING)
    ending = models.CharField(max_length=12, blank=True, default="")  # what ROLLING_BACK ends as
    step = models.PositiveIntegerField(default=0)
    weight_percent = models.FloatField(default=0)
    step_entered_at = models.DateTimeField(null=True, blank=True)
    state_entered_at = models.DateTimeField(default=timezone.now)
    reason = models.TextField(blank=True, default="")
    trouble = models.TextField(blank=True, default="")  # the fleet's last refusal, until it obeys
    judge = models.JSONField(default=dict)  # serialised judge state
    gates = models.JSONField(default=list)  # latest verdict of each gate
    sources = models.JSONField(default=dict)  # how far each source of evidence was read: see rollout.evidence
    revision = models.PositiveBigIntegerField(default=0)
    leased_until = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["route"], condition=Q(state__in=UNDER_WAY), name="one_rollout_under_way_per_route"
            ),
            models.UniqueConstraint(
                fields=["route"], condition=Q(state="pending"), name="one_rollout_pending_per_route"
            ),
        ]
        indexes = [models.Index(fields=["-started_at"], name="rollout_latest")]

    def __str__(self) -> str:
        return f"rollout {self.pk}: {self.version} ({self.state})"


class RolloutEvent(models.Model):
    """One line of a rollout's log."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="events")
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=32)
    state = models.CharField(max_length=12)
    step = models.PositiveIntegerField()
    weight_percent = models.FloatField()
    actor = models.CharField(max_length=150, default="davy")
    reason = models.TextField(blank=True, default="")
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.kind}: {self.reason}"


class Evidence(models.Model):
    """Both arms' counts of one interval for one gate, used once; replaying a rollout's rows gives the same verdict."""

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="evidence")
    gate = models.CharField(max_length=32)
    source = models.CharField(max_length=16)
    start = models.DateTimeField()
    end = models.DateTimeField()
    step = models.PositiveIntegerField()
    weight_percent = models.FloatField()
    arms = models.JSONField()  # {"canary": {...}, "stable": {...}}
    log_e = models.JSONField(default=dict)  # after this interval: {"fail": .., "pass": ..}

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["rollout", "gate", "source", "start"], name="an_interval_counts_once_per_gate"
            )
        ]
        ordering = ["id"]

    def __str__(self) -> str:
        return f"{self.gate} {self.start:%H:%M:%S}"
