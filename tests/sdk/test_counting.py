"""Are confidences, latencies and detections counted into the bins that both sides agree on?"""

from __future__ import annotations

import numpy as np
from davy.counting import (
    CONFIDENCE_EDGES,
    LATENCY_EDGES_SECONDS,
    count_confidence,
    count_detections,
    count_latency,
)


def test_edges_have_the_documented_range():
    assert CONFIDENCE_EDGES.shape == (101,)
    assert LATENCY_EDGES_SECONDS.shape == (97,)
    np.testing.assert_allclose(LATENCY_EDGES_SECONDS[[0, 16, 96]], [1e-4, 1e-3, 1e2])


def test_a_value_on_an_edge_belongs_to_the_bin_above():
    hundredths = np.arange(100) / 100
    assert count_confidence(hundredths).tolist() == [1] * 100
    assert count_latency(LATENCY_EDGES_SECONDS[:-1]).tolist() == [1] * 96


def test_values_outside_go_to_the_end_bins():
    confidence = count_confidence([-0.1, 0.0, 1.0, 7.0])
    latency = count_latency([0.0, 1e-9, 100.0, 1e6])
    detections = count_detections([-1, 0, 63, 900])
    for counts in (confidence, latency, detections):
        assert (counts[0], counts[-1], counts.sum()) == (2, 2, 4)


def test_non_finite_values_are_in_no_bin():
    assert count_confidence([np.nan, np.inf, -np.inf]).sum() == 0
    assert count_latency([np.nan, 0.1]).sum() == 1


def test_counting_parts_and_adding_equals_counting_the_whole():
    values = np.random.default_rng(0).random(1000).astype(np.float32)
    assert (count_confidence(values) == count_confidence(values[:300]) + count_confidence(values[300:])).all()


def test_nothing_counts_nothing():
    assert count_confidence([]).shape == (100,)
    assert count_latency([]).shape == (96,)
    assert count_detections([]).shape == (64,)
