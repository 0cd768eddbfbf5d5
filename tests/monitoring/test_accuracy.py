"""What do labels, and confidences, say about a version's accuracy?"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from davy import counting, wire

from monitoring import accuracy
from monitoring.models import Outcome, Prediction, Reference, Rollup
from monitoring.statistics.label_free import Calibrator, Uncalibrated
from tests.monitoring.build import T0, version

pytestmark = pytest.mark.django_db

NOW = T0 + timedelta(days=40)


@pytest.fixture
def v1():
    return version()


def label(v1, wrong, confidence, at=NOW - timedelta(days=1), segment=None, probability=0.1, tag=""):
    """One measured request each, `wrong` and `confidence` (n,)."""
    rows = list(zip(np.atleast_1d(wrong), np.broadcast_to(confidence, np.shape(wrong)), strict=True))
    names = [f"{tag}{i}" for i in range(len(rows))]
    Prediction.objects.bulk_create(
        Prediction(
            version=v1,
            request_id=name,
            at=at,
            confidence=float(sure),
            segment=segment or {},
            sampler="measure",
            inclusion_probability=probability,
        )
        for name, (_, sure) in zip(names, rows, strict=True)
    )
    Outcome.objects.bulk_create(
        Outcome(
            version=v1,
            request_id=name,
            requested_at=at,
            wrong=bool(missed),
            sampler="measure",
            inclusion_probability=probability,
        )
        for name, (missed, _) in zip(names, rows, strict=True)
    )


def heard(v1, confidence, n, segment=None, start=NOW - timedelta(days=1)):
    """One hour with n predictions of one confidence."""
    counts = np.zeros(counting.CONFIDENCE_BINS, np.int64)
    counts[int(confidence * 100)] = n
    segment = segment or {}
    Rollup.objects.create(
        version=v1,
        segment=segment,
        segment_key=wire.segment_key(segment),
        start=start,
        seconds=3600,
        n=n,
        errors=0,
        confidence=wire.pack(counts),
    )


def two_confidences(v1, **fields):
    """300 labels each: .95 is right in 97 %, .55 in 60 %."""
    label(v1, np.arange(300) < 9, 0.955, tag="sure-", **fields)
    label(v1, np.arange(300) < 120, 0.555, tag="unsure-", **fields)


def test_confidences_are_calibrated_by_labels_of_the_version(v1):
    two_confidences(v1)
    learned = accuracy.learn(v1, NOW)
    assert (learned.source, isinstance(learned.calibrator, Calibrator)) == ("labels", True)
    by_bin = learned.calibrator.accuracy[learned.calibrator.group]
    assert by_bin[[55, 95]] == pytest.approx([0.6, 0.97], abs=0.01)


def test_below_500_labels_those_of_the_reference_stand_in(v1):
    label(v1, np.zeros(100, bool), 0.9)
    assert accuracy.learn(v1, NOW).calibrator == Uncalibrated(pytest.approx(100), 500)
    rows = np.full(counting.CONFIDENCE_BINS, 10)
    Reference.objects.create(
        version=v1,
        rows=1000,
        dimensions=2,
        components=2,
        bins=2,
        max_bin_mass=0.5,
        digest="d",
        data=b"",
        correct=wire.pack(np.stack([rows * 7 // 10, rows])),
    )
    learned = accuracy.learn(v1, NOW)
    assert learned.source == "reference"
    assert learned.calibrator.accuracy[learned.calibrator.group] == pytest.approx(0.7, abs=0.01)


def test_labels_older_than_90_days_do_not_calibrate(v1):
    two_confidences(v1, at=NOW - timedelta(days=91))
    assert isinstance(accuracy.learn(v1, NOW).calibrator, Uncalibrated)


def test_the_expected_accuracy_needs_no_labels_of_its_period(v1):
    two_confidences(v1)
    heard(v1, 0.955, 1000)
    heard(v1, 0.555, 3000, segment={"device": "ios"})
    learned = accuracy.learn(v1, NOW).calibrator
    found = accuracy.expected(v1, NOW - timedelta(days=3), NOW, learned)
    assert (found.accuracy, found.n) == (pytest.approx((0.97 + 3 * 0.6) / 4, abs=0.01), 4000)
    part = accuracy.expected(v1, NOW - timedelta(days=3), NOW, learned, {"device": "ios"})
    assert (part.accuracy, part.n) == (pytest.approx(0.6, abs=0.01), 3000)


def test_without_traffic_nothing_is_expected(v1):
    two_confidences(v1)
    found = accuracy.expected(v1, NOW - timedelta(days=3), NOW, accuracy.learn(v1, NOW).calibrator)
    assert (found.accuracy, found.low, found.high, found.n) == (None, 0, 1, 0)


def test_every_segment_stands_beside_its_truth(v1):
    two_confidences(v1, segment={"device": "ios"})
    heard(v1, 0.955, 1000, segment={"device": "ios"})
    heard(v1, 0.555, 1000, segment={"device": "web", "country": "de"})
    learned = accuracy.learn(v1, NOW).calibrator
    ios, web = accuracy.by_segment(v1, NOW - timedelta(days=3), NOW, ["device"], learned)
    assert (ios.segment, ios.measured.n, ios.expected.n) == ({"device": "ios"}, 600, 1000)
    assert ios.measured.accuracy == pytest.approx(471 / 600)
    assert (web.segment, web.measured.accuracy, web.expected.n) == ({"device": "web"}, None, 1000)


def test_segments_can_be_cut_within_a_segment(v1):
    heard(v1, 0.955, 10, segment={"device": "ios", "country": "de"})
    heard(v1, 0.955, 20, segment={"device": "ios", "country": "fr"})
    heard(v1, 0.955, 40, segment={"device": "web", "country": "fr"})
    two_confidences(v1)
    learned = accuracy.learn(v1, NOW).calibrator
    since = NOW - timedelta(days=3)
    found = accuracy.by_segment(v1, since, NOW, ["country"], learned, {"device": "ios"})
    assert [(part.segment, part.expected.n) for part in found] == [
        ({"device": "ios", "country": "de"}, 10),
        ({"device": "ios", "country": "fr"}, 20),
    ]


def test_without_a_calibration_segments_have_their_truth_alone(v1):
    label(v1, [True, False], 0.9, segment={"device": "ios"})
    learned = accuracy.learn(v1, NOW).calibrator
    (found,) = accuracy.by_segment(v1, NOW - timedelta(days=3), NOW, ["device"], learned)
    assert (found.measured.accuracy, found.expected) == (0.5, None)
