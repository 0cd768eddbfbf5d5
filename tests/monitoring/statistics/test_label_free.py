from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.label_free import Calibrator, Uncalibrated, calibrator, expected_accuracy

BINS = 100
MIDDLES = (np.arange(BINS) + 0.5) / BINS
TRUTH = 0.3 + 0.65 * MIDDLES**2  # how often an answer of each confidence is right


def labelled(rng, n, shape=(5, 2)):
    """(right, all) labelled rows by confidence bin."""
    bins = (rng.beta(*shape, n) * BINS).astype(int)
    right = rng.random(n) < TRUTH[bins]
    return np.bincount(bins[right], minlength=BINS), np.bincount(bins, minlength=BINS)


def test_accuracy_rises_with_confidence_and_follows_the_labels():
    learned = calibrator(*labelled(np.random.default_rng(1), 20_000))
    by_bin = learned.accuracy[learned.group]
    assert (np.diff(by_bin) >= 0).all()
    assert by_bin[40:95] == pytest.approx(TRUTH[40:95], abs=0.05)


@pytest.mark.parametrize("labels", [600, 5000])
@pytest.mark.parametrize("live", [200, 20_000])
def test_the_interval_covers_the_window_s_accuracy_as_often_as_it_says(labels, live):
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(400):
        learned = calibrator(*labelled(rng, labels))
        right, histogram = labelled(rng, live)
        found = expected_accuracy(learned, histogram)
        covered.append(found.low <= right.sum() / live <= found.high)
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 400)


def test_a_window_of_less_sure_predictions_is_expected_to_be_less_accurate():
    rng = np.random.default_rng(3)
    learned = calibrator(*labelled(rng, 10_000, shape=(2, 2)))
    right, histogram = labelled(rng, 50_000, shape=(3, 3))
    found = expected_accuracy(learned, histogram)
    assert found.accuracy == pytest.approx(right.sum() / 50_000, abs=0.02)
    assert found.high < expected_accuracy(learned, labelled(rng, 50_000)[1]).low


def test_below_500_labels_there_is_a_reason_instead_of_a_number():
    found = calibrator(*labelled(np.random.default_rng(4), 120))
    assert isinstance(found, Uncalibrated)
    assert found.reason == "too few labels to calibrate: 120 of 500"


def test_without_predictions_nothing_is_known():
    learned = calibrator(*labelled(np.random.default_rng(5), 1000))
    found = expected_accuracy(learned, np.zeros(BINS))
    assert (found.accuracy, found.low, found.high, found.n) == (None, 0, 1, 0)


def test_a_few_predictions_say_little():
    learned = calibrator(*labelled(np.random.default_rng(6), 5000))
    found = expected_accuracy(learned, np.bincount([80, 85, 90], minlength=BINS))
    assert found.high - found.low > 0.3


def test_more_predictions_do_not_take_away_what_the_calibration_does_not_know():
    learned = calibrator(*labelled(np.random.default_rng(7), 600))
    one, many = (expected_accuracy(learned, n * np.ones(BINS)) for n in (1e4, 1e8))
    assert many.high - many.low == pytest.approx(one.high - one.low, rel=0.02)
    assert many.high - many.low > 0.03


def test_labels_at_one_confidence_alone_speak_for_all():
    right, rows = np.zeros(BINS), np.zeros(BINS)
    right[99], rows[99] = 900, 1000
    learned = calibrator(right, rows)
    assert learned.accuracy == pytest.approx([0.9], abs=0.001)
    assert (learned.group == 0).all()


def test_always_right_labels_are_not_perfection():
    rows = np.full(BINS, 10)
    found = expected_accuracy(calibrator(rows, rows), np.full(BINS, 1000))
    assert found.accuracy < 1
    assert found.high <= 1


def test_accuracy_that_falls_with_confidence_is_pooled():
    rows = np.full(BINS, 50)
    learned = calibrator(np.linspace(45, 5, BINS).astype(int), rows)
    assert len(learned.accuracy) == 1
    assert learned.accuracy == pytest.approx(0.5, abs=0.02)


def test_a_calibrator_comes_back_as_it_was_stored():
    learned = calibrator(*labelled(np.random.default_rng(8), 2000))
    again = Calibrator.from_json(learned.as_json())
    assert again.as_json() == learned.as_json()
    histogram = np.arange(BINS)
    assert expected_accuracy(again, histogram) == expected_accuracy(learned, histogram)


def test_by_confidence_gives_the_middle_of_each_group():
    right, rows = np.zeros(BINS), np.zeros(BINS)
    right[[25, 75]], rows[[25, 75]] = [100, 400], [500, 500]
    assert list(calibrator(right, rows).by_confidence()) == ["13", "63"]


@pytest.mark.parametrize(
    ("right", "rows", "message"),
    [
        ([1, 2], [3], "equal lengths"),
        ([4], [3], "between 0"),
        ([float("nan")], [3], "between 0"),
        ([1], [float("inf")], "between 0"),
    ],
)
def test_impossible_counts_are_refused(right, rows, message):
    with pytest.raises(ValueError, match=message):
        calibrator(right, rows)


def test_a_histogram_of_other_bins_is_refused():
    learned = calibrator(*labelled(np.random.default_rng(9), 1000))
    with pytest.raises(ValueError, match="100 bins"):
        expected_accuracy(learned, np.ones(50))
