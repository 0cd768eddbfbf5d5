from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.confidence_sequence import boundary, labels_needed, sequence

LOOKS = range(50, 3001, 50)


def ever_missed(rng, wrong_share, runs, unequal=False):
    """In how many runs the truth lies outside at any look."""
    missed = 0
    for _ in range(runs):
        q = rng.choice([0.1, 0.5, 1.0], size=3000) if unequal else np.ones(3000)
        wrong = rng.random(3000) < wrong_share
        for n in LOOKS:
            low, high = sequence(wrong[:n], q[:n])
            if not low <= 1 - wrong_share <= high:
                missed += 1
                break
    return missed


@pytest.mark.parametrize("wrong_share", [0.5, 0.1, 0.02, 0.002])
def test_the_truth_is_left_out_at_any_of_all_looks_once_in_a_hundred_at_most(wrong_share):
    assert ever_missed(np.random.default_rng(1), wrong_share, 300) <= 9  # 3 and three standard deviations


def test_unequal_draws_keep_the_promise():
    assert ever_missed(np.random.default_rng(2), 0.1, 200, unequal=True) <= 7


def test_a_window_that_slides_for_months_errs_rarely_as_well():
    wrong = np.random.default_rng(9).random((100, 120, 40)) < 0.05  # fleets, days, labels of a day
    alarmed = 0
    for fleet in wrong:
        windows = (fleet[day - 30 : day].ravel() for day in range(30, 121))
        alarmed += any(sequence(rows, np.ones(len(rows)))[1] < 0.999 * 0.95 for rows in windows)
    assert alarmed <= 4  # .7 % of 1,000 simulated fleets


def test_an_interval_made_for_one_look_would_not_keep_it():
    rng = np.random.default_rng(3)
    missed = 0
    for _ in range(300):
        mean = np.cumsum(rng.random(3000) < 0.5)[[n - 1 for n in LOOKS]] / np.array(LOOKS)
        missed += bool((np.abs(mean - 0.5) > 2.576 * 0.5 / np.sqrt(LOOKS)).any())
    assert missed > 15


def test_a_loss_is_found_with_about_the_labels_that_were_said_to_be_needed():
    rng = np.random.default_rng(4)
    needed = labels_needed(0.10, 0.05)
    found = [sequence(rng.random(needed) < 0.15, np.ones(needed))[1] < 0.90 for _ in range(200)]
    assert 0.2 < np.mean(found) < 0.7  # the half width equals the loss there, with a little more variance


def test_the_boundary_is_the_published_formula():
    # Waudby-Smith et al., eq. (5): sqrt(2(tρ² + 1)/(t²ρ²) · log(sqrt(tρ² + 1)/α)), ρ of their appendix B.2.
    rho_squared = (-2 * np.log(0.05) + np.log(-2 * np.log(0.05) + 1)) / 500
    for t in (50, 500, 5000):
        wanted = np.sqrt(
            2 * (t * rho_squared + 1) / (t**2 * rho_squared) * np.log(np.sqrt(t * rho_squared + 1) / 0.05)
        )
        assert boundary(t, 0.95, 500) == pytest.approx(wanted)


def test_it_is_wider_than_one_look_s_interval_and_shrinks():
    widths = [boundary(n) * np.sqrt(n) for n in (100, 1000, 10_000)]
    assert all(width > 2.576 for width in widths)
    assert boundary(10_000) < boundary(1000) < boundary(100)


def test_below_50_labels_nothing_is_excluded():
    assert sequence([True] * 49, [1.0] * 49) == (0.0, 1.0)


def test_labels_that_are_all_wrong_or_all_right_keep_a_width():
    low, high = sequence([True] * 60, [1.0] * 60)
    assert low == 0
    assert 0 < high < 0.5
    low, high = sequence([False] * 60, [1.0] * 60)
    assert 0.5 < low < 1
    assert high == 1


def test_fewer_labels_are_needed_for_a_larger_difference():
    assert labels_needed(0.1, 0.1) < labels_needed(0.1, 0.01) < labels_needed(0.1, 0.001)
    assert boundary(labels_needed(0.1, 0.01)) * 0.3 <= 0.01 < boundary(labels_needed(0.1, 0.01) - 1) * 0.3


@pytest.mark.parametrize("difference", [0.0, -0.1, 1.0, float("nan")])
def test_no_difference_needs_no_end_of_labels_and_is_refused(difference):
    with pytest.raises(ValueError, match="difference"):
        labels_needed(0.1, difference)


@pytest.mark.parametrize("probability", [0.0, -1.0, 1.5, float("nan")])
def test_impossible_probabilities_are_refused(probability):
    with pytest.raises(ValueError, match="probability"):
        sequence([True], [probability])
