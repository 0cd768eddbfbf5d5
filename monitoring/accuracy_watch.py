"""Is a version less accurate than it was? Alert when labels exclude 99.9 % of its baseline.

The baseline is the accuracy that was posted with the version (`metadata.accuracy`), or what labels of its first thirty
days said. Every hour the labels of the last thirty days are asked for a 99 % confidence sequence, made for many looks.
An alarm says "surely worse"; everything else is no all-clear, so the reason says what could not be told and how many
labels that would need.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from controlplane import alerts
from controlplane.models import ModelVersion, Severity
from monitoring import accuracy
from monitoring.models import DetectorState, Finding, Outcome
from monitoring.statistics import accuracy as statistics
from monitoring.statistics.confidence_sequence import CONFIDENCE, LEAST_LABELS, labels_needed, sequence
from monitoring.statistics.label_free import Calibrator

NAME = "accuracy"
EVERY = timedelta(hours=1)
LABELS_OF = timedelta(days=30)
BASELINE_DAYS = timedelta(days=30)
LEAST_BASELINE_LABELS = 200
KEPT_SHARE = 0.999  # of the baseline: what may be lost
Status = DetectorState.Status


def watch(now: datetime) -> int:
    """Look at every version that has labels and is due; returns how many were looked at. Safe to repeat.

    Workers share the versions: each is claimed by one of them, once an hour.
    """
    labelled = Outcome.objects.filter(sampler=accuracy.SAMPLER, requested_at__gte=now - LABELS_OF - EVERY)
    alarmed = DetectorState.objects.filter(detector=NAME, status=Status.DRIFTED)
    versions = ModelVersion.objects.filter(
        Q(pk__in=labelled.values("version")) | Q(pk__in=alarmed.values("version"))
    )
    return sum(_watch(version, now) for version in versions.select_related("model"))


def _watch(version: ModelVersion, now: datetime) -> bool:
    """Claim, look, save, alert: one transaction. False when another worker has looked within the hour."""
    DetectorState.objects.get_or_create(version=version, detector=NAME)
    with transaction.atomic():
        due = Q(evaluated_until__isnull=True) | Q(evaluated_until__lte=now - EVERY)
        mine = DetectorState.objects.filter(due, version=version, detector=NAME)
        if mine.update(evaluated_until=now) != 1:
            return False
        row = DetectorState.objects.get(version=version, detector=NAME)
        learned = accuracy.learn(version, now)
        row.state = {
            **row.state,
            "baseline": baseline(version, row.state.get("baseline"), now),
            "calibration": as_json(learned, now),
        }
        _look(row, version, now)
        row.save(update_fields=["status", "reason", "result", "state"])
        return True


def as_json(learned: accuracy.Learned, now: datetime) -> dict[str, Any]:
    """A calibration of confidences as it is stored, dated; `by_confidence` is what a rollout's gate takes."""
    made = {"source": learned.source, "made_at": now.isoformat()}
    if isinstance(learned.calibrator, Calibrator):
        by_confidence = learned.calibrator.by_confidence()
        return {**made, "by_confidence": by_confidence, "calibrator": learned.calibrator.as_json()}
    return {**made, "reason": learned.calibrator.reason}


def baseline(version: ModelVersion, stored: Mapping[str, Any] | None, now: datetime) -> dict[str, Any]:
    """{"accuracy", "source", …}: posted with the version, else stored, else of its first thirty days once over.

    `accuracy` is None, and there is a `reason`, while nothing can be compared.
    """
    posted = version.metadata.get("accuracy")
    if isinstance(posted, int | float) and not isinstance(posted, bool) and 0 < posted <= 1:
        return {"accuracy": float(posted), "source": "metadata"}
    if stored and stored.get("source") == "labels" and stored.get("accuracy") is not None:
        return dict(stored)
    began = accuracy.first_label(version) or now
    if now < began + BASELINE_DAYS:
        reason = f"the baseline is learned from labels: {(now - began).days} of {BASELINE_DAYS.days} days"
        return {"accuracy": None, "source": "labels", "reason": reason}
    found = accuracy.measured(version, began, began + BASELINE_DAYS)
    if found.n < LEAST_BASELINE_LABELS:
        reason = (
            f"no baseline: {found.n} labels of its first {BASELINE_DAYS.days} days,"
            f" needs {LEAST_BASELINE_LABELS}; post metadata.accuracy with the version"
        )
        return {"accuracy": None, "source": "labels", "reason": reason}
    return {**asdict(found), "source": "labels", "from": began.isoformat(), "fixed_at": now.isoformat()}


def _look(row: DetectorState, version: ModelVersion, now: datetime) -> None:
    """Compare, and say so; `row` is changed, not saved."""
    before = row.status
    rows = accuracy.labelled_rows(version, now - LABELS_OF, now)
    found = statistics.estimate(rows[:, 0], rows[:, 1])
    low, high = sequence(rows[:, 0], rows[:, 1])
    expected = row.state["baseline"]["accuracy"]
    row.result = {
        **asdict(found),
        "sequence": {"low": low, "high": high, "confidence": CONFIDENCE},
        "baseline": expected,
        "alarm_below": None if expected is None else KEPT_SHARE * expected,
        "from": (now - LABELS_OF).isoformat(),
        "to": now.isoformat(),
    }
    status, row.reason = _answer(row.state["baseline"], found, low, high, before)
    row.status = status
    cause = f"accuracy/{version.model.name}/{version.name}"
    if status == Status.DRIFTED:
        alert = (
            alerts.open(
                cause,
                severity=Severity.CRITICAL,
                summary=f"{version} {row.reason}; look at the labelled images, roll back or retrain.",
                now=now,
                detail=row.result,
                model=version.model,
                version=version,
            )
            if before != Status.DRIFTED
            else None
        )
    elif before == Status.DRIFTED:
        alert = alerts.resolve(cause, resolution=f"{version} {row.reason}", now=now)
    else:
        return
    if status != before:
        Finding.objects.create(
            version=version,
            detector=NAME,
            at=now,
            status=status,
            reason=row.reason,
            result=row.result,
            alert=alert,
        )


def _answer(
    before: Mapping[str, Any], found: statistics.AccuracyEstimate, low: float, high: float, status: str
) -> tuple[str, str]:
    """(status, reason). An alarm stays until the estimate itself is back above the line, or the labels end."""
    expected = before["accuracy"]
    if found.accuracy is None:
        return Status.TOO_FEW, "has no labels of the last 30 days"
    seen = f"{100 * found.accuracy:.2f} % right in {found.n:,} labels of the last 30 days"
    if expected is None:
        return Status.TOO_FEW, f"is {seen}; {before['reason']}"
    line = KEPT_SHARE * expected
    compared = f"{seen}, baseline {100 * expected:.2f} %"
    if high < line:
        return Status.DRIFTED, f"is less accurate: {compared}, surely below {100 * high:.2f} %"
    if status == Status.DRIFTED and found.accuracy < line:
        return Status.DRIFTED, f"is less accurate: {compared}, at present not surely"
    if low >= line:
        return Status.STABLE, f"is as accurate as it was: {compared}"
    if found.n < LEAST_LABELS:
        return Status.TOO_FEW, f"is {compared}; at least {LEAST_LABELS} labels are needed"
    difference = max(abs(found.accuracy - line), (1 - KEPT_SHARE) * expected)
    needed = labels_needed(max(1 - found.accuracy, 1 / found.n), min(difference, 0.5))
    return Status.TOO_FEW, f"is {compared}; cannot tell yet, needs about {needed:,} labels"
