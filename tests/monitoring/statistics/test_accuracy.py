from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monitoring.statistics.accuracy import estimate

SHARE = np.array([0.1, 0.3, 0.6])  # of the traffic, by stratum of confidence
SCENES = {  # probability of a draw, and of being wrong, by stratum
    "equal draws": ([0.02, 0.02, 0.02], [0.5, 0.2, 0.02]),
    "unsure images drawn more": ([0.1, 0.05, 0.01], [0.5, 0.2, 0.02]),
    "errors where few are drawn": ([0.1, 0.05, 0.01], [0.02, 0.02, 0.1]),
    "nearly always right": ([0.05, 0.02, 0.01], [0.01, 0.003, 0.001]),
}


def draw(rng, traffic, probability, wrong):
    stratum = rng.choice(3, size=traffic, p=SHARE)
    y = rng.random(traffic) < np.array(wrong)[stratum]
    q = np.array(probability)[stratum]
    drawn = rng.random(traffic) < q
    return y, y[drawn], q[drawn]


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("traffic", [1000, 10_000])
def test_the_interval_covers_the_truth_as_often_as_it_says(scene, traffic):
    rng = np.random.default_rng(5)
    truth = 1 - SHARE @ np.array(SCENES[scene][1])
    covered = []
    for _ in range(600):
        found = estimate(*draw(rng, traffic, *SCENES[scene])[1:])
        covered.append(found.low <= truth <= found.high)
    assert np.mean(covered) > 0.95 - 3 * np.sqrt(0.95 * 0.05 / 600)


@pytest.mark.parametrize("scene", SCENES)
def test_unequal_draws_do_not_bias_the_estimate(scene):
    rng = np.random.default_rng(6)
    differences = []
    for _ in range(300):
        everything, wrong, probability = draw(rng, 20_000, *SCENES[scene])
        differences.append(estimate(wrong, probability).accuracy - (1 - everything.mean()))
    assert abs(np.mean(differences)) < 3 * np.std(differences) / np.sqrt(300) + 0.001


def test_with_equal_probabilities_it_is_wilsons_interval():
    wrong = np.arange(50) < 7
    found = estimate(wrong, np.full(50, 0.1))
    wanted = stats.binomtest(43, 50).proportion_ci(method="wilson")
    assert (found.accuracy, found.n) == (pytest.approx(0.86), 50)
    assert found.effective_n == pytest.approx(50)
    assert (found.low, found.high) == (pytest.approx(wanted.low), pytest.approx(wanted.high))


def test_no_errors_seen_is_not_perfection():
    found = estimate([False] * 20, [0.5] * 20)
    assert found.accuracy == 1
    assert found.low < 0.85


def test_without_labels_nothing_is_known():
    found = estimate([], [])
    assert (found.accuracy, found.low, found.high, found.n) == (None, 0, 1, 0)


@pytest.mark.parametrize("probability", [0.0, -1.0, 1.5, float("nan")])
def test_impossible_probabilities_are_refused(probability):
    with pytest.raises(ValueError, match="probability"):
        estimate([True], [probability])
