"""What does Prometheus hear about models? Read at the scrape, of versions that are in use, with bounded labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from davy import counting
from django.db.models import Q
from numpy.typing import NDArray
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from controlplane.models import ModelVersion, Route
from monitoring import accuracy
from monitoring.accuracy_watch import NAME as ACCURACY
from monitoring.detectors import DETECTORS
from monitoring.models import Calibration, DetectorState, Episode, VersionTotal
from monitoring.statistics.label_free import Calibrator
from monitoring.totals import stored

MOST = 500  # combinations of model, version and fleet; the last heard of are kept
HEARD = timedelta(hours=1)  # a version on no route is in use for so long after its last window
EXPECTED_OVER = timedelta(hours=1)  # what confidences lead to expect
CONFIDENCE_BUCKETS = range(5, 101, 5)  # upper edges in hundredths: .3 and .6 are among them
DETECTION_BUCKETS = (0, 1, 2, 3, 5, 8, 13, 21, 34, 62)
STATES = {  # three answers, never two
    DetectorState.Status.STABLE: 0,
    DetectorState.Status.DRIFTED: 1,
    DetectorState.Status.TOO_FEW: -1,
}


def families(now: datetime) -> Iterator[Metric]:
    """Every metric family about models. A version of which something is not known has no sample of it."""
    totals = list(_in_use(now).select_related("version__model").order_by("-updated_at", "pk"))
    shown = totals[:MOST]
    yield from _traffic(shown)
    left_out = GaugeMetricFamily(
        "davy_series_left_out",
        f"Combinations of model, version and fleet beyond the {MOST} that are exported",
    )
    left_out.add_metric([], len(totals) - len(shown))
    yield left_out
    versions = {row.version_id: row.version for row in shown}
    yield from _drift(versions)
    yield from _calibrations(versions)
    yield from _accuracy(versions, now)


def _in_use(now: datetime) -> Any:
    routed = {pk for pair in Route.objects.values_list("stable", "canary") for pk in pair if pk is not None}
    return VersionTotal.objects.filter(Q(version__in=routed) | Q(updated_at__gte=now - HEARD))


def _names(version: ModelVersion) -> list[str]:
    return [version.model.name, version.name]


def _traffic(totals: Sequence[VersionTotal]) -> Iterator[Metric]:
    labels = ["model", "version", "fleet"]
    requests = CounterMetricFamily("davy_requests", "Live requests that collectors counted", labels=labels)
    errors = CounterMetricFamily("davy_errors", "Those that failed", labels=labels)
    heard = GaugeMetricFamily(
        "davy_last_window_timestamp_seconds", "When a window was last counted", labels=labels
    )
    confidence = HistogramMetricFamily(
        "davy_confidence", "Confidence of answers; the sum is of the middles of bins of .01", labels=labels
    )
    detections = HistogramMetricFamily(
        "davy_detections_per_image", "Detections per image; 63 stands for 63 and more", labels=labels
    )
    for row in totals:
        place = [*_names(row.version), row.fleet]
        requests.add_metric(place, row.n)
        errors.add_metric(place, row.errors)
        heard.add_metric(place, row.updated_at.timestamp())
        sure = stored(row.confidence, counting.CONFIDENCE_BINS)
        middles = (np.arange(len(sure)) + 0.5) / len(sure)
        edges = [(f"{edge / 100:g}", edge) for edge in CONFIDENCE_BUCKETS]
        confidence.add_metric(place, _buckets(sure, edges), float(sure @ middles))
        found = stored(row.detections, counting.DETECTION_BINS)
        if found.any():
            edges = [(str(most), most + 1) for most in DETECTION_BUCKETS]
            detections.add_metric(place, _buckets(found, edges), float(found @ np.arange(len(found))))
    yield from (requests, errors, heard, confidence, detections)


def _buckets(counts: NDArray[np.int64], edges: Iterable[tuple[str, int]]) -> list[tuple[str, float]]:
    """(le, how many) of the first so many bins, and of all."""
    return [*((name, int(counts[:bins].sum())) for name, bins in edges), ("+Inf", int(counts.sum()))]


def _drift(versions: Mapping[int, ModelVersion]) -> Iterator[Metric]:
    labels = ["model", "version", "family"]
    distance = GaugeMetricFamily(
        "davy_drift_distance",
        "Distance to the reference over the sliding window: the largest D of embeddings, the largest change of a share"
        " of confidences",
        labels=labels,
    )
    limit = GaugeMetricFamily("davy_drift_limit", "The distance that alarms when seen twice", labels=labels)
    state = GaugeMetricFamily(
        "davy_drift_state", "1 drifted, 0 not, -1 too little data to say, whatever the reason", labels=labels
    )
    open_now = set(
        Episode.objects.filter(version__in=versions, ended=None, segment_key="").values_list(
            "version", "family"
        )
    )
    states = list(DetectorState.objects.filter(version__in=versions).order_by("version", "detector"))
    for row in states:
        if (detector := DETECTORS.get(row.detector)) is None:
            continue
        place = [*_names(versions[row.version_id]), detector.subject]
        if (value := _distance(row.result)) is not None:
            distance.add_metric(place, value)
            limit.add_metric(place, detector.hysteresis.drifted_above)
        drifted = (row.version_id, detector.subject) in open_now
        state.add_metric(place, 1 if drifted else STATES[DetectorState.Status(row.status)])
    yield from (distance, limit, state, *_shares(versions, states))


def _distance(result: Mapping[str, Any]) -> float | None:
    """What a detector compares with its limit; None before it has compared anything."""
    if "d" in result:
        return float(result["d"])
    changes = [abs(float(row["change"])) for row in result.get("shares", ())]
    return max(changes, default=None)


def _shares(versions: Mapping[int, ModelVersion], states: Iterable[DetectorState]) -> Iterator[Metric]:
    """The p chart of the sliding window, with the reference's share as its centre."""
    labels = ["model", "version", "measure"]
    drawn = {
        "share": GaugeMetricFamily("davy_chart_value", "A control chart's latest value", labels=labels),
        "lower": GaugeMetricFamily("davy_chart_lower", "Its lower 3 sigma limit", labels=labels),
        "upper": GaugeMetricFamily("davy_chart_upper", "Its upper 3 sigma limit", labels=labels),
    }
    for row in states:
        for measured in row.result.get("shares", ()):
            for name, family in drawn.items():
                place = [*_names(versions[row.version_id]), f"share_{measured['name']}"]
                family.add_metric(place, float(measured[name]))
    yield from drawn.values()


def _calibrations(versions: Mapping[int, ModelVersion]) -> Iterator[Metric]:
    labels = ["model", "version", "family"]
    days = GaugeMetricFamily(
        "davy_calibration_days", "Days of history that the alarms in force know", labels=labels
    )
    made = GaugeMetricFamily(
        "davy_calibration_timestamp_seconds", "When they were calibrated last", labels=labels
    )
    active = Calibration.objects.filter(
        version__in=versions, state=Calibration.State.ACTIVE, segment_key=""
    ).order_by("version", "family")
    for row in active.defer("data"):
        place = [*_names(versions[row.version_id]), row.family]
        days.add_metric(place, row.hours / 24)
        made.add_metric(place, row.made_at.timestamp())
    yield from (days, made)


def _accuracy(versions: Mapping[int, ModelVersion], now: datetime) -> Iterator[Metric]:
    labels = ["model", "version", "kind"]
    drawn = {
        "accuracy": GaugeMetricFamily(
            "davy_accuracy_estimate",
            "measured: by the labels of 30 days; expected: by the confidences of the last hour, without labels",
            labels=labels,
        ),
        "low": GaugeMetricFamily("davy_accuracy_low", "Lower end of its 95 % interval", labels=labels),
        "high": GaugeMetricFamily("davy_accuracy_high", "Upper end of its 95 % interval", labels=labels),
    }
    baseline = GaugeMetricFamily(
        "davy_accuracy_baseline", "What measured accuracy is compared with", labels=labels[:2]
    )
    state = GaugeMetricFamily(
        "davy_accuracy_state",
        "1 surely below 99.9 % of the baseline, 0 not, -1 cannot tell",
        labels=labels[:2],
    )
    for row in DetectorState.objects.filter(version__in=versions, detector=ACCURACY).order_by("version"):
        version = versions[row.version_id]
        estimates = {"measured": row.result, "expected": _expected(version, row.state, now)}
        for kind, estimate in estimates.items():
            if estimate.get("accuracy") is None:
                continue
            for name, family in drawn.items():
                family.add_metric([*_names(version), kind], estimate[name])
        if row.result.get("baseline") is not None:
            baseline.add_metric(_names(version), row.result["baseline"])
        state.add_metric(_names(version), STATES[DetectorState.Status(row.status)])
    yield from (*drawn.values(), baseline, state)


def _expected(version: ModelVersion, state: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """An AccuracyEstimate as a dict; empty while confidences are not calibrated."""
    learned = state.get("calibration", {}).get("calibrator")
    if learned is None:
        return {}
    return asdict(accuracy.expected(version, now - EXPECTED_OVER, now, Calibrator.from_json(learned)))
