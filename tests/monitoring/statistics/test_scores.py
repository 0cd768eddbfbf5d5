from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from monitoring.statistics import binning, scores

RNG = np.random.default_rng(1)
REFERENCES = {
    "continuous": RNG.normal(size=20_000),
    "skewed": RNG.exponential(size=20_000),
    "atom": np.maximum(RNG.normal(size=20_000), 0),
    "few values": RNG.integers(0, 5, size=20_000),
}


def counted(values):
    values = values.astype("f4")
    edges = binning.edges(values)
    return binning.count(values, edges), edges


@pytest.mark.parametrize("name", REFERENCES)
def test_the_reference_itself_scores_nothing(name):
    counts, _ = counted(REFERENCES[name])
    sums = scores.score_sums(scores.score_table(counts[None]), counts[None])
    assert np.abs(sums / counts.sum()).max() < 1e-12


def test_a_shift_of_a_tenth_scores_a_tenth_and_a_wider_spread_the_spread():
    counts, edges = counted(REFERENCES["continuous"])
    table = scores.score_table(counts[None])
    rng = np.random.default_rng(2)
    live = rng.normal(size=(2, 400_000)).astype("f4")
    shifted = binning.count(live[0] + np.float32(0.1), edges)
    wider = binning.count(live[1] * np.float32(1.1), edges)
    mean, spread = scores.embedding_scores(table, np.stack([shifted, wider])[:, None]).T
    assert mean[0] == pytest.approx(0.1, abs=0.02)  # the reference's own error is 1/√20,000
    assert mean[1] == pytest.approx(0, abs=0.02)
    assert spread[1] == pytest.approx((1.1**2 - 1) / np.sqrt(2), rel=0.08)


def test_scores_are_the_means_of_a_normal_variable_within_its_bins():
    counts = np.array([[10, 30, 40, 20]])
    table = scores.score_table(counts)
    edges = stats.norm.ppf([0, 0.1, 0.4, 0.8, 1])
    for index, (low, high) in enumerate(pairwise(edges)):
        within = stats.truncnorm(low, high)
        assert table[0, 0, index] == pytest.approx(within.mean())
        assert table[1, 0, index] == pytest.approx((within.moment(2) - 1) / np.sqrt(2))


def test_an_empty_bin_scores_by_its_place_and_beyond_the_outermost_filled_one_as_that():
    table = scores.score_table(np.array([[0, 50, 0, 50, 0]]))
    mean, spread = table[:, 0]
    assert mean[2] == pytest.approx(0)
    assert spread[2] == pytest.approx(-1 / np.sqrt(2))
    assert (mean[0], mean[4]) == (mean[1], mean[3])
    assert (spread[0], spread[4]) == (spread[1], spread[3])
    assert np.isfinite(table).all()


def test_a_row_with_all_in_one_bin_scores_nothing_anywhere():
    assert np.abs(scores.score_table(np.array([[0, 70, 0]]))).max() < 1e-12


def test_sums_of_parts_add_up_to_the_sums_of_the_whole():
    rng = np.random.default_rng(3)
    reference, parts = rng.integers(1, 50, (4, 32)), rng.integers(0, 9, (6, 4, 32))
    table = scores.score_table(reference)
    whole = scores.score_sums(table, parts.sum(axis=0))
    assert np.allclose(scores.score_sums(table, parts).sum(axis=0), whole)
    assert whole.shape == (8,)


def test_a_reference_row_without_counts_is_refused():
    with pytest.raises(ValueError, match="no counts"):
        scores.score_table(np.zeros((1, 4), int))


def test_confidence_scores_are_shares_mean_and_entropy():
    counts = np.zeros((2, 100), int)
    counts[0, [29, 30, 59, 60]] = [10, 20, 30, 40]
    low, middle, high, mean, entropy = scores.confidence_scores(counts).T
    assert (low[0], middle[0], high[0]) == (0.1, 0.5, 0.4)
    assert mean[0] == pytest.approx(0.295 * 0.1 + 0.305 * 0.2 + 0.595 * 0.3 + 0.605 * 0.4)
    assert entropy[0] == pytest.approx(stats.entropy([0.1, 0.2, 0.3, 0.4]) + 3 / 200)
    assert np.isnan([low[1], middle[1], high[1], mean[1], entropy[1]]).all()


def test_entropy_does_not_depend_on_how_many_images_were_counted():
    shares = np.full(100, 0.01)
    few = np.random.default_rng(4).multinomial(1000, shares, size=2000)
    assert scores.confidence_scores(few)[:, 4].mean() == pytest.approx(np.log(100), abs=0.002)


def test_detection_scores_are_those_of_detections_per_image():
    per_image = np.random.default_rng(5).poisson(2, 5000)
    counts = np.bincount(np.minimum(per_image, 63), minlength=64)[None]
    none, mean, spread, entropy = scores.detection_scores(counts)[0]
    assert none == pytest.approx((per_image == 0).mean())
    assert mean == pytest.approx(per_image.mean())
    assert spread == pytest.approx(np.log1p(per_image.var()))
    assert entropy == pytest.approx(stats.entropy(counts[0]), abs=0.002)


def test_every_score_has_a_name():
    assert scores.names("embedding", 6) == (
        "component 0 mean",
        "component 1 mean",
        "residual mean",
        "component 0 spread",
        "component 1 spread",
        "residual spread",
    )
    assert len(scores.names("confidence", 5)) == 5
    assert len(scores.names("detections", 4)) == 4
