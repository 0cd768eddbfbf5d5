"""The facts of monitoring: references, reports, windows, predictions, detector states, findings, outcomes, pairs."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import Alert, ModelVersion


class Reference(models.Model):
    """The frozen picture of a version's normal output."""

    version = models.OneToOneField(ModelVersion, on_delete=models.CASCADE, related_name="reference")
    rows = models.PositiveIntegerField()
    dimensions = models.PositiveIntegerField()
    components = models.PositiveIntegerField()
    bins = models.PositiveIntegerField()
    max_bin_mass = models.FloatField()
    digest = models.CharField(max_length=64)
    data = models.BinaryField()  # npz: see monitoring.references
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    def __str__(self) -> str:
        return f"reference of {self.version}"


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

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["reporter", "sequence"], name="report_once_per_sequence")
        ]
        indexes = [
            models.Index(fields=["received_at"], condition=Q(folded_at__isnull=True), name="report_unfolded")
        ]

    def __str__(self) -> str:
        return f"{self.reporter} {self.sequence}"


class Window(models.Model):
    """Counts of predictions of one version and segment over one interval. Windows add up exactly."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="windows")
    purpose = models.CharField(max_length=8, choices=Purpose.choices, default=Purpose.LIVE)
    segment = models.JSONField(default=dict)
    segment_key = models.CharField(max_length=255, default="")  # canonical text of `segment`, for uniqueness
    start = models.DateTimeField()
    end = models.DateTimeField()
    reporters = models.JSONField(default=list)
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


class Outcome(models.Model):
    """Ground truth about one request, written by labeling and read by the accuracy gate and chart."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="outcomes")
    request_id = models.CharField(max_length=128)
    requested_at = models.DateTimeField()
    arm = models.CharField(
        max_length=8, blank=True, default=""
    )  # stable or canary at the time of the request
    stratum = models.CharField(max_length=32, blank=True, default="")
    wrong = models.BooleanField()
    sampler = models.CharField(max_length=32)
    inclusion_probability = models.FloatField(null=True, blank=True)
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["version", "request_id", "sampler"], name="one_outcome_per_request"
            ),
            models.CheckConstraint(
                condition=Q(inclusion_probability__isnull=True)
                | (Q(inclusion_probability__gt=0) & Q(inclusion_probability__lte=1)),
                name="outcome_probability_in_0_1",
            ),
        ]
        indexes = [models.Index(fields=["version", "requested_at"], name="outcome_by_request")]

    def __str__(self) -> str:
        return f"{self.version} {self.request_id}: {'wrong' if self.wrong else 'right'}"


class ShadowDraw(models.Model):
    """While live requests of `stable` are mirrored to `version`: the share of them that both collectors sample."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    stable = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    share = models.FloatField()
    until = models.DateTimeField()  # asked for again and again; ends by itself

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "stable"], name="one_shadow_draw_per_pair_of_versions")
        ]

    def __str__(self) -> str:
        return f"{self.version} beside {self.stable}: {self.share:g}"


class ShadowPair(models.Model):
    """One live request that was mirrored: what stable answered and what the canary would have."""

    version = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="shadow_pairs")
    stable = models.ForeignKey(ModelVersion, on_delete=models.CASCADE, related_name="+")
    request_id = models.CharField(max_length=128)
    at = models.DateTimeField()  # of the request
    matched_at = models.DateTimeField()
    stable_label = models.CharField(max_length=255, blank=True, default="")  # of detections: "2 hat, 1 shoe"
    stable_confidence = models.FloatField(null=True, blank=True)
    canary_label = models.CharField(max_length=255, blank=True, default="")
    canary_confidence = models.FloatField(null=True, blank=True)
    agreed = models.BooleanField(null=True, blank=True)  # null: neither labels nor detections on both sides
    iou = models.FloatField(
        null=True, blank=True
    )  # of matched boxes, on average; null: no boxes were compared
    cosine = models.FloatField(null=True, blank=True)  # null: not both sent an embedding
    inclusion_probability = models.FloatField()
    image = models.TextField(blank=True, default="")
    segment = models.JSONField(default=dict)
    truth = models.CharField(max_length=255, blank=True, default="")
    truth_at = models.DateTimeField(null=True, blank=True)
    routed_at = models.DateTimeField(null=True, blank=True)  # labeling has looked at it

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["version", "request_id"], name="one_shadow_pair_per_request"),
            models.CheckConstraint(
                condition=Q(inclusion_probability__gt=0) & Q(inclusion_probability__lte=1),
                name="shadow_pair_probability_in_0_1",
            ),
        ]
        indexes = [
            models.Index(fields=["version", "stable", "at"], name="shadow_pair_by_request"),
            models.Index(fields=["version", "stable", "matched_at"], name="shadow_pair_by_match"),
            models.Index(
                fields=["id"], condition=Q(routed_at__isnull=True, agreed=False), name="shadow_pair_unrouted"
            ),
        ]

    def __str__(self) -> str:
        said = {True: "agree", False: "disagree", None: "are not compared"}[self.agreed]
        return f"{self.stable} and {self.version} {said} on {self.request_id}"
