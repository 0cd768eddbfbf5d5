"""How accurate is a version, by labels and by its confidences?

Only *measure* labels say how often it is right: they were drawn by lot. Its confidences say what to expect where nobody
labelled: calibrated by those labels, or by the labels that came with the reference.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from davy import counting, wire
from django.db.models import Min, QuerySet
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import series
from monitoring.models import Outcome, Prediction, Reference
from monitoring.rollups import HOUR, MINUTE
from monitoring.statistics.accuracy import AccuracyEstimate, estimate
from monitoring.statistics.label_free import (
    LEAST_LABELS,
    Calibrator,
    Uncalibrated,
    calibrator,
    expected_accuracy,
)

SAMPLER = "measure"
CALIBRATED_WITH = timedelta(days=90)  # labels of requests up to so old
MINUTES_UP_TO = timedelta(days=2)  # longer periods read hours

Segment = Mapping[str, str]
Rows = NDArray[np.float64]


@dataclass(frozen=True)
class SegmentAccuracy:
    """A part of the traffic: what labels say, and what its confidences lead to expect (None: not calibrated)."""

    segment: Segment
    measured: AccuracyEstimate
    expected: AccuracyEstimate | None


@dataclass(frozen=True)
class Learned:
    """A calibration of confidences, and which labels it was learned from."""

    calibrator: Calibrator | Uncalibrated
    source: str  # "labels" or "reference"


def labelled_rows(version: ModelVersion, since: datetime, until: datetime) -> Rows:
    """(n, 2) wrong and inclusion probability of the requests made in [since, until) and labelled to measure."""
    rows = _outcomes(version, since, until).values_list("wrong", "inclusion_probability")
    return np.array(rows, float).reshape(-1, 2)


def first_label(version: ModelVersion) -> datetime | None:
    """When the first request was made that is labelled to measure; None without any."""
    first: datetime | None = _outcomes(version).aggregate(first=Min("requested_at"))["first"]
    return first


def measured(
    version: ModelVersion, since: datetime, until: datetime, segment: Segment | None = None
) -> AccuracyEstimate:
    """Accuracy over the requests made in [since, until), with its 95 % interval and n.

    `segment` keeps requests whose prediction has all of its keys and values.
    """
    outcomes = _outcomes(version, since, until)
    if segment:
        sampled = Prediction.objects.filter(version=version, sampler=SAMPLER, segment__contains=dict(segment))
        outcomes = outcomes.filter(request_id__in=sampled.values("request_id"))
    rows = np.array(outcomes.values_list("wrong", "inclusion_probability"), float).reshape(-1, 2)
    return estimate(rows[:, 0], rows[:, 1])


def learn(version: ModelVersion, now: datetime) -> Learned:
    """The calibration of the version's confidences at `now`: by measure labels, else by those of its reference.

    Labels of the last 90 days are asked first, as they are of live images; the reference's stand in where these are
    fewer than 500, so a version can be calibrated on its first day.
    """
    right, rows = _labelled_confidences(version, now)
    by_labels = calibrator(right, rows)
    if isinstance(by_labels, Calibrator):
        return Learned(by_labels, "labels")
    stored = Reference.objects.filter(version=version, state=Reference.State.ACTIVE).exclude(correct=b"")
    packed = stored.values_list("correct", flat=True).first()
    if packed:
        right, rows = wire.unpack(bytes(packed), (2, counting.CONFIDENCE_BINS))
        if rows.sum() >= LEAST_LABELS:
            return Learned(calibrator(right, rows), "reference")
    return Learned(by_labels, "labels")


def expected(
    version: ModelVersion,
    since: datetime,
    until: datetime,
    learned: Calibrator,
    segment: Segment | None = None,
) -> AccuracyEstimate:
    """What the confidences of the requests made in [since, until) lead to expect, with its 95 % interval.

    Read from roll-ups: of minutes for up to two days, of hours beyond that; the last one that is still open is not in.
    """
    (cell,) = _histograms(version, since, until, segment, ())
    return expected_accuracy(learned, cell[1])


def by_segment(
    version: ModelVersion,
    since: datetime,
    until: datetime,
    by: Sequence[str],
    learned: Calibrator | Uncalibrated,
    segment: Segment | None = None,
) -> list[SegmentAccuracy]:
    """Both accuracies for every combination of the values of `by` that was seen, in the order of the values.

    A labelled request belongs where its prediction's segment says; one whose prediction is gone, nowhere.
    """
    truth = _outcomes_by(version, since, until, by, segment or {})
    seen = {
        tuple(part[name] for name in by): counts
        for part, counts in _histograms(version, since, until, segment, by)
    }
    return [
        SegmentAccuracy(
            {**(segment or {}), **dict(zip(by, values, strict=True))},
            estimate(*np.array(truth.get(values, [])).reshape(-1, 2).T),
            expected_accuracy(learned, seen.get(values, np.zeros(counting.CONFIDENCE_BINS)))
            if isinstance(learned, Calibrator)
            else None,
        )
        for values in sorted(truth.keys() | seen.keys())
    ]


def _outcomes(
    version: ModelVersion, since: datetime | None = None, until: datetime | None = None
) -> QuerySet[Outcome]:
    drawn = Outcome.objects.filter(version=version, sampler=SAMPLER, inclusion_probability__isnull=False)
    if since is not None:
        drawn = drawn.filter(requested_at__gte=since)
    return drawn if until is None else drawn.filter(requested_at__lt=until)


def _outcomes_by(
    version: ModelVersion, since: datetime, until: datetime, by: Sequence[str], segment: Segment
) -> dict[tuple[str, ...], list[tuple[float, float]]]:
    """(wrong, inclusion probability) of the labelled requests by the values of their segment."""
    sampled = Prediction.objects.filter(
        version=version, sampler=SAMPLER, segment__contains=dict(segment), at__gte=since, at__lt=until
    )
    places = dict(sampled.values_list("request_id", "segment"))
    found: dict[tuple[str, ...], list[tuple[float, float]]] = defaultdict(list)
    outcomes = _outcomes(version, since, until)
    for request_id, wrong, probability in outcomes.values_list(
        "request_id", "wrong", "inclusion_probability"
    ):
        if request_id in places:
            values = tuple(places[request_id].get(name, "") for name in by)
            found[values].append((float(wrong), float(probability or 0)))
    return found


def _histograms(
    version: ModelVersion,
    since: datetime,
    until: datetime,
    segment: Segment | None,
    by: Sequence[str],
) -> list[tuple[Segment, NDArray[np.int64]]]:
    """(segment, (100,) confidences) of every cell; without `by` exactly one."""
    seconds = MINUTE if until - since <= MINUTES_UP_TO else HOUR
    none = np.zeros(counting.CONFIDENCE_BINS, np.int64)
    return [
        (
            cell.segment,
            sum((point.counts.get("confidence", none) for point in cell.points if point), none),
        )
        for cell in series.series(
            version, since, until, seconds, columns=("confidence",), where=segment, by=by
        )
    ]


def _labelled_confidences(version: ModelVersion, now: datetime) -> tuple[Rows, Rows]:
    """(100,) right answers and (100,) all by confidence, weighted as drawn; all add up to the effective sample size."""
    outcomes = _outcomes(version, now - CALIBRATED_WITH, now)
    sampled = Prediction.objects.filter(
        version=version,
        sampler=SAMPLER,
        confidence__isnull=False,
        request_id__in=outcomes.values("request_id"),
    )
    confidences = dict(sampled.values_list("request_id", "confidence"))
    rows = outcomes.values_list("request_id", "wrong", "inclusion_probability")
    known = [(confidences[name], wrong, chance) for name, wrong, chance in rows if name in confidences]
    confidence, wrong, probability = np.array(known, float).reshape(-1, 3).T
    weight = 1 / probability
    weight *= weight.sum() / (weight**2).sum() if len(weight) else 1.0
    inner = counting.CONFIDENCE_EDGES[1:-1]
    bins = np.searchsorted(inner, confidence, side="right")
    right, rows_in_bins = (
        np.bincount(bins, each, minlength=counting.CONFIDENCE_BINS).astype(np.float64)
        for each in (weight * (1 - wrong), weight)
    )
    return right, rows_in_bins
