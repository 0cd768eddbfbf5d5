"""The facts every part of the loop stands on: models, versions, fleets, routes, people, alerts, the audit."""

from __future__ import annotations

import uuid

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.core.validators import RegexValidator
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,62}$"
name_validator = RegexValidator(
    NAME_PATTERN, "1-63 characters: a-z, 0-9, '.', '_', '-'; starts with a letter or digit"
)
digest_validator = RegexValidator(r"^[0-9a-f]{64}$", "a sha256 in 64 lower-case hexadecimal digits")


class Role(models.TextChoices):
    """What a person may do; each role includes those before it, except annotator."""

    VIEWER = "viewer"
    ANNOTATOR = "annotator"
    ENGINEER = "engineer"
    APPROVER = "approver"
    ADMIN = "admin"


class User(AbstractUser):
    """A person who signs in with a browser, or who owns tokens."""

    role = models.CharField(max_length=16, choices=Role.choices, default=Role.VIEWER)


class Model(models.Model):
    """A named task, e.g. `products`."""

    class Task(models.TextChoices):
        CLASSIFICATION = "classification"
        DETECTION = "detection"
        EMBEDDING = "embedding"

    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    task = models.CharField(max_length=20, choices=Task.choices, default=Task.CLASSIFICATION)
    description = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.name


class ModelVersion(models.Model):
    """One immutable bundle of a model. Identity is (model, name); one digest may carry several names."""

    class Precision(models.TextChoices):
        FP32 = "fp32"
        FP16 = "fp16"
        INT8 = "int8"

    class Device(models.TextChoices):
        GPU = "gpu"
        CPU = "cpu"
        MOBILE = "mobile"

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="versions")
    name = models.CharField(max_length=63, validators=[name_validator])
    artifact_uri = models.TextField()
    digest = models.CharField(max_length=64, validators=[digest_validator])
    mlflow_run_id = models.CharField(max_length=64, blank=True, default="")
    precision = models.CharField(max_length=8, choices=Precision.choices, default=Precision.FP32)
    device = models.CharField(max_length=8, choices=Device.choices, default=Device.CPU)
    parent = models.ForeignKey(
        "self", on_delete=models.PROTECT, null=True, blank=True, related_name="variants"
    )
    bundle = models.JSONField(default=dict, blank=True)
    metadata = models.JSONField(default=dict, blank=True)
    requested_plan = models.CharField(max_length=63, blank=True, default="")
    requested_fleet = models.CharField(max_length=63, blank=True, default="")
    retired_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["model", "name"], name="version_name_once_per_model")]

    def __str__(self) -> str:
        return f"{self.model.name} {self.name}"


class Fleet(models.Model):
    """Serving capacity behind one traffic driver."""

    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    driver = models.CharField(max_length=32)
    config = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.name


class Slot(models.TextChoices):
    """Where a version is loaded. Stable and canary are roles; a promotion swaps roles and copies nothing."""

    A = "a"
    B = "b"

    @property
    def other(self) -> Slot:
        return Slot.B if self is Slot.A else Slot.A


class Route(models.Model):
    """One model on one fleet: which version is stable, which is canary, and what weight is wanted and observed."""

    model = models.ForeignKey(Model, on_delete=models.PROTECT, related_name="routes")
    fleet = models.ForeignKey(Fleet, on_delete=models.PROTECT, related_name="routes")
    stable = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    stable_slot = models.CharField(max_length=1, choices=Slot.choices, default=Slot.A)
    canary = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    previous = models.ForeignKey(
        ModelVersion, on_delete=models.PROTECT, null=True, blank=True, related_name="+"
    )
    keep_warm_until = models.DateTimeField(null=True, blank=True)
    weight_percent = models.FloatField(default=0)
    observed_weight_percent = models.FloatField(null=True, blank=True)
    observed_at = models.DateTimeField(null=True, blank=True)
    cache_epoch = models.PositiveIntegerField(default=0)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["model", "fleet"], name="route_once_per_model_and_fleet"),
            models.CheckConstraint(
                condition=Q(weight_percent__gte=0) & Q(weight_percent__lte=100),
                name="route_weight_is_a_percentage",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.model.name} on {self.fleet.name}"


class Token(models.Model):
    """A bearer token `dvy_<id>_<secret>`; only the secret's SHA-256 is kept."""

    public_id = models.CharField(max_length=16, unique=True)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="tokens")
    name = models.CharField(max_length=100)
    secret_sha256 = models.CharField(max_length=64)
    scopes = ArrayField(models.CharField(max_length=16))
    fleet = models.ForeignKey(  # of a token that an Envoy carries: it opens this fleet's configuration, nothing else
        Fleet, on_delete=models.CASCADE, null=True, blank=True, related_name="tokens"
    )
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class Severity(models.TextChoices):
    """How loud an alert is, loudest first."""

    CRITICAL = "critical"
    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Alert(models.Model):
    """One open cause. A cause has at most one alert that is not resolved; the row is the outbox of its pages."""

    cause = models.CharField(max_length=255)
    severity = models.CharField(max_length=10, choices=Severity.choices)
    summary = models.TextField()
    detail = models.JSONField(default=dict, blank=True)
    model = models.ForeignKey(Model, on_delete=models.CASCADE, null=True, blank=True, related_name="alerts")
    version = models.ForeignKey(
        ModelVersion, on_delete=models.CASCADE, null=True, blank=True, related_name="alerts"
    )
    fleet = models.ForeignKey(Fleet, on_delete=models.CASCADE, null=True, blank=True, related_name="alerts")
    opened_at = models.DateTimeField(default=timezone.now)
    updated_at = models.DateTimeField(default=timezone.now)
    count = models.PositiveIntegerField(default=1)
    acknowledged_at = models.DateTimeField(null=True, blank=True)
    acknowledged_by = models.CharField(max_length=150, blank=True, default="")
    snoozed_until = models.DateTimeField(null=True, blank=True)
    resolved_at = models.DateTimeField(null=True, blank=True)
    resolution = models.TextField(blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["cause"], condition=Q(resolved_at__isnull=True), name="one_open_alert_per_cause"
            )
        ]

    def __str__(self) -> str:
        return self.summary


class Channel(models.Model):
    """Where alerts are delivered; `kind` names a pager."""

    name = models.CharField(max_length=63, unique=True, validators=[name_validator])
    kind = models.CharField(max_length=32)
    config = models.JSONField(default=dict, blank=True)
    secret = models.BinaryField(default=b"", blank=True)  # Fernet token of the pager's secret
    severities = ArrayField(
        models.CharField(max_length=10, choices=Severity.choices), default=list, blank=True
    )
    enabled = models.BooleanField(default=True)
    disabled_reason = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return self.name


class Delivery(models.Model):
    """One event of one alert to one channel: claimed, sent outside any transaction, its answer recorded."""

    class Event(models.TextChoices):
        TRIGGER = "trigger"
        ACKNOWLEDGE = "acknowledge"
        RESOLVE = "resolve"
        TEST = "test"

    class State(models.TextChoices):
        PENDING = "pending"
        SENDING = "sending"
        SENT = "sent"
        FAILED = "failed"

    message_id = models.UUIDField(default=uuid.uuid4, unique=True, editable=False)
    alert = models.ForeignKey(
        Alert, on_delete=models.CASCADE, null=True, blank=True, related_name="deliveries"
    )
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="deliveries")
    event = models.CharField(max_length=12, choices=Event.choices)
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(default=timezone.now)
    claimed_at = models.DateTimeField(null=True, blank=True)
    sent_at = models.DateTimeField(null=True, blank=True)
    answer = models.TextField(blank=True, default="")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["alert", "channel", "event"],
                condition=Q(alert__isnull=False),
                name="each_event_of_an_alert_once_per_channel",
            )
        ]
        indexes = [models.Index(fields=["state", "next_attempt_at"], name="delivery_due")]

    def __str__(self) -> str:
        return f"{self.event} to {self.channel.name}: {self.state}"


class AuditEntry(models.Model):
    """Who did what, when and why. Append-only."""

    at = models.DateTimeField(default=timezone.now, editable=False)
    actor = models.CharField(max_length=150)
    act = models.CharField(max_length=64)
    subject = models.CharField(max_length=255)
    reason = models.TextField(blank=True, default="")
    detail = models.JSONField(default=dict, blank=True)

    class Meta:
        indexes = [models.Index(F("at").desc(), name="audit_latest")]

    def __str__(self) -> str:
        return f"{self.actor} {self.act} {self.subject}"


class IdempotencyRecord(models.Model):
    """The answer once given to a POST with an Idempotency-Key."""

    actor = models.CharField(max_length=150)
    key = models.CharField(max_length=255)
    path = models.CharField(max_length=255)
    body_sha256 = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True, blank=True)  # null: in flight
    body = models.BinaryField(default=b"")
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["actor", "key"], name="idempotency_key_once_per_actor")
        ]

    def __str__(self) -> str:
        return f"{self.actor} {self.key}"
