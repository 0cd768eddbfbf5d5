"""What is known of single requests afterwards: outcomes, and pairs of mirrored ones."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.utils import timezone

from controlplane.models import ModelVersion


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
