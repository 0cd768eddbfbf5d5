from __future__ import annotations

import numpy as np
import pytest
from davy import counting
from davy.reference import Reference

from monitoring.statistics.charts import measures
from monitoring.statistics.charts.measures import MEASURES


def value(name, *seen):
    found, n = measures.amount(name, *seen)
    return found / n


def reference(counts):
    k = len(counts) - 1
    edges = np.tile(np.arange(counts.shape[1] - 1, dtype="f4"), (k + 1, 1))
    confidence = np.bincount([10, 50, 90, 90], minlength=100)
    return Reference.build(np.zeros(2, "f4"), np.eye(2, dtype="f4")[:k], edges, counts, confidence, 4)


COUNTS = np.array([[2, 2, 0], [1, 1, 2]])


def test_shares_count_the_bins_below_point_6():
    confidence = counting.count_confidence([0.1, 0.35, 0.59, 0.6, 0.99])
    assert measures.amount("low_share", 7, 2, confidence) == (3, 5)
    assert measures.amount("unsure_share", 7, 2, confidence) == (2, 5)


def test_a_mean_confidence_is_within_half_a_bin():
    x = np.random.default_rng(1).random(1000)
    assert value("confidence_mean", 1000, 0, counting.count_confidence(x)) == pytest.approx(
        x.mean(), abs=0.005
    )


def test_detections_are_things_per_image():
    assert measures.amount("detections_mean", 3, 0, counting.count_detections([0, 2, 4])) == (6, 3)


def test_the_median_latency_is_in_milliseconds():
    seconds = np.random.default_rng(2).lognormal(-3, 0.5, 5000)
    found = value("latency_p50", 5000, 0, counting.count_latency(seconds))
    assert found == pytest.approx(1000 * np.median(seconds), rel=0.03)


def test_failed_requests_are_a_share_of_all():
    assert measures.amount("error_share", 50, 2, None) == (2, 50)


def test_the_largest_distance_is_that_of_the_furthest_component():
    assert value("d_max", 4, 0, np.array([[0, 2, 2], [1, 1, 2]]), reference(COUNTS)) == pytest.approx(0.5)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("counts", [None, np.zeros(100, int)])
def test_an_empty_interval_has_no_value(name, counts):
    assert measures.amount(name, 0, 0, counts, reference(COUNTS)) is None


def test_without_a_reference_there_is_no_distance_and_nothing_is_expected():
    assert measures.amount("d_max", 4, 0, COUNTS) is None
    assert measures.expected("confidence_mean", reference(COUNTS)) is None
    assert measures.expected("low_share", reference(COUNTS)) == 0.5


def test_a_measure_that_does_not_exist_is_an_error():
    with pytest.raises(KeyError):
        measures.amount("entropy", 1, 0, None)
