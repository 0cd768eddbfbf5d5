"""The facts of a rollout: where it stands, what happened, and the evidence every verdict was made from."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import Fleet, ModelVersion, Route, name_validator

UNDER_WAY = ("running", "paused", "held", "promoting", "watching", "rolling_back")
ACTIVE = ("pending", *UNDER_WAY)


class Waves(models.Model):
    """One version on its way to several fleets, wave after wave."""

    class State(models.TextChoices):
        RUNNING = "running"
        PROMOTED = "promoted"
        ROLLED_BACK = "rolled_back"
        ABORTED = "aborted"

    version = models.ForeignKey(ModelVersion, on_delete=models.PROTECT, related_name="waves")
    plan_name = models.CharField(max_length=63)
    plan = models.JSONField()
    fleets = models.JSONField()  # [["edge-1"], ["edge-2", "edge-3"]]
    wave = models.PositiveIntegerField(default=0)
    state = models.CharField(max_length=12, choices=State.choices, default=State.RUNNING)
    reason = models.TextField(blank=True, default="")
    actor = models.CharField(max_length=150)
    started_at = models.DateTimeField(default=timezone.now)
    ended_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"waves {self.pk}: {self.version} ({self.state})"


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
    started_by = models.CharField(max_length=150, blank=True, default="")
    waves = models.ForeignKey(Waves, on_delete=models.PROTECT, null=True, blank=True, related_name="rollouts")
    wave = models.PositiveIntegerField(null=True, blank=True)
    plan_name = models.CharField(max_length=63)
    plan = models.JSONField()  # frozen at the start: an edited plan applies to the next rollout
    direct = models.BooleanField(default=False)  # back to a version that was stable a short while ago
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
    sources = models.JSONField(
        default=dict
    )  # how far each source of evidence was read: see rollout.evidence.sources
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


class StoredPlan(models.Model):
    """One edit of a plan that somebody made. An edit makes a new number; nothing is overwritten."""

    name = models.CharField(max_length=63, validators=[name_validator])
    number = models.PositiveIntegerField()
    body = models.JSONField()  # as it was given: rollout.plan reads it
    created_at = models.DateTimeField(default=timezone.now)
    created_by = models.CharField(max_length=150)
    retired_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name", "number"], name="a_number_of_a_plan_is_written_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="plans_are_numbered_from_1"),
        ]

    def __str__(self) -> str:
        return f"plan {self.name} ({self.number})"


class KeptJudgement(models.Model):
    """A judgement whose state Davy keeps, for tools that cannot send it along (Argo Rollouts, Flagger)."""

    actor = models.CharField(max_length=150)
    key = models.CharField(max_length=255)
    state = models.JSONField()
    updated_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["actor", "key"], name="a_judgement_is_kept_once_per_actor")
        ]

    def __str__(self) -> str:
        return f"judgement {self.key}"


class Approval(models.Model):
    """What one person said to one step of a rollout; the last word counts."""

    class Decision(models.TextChoices):
        APPROVE = "approve"
        REJECT = "reject"

    rollout = models.ForeignKey(Rollout, on_delete=models.CASCADE, related_name="approvals")
    step = (
        models.PositiveIntegerField()
    )  # the step that may be entered; the number of the plan's steps: promotion
    actor = models.CharField(max_length=150)
    decision = models.CharField(max_length=7, choices=Decision.choices)
    reason = models.TextField()
    at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["rollout", "step", "actor"], name="one_decision_per_person_and_step"
            )
        ]
        ordering = ["at", "id"]

    def __str__(self) -> str:
        return f"{self.actor}: {self.decision}"


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


class Purge(models.Model):
    """A cache epoch that ended: what served the old version's answers is told until it has heard."""

    route = models.ForeignKey(Route, on_delete=models.CASCADE, related_name="purges")
    epoch = models.PositiveIntegerField()  # the new one
    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    at = models.DateTimeField()
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    done_at = models.DateTimeField(null=True, blank=True)
    answer = models.TextField(blank=True, default="")

    class Meta:
        constraints = [models.UniqueConstraint(fields=["route", "epoch"], name="one_purge_per_epoch")]

    def __str__(self) -> str:
        return f"purge of {self.route} epoch {self.epoch}"


class EnvoyKind(models.TextChoices):
    """What an Envoy asks for."""

    CLUSTERS = "clusters"
    ROUTES = "routes"


class EnvoyResource(models.Model):
    """What the Envoys of a fleet are told when they ask: the answer as it goes over the wire."""

    fleet = models.ForeignKey(Fleet, on_delete=models.CASCADE, related_name="envoy_resources")
    kind = models.CharField(max_length=8, choices=EnvoyKind.choices)
    version = models.CharField(max_length=16)  # a hash of the contents
    body = models.TextField()
    set_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["fleet", "kind"], name="one_envoy_resource_per_fleet_and_kind")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.version} of {self.fleet}"


class EnvoyNode(models.Model):
    """What one Envoy said when it last asked: the version that it has, or one that it refuses and why."""

    fleet = models.ForeignKey(Fleet, on_delete=models.CASCADE, related_name="envoy_nodes")
    kind = models.CharField(max_length=8, choices=EnvoyKind.choices)
    node_id = models.CharField(max_length=128)
    version = models.CharField(max_length=64, blank=True, default="")
    refused_version = models.CharField(max_length=16, blank=True, default="")
    refusal = models.TextField(blank=True, default="")
    seen_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["fleet", "kind", "node_id"], name="each_envoy_once_per_kind")
        ]

    def __str__(self) -> str:
        return f"{self.node_id}: {self.kind} {self.version}"
