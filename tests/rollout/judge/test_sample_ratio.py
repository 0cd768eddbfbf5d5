from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rollout.judge import EvidenceError, sample_ratio
from tests.rollout.judge.enumeration import outcomes


def _ends(share, tolerance):
    margin = tolerance * min(share, 1 - share)
    return share - margin, share, share + margin


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("n", [1, 12])
def test_expectation_of_an_interval_is_at_most_one_within_the_tolerance(share, tolerance, n):
    for true_share in _ends(share, tolerance):
        mean = sum(
            at * np.exp(sample_ratio.interval_log_e(n_c=n_c, n=n, share=share, tolerance=tolerance))
            for (n_c, _), at in outcomes(n, (true_share, 1 - true_share))
        )
        assert np.all(mean <= 1 + 1e-9)


@pytest.mark.parametrize("gap_seconds", [1.0, 400.0])
@pytest.mark.parametrize("divisor", [1.0, 3.0])
def test_expectation_of_the_whole_process_is_at_most_one_though_share_and_truth_change(gap_seconds, divisor):
    shares = (0.05, 0.25)
    for first in _ends(shares[0], 0.1):
        for second in _ends(shares[1], 0.1):
            mean = 0.0
            for (n_1, _), at_1 in outcomes(7, (first, 1 - first)):
                state = _seen(sample_ratio.fresh(), n_1, 7, shares[0], at=0.0, divisor=divisor)
                for (n_2, _), at_2 in outcomes(5, (second, 1 - second)):
                    end = _seen(state, n_2, 5, shares[1], at=gap_seconds, divisor=divisor)
                    mean += at_1 * at_2 * math.exp(sample_ratio.log_e(end))
            assert mean <= 1 + 1e-9


def _seen(state, n_c, n, share, *, at, **given):
    return sample_ratio.absorb(state, n_c=n_c, n=n, share=share, at=at, **given)


def _seconds_until_alarm(true_share, share, *, rate=200, seconds=600, from_second=0, seed=1):
    rng, state = np.random.default_rng(seed), sample_ratio.fresh()
    for second in range(seconds):
        now = true_share if second >= from_second else share
        state = _seen(state, rng.binomial(rate, now), rate, share, at=float(second))
        if sample_ratio.mismatched(state):
            return second + 1 - from_second
    return math.inf


@pytest.mark.parametrize(
    ("share", "true_share"), [(0.05, 0.07), (0.05, 0.03), (0.5, 0.42), (0.5, 0.6), (0.95, 0.92)]
)
def test_a_split_off_by_more_than_the_tolerance_is_found_within_minutes(share, true_share):
    assert np.median([_seconds_until_alarm(true_share, share, seed=s) for s in range(7)]) <= 180


@pytest.mark.parametrize(("share", "true_share", "within"), [(0.25, 0.0, 3), (0.05, 0.5, 2), (0.05, 0.0, 5)])
def test_a_router_that_does_not_follow_is_found_within_seconds(share, true_share, within):
    assert _seconds_until_alarm(true_share, share) <= within


def test_a_mismatch_that_begins_after_hours_is_found_too():
    late = _seconds_until_alarm(0.5, 0.25, rate=50, seconds=7_300, from_second=7_200)
    assert late <= 30


def test_the_harmless_unevenness_of_hashing_never_alarms():
    state = sample_ratio.fresh()
    for minute in range(24 * 60):
        state = _seen(state, 3_270, 60_000, 0.05, at=60.0 * minute)
        assert sample_ratio.log_e(state) < math.log(2)


def test_honest_splits_alarm_as_seldom_as_promised():
    rng, runs, alarms = np.random.default_rng(3), 150, 0
    for _ in range(runs):
        state = sample_ratio.fresh()
        for second in range(150):
            state = _seen(state, rng.binomial(100, 0.25), 100, 0.25, at=float(second), tolerance=0.0)
            if sample_ratio.mismatched(state, alpha=0.05):
                alarms += 1
                break
    assert alarms <= 0.05 * runs + 2 * math.sqrt(0.05 * runs)


@pytest.mark.parametrize(("n_c", "n", "share"), [(0, 0, 0.05), (7, 900, 0.0), (893, 900, 1.0)])
def test_where_there_is_no_split_there_is_nothing_to_test(n_c, n, share):
    state = _seen(sample_ratio.fresh(), n_c, n, share, at=0.0)
    assert sample_ratio.log_e(state) == pytest.approx(0)
    assert sample_ratio.sentence(state) == "no split of requests seen yet"


def test_a_divisor_weakens_the_evidence():
    plain, divided = (
        _seen(sample_ratio.fresh(), 90, 1_000, 0.05, at=0.0, divisor=divisor) for divisor in (1.0, 5.0)
    )
    assert sample_ratio.log_e(divided) < sample_ratio.log_e(plain)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_c": 11},
        {"n_c": math.nan},
        {"n": math.inf},
        {"n_c": -1},
        {"share": 1.1},
        {"share": math.nan},
        {"at": math.nan},
        {"tolerance": 1.0},
        {"tolerance": -0.1},
        {"divisor": 0.5},
        {"divisor": math.inf},
    ],
)
def test_what_cannot_be_is_refused(wrong):
    good = {"n_c": 1, "n": 10, "share": 0.1, "at": 0.0}
    with pytest.raises(EvidenceError):
        sample_ratio.absorb(sample_ratio.fresh(), **{**good, **wrong})


def test_the_numbers_are_told_over_changing_weights_and_survive_json():
    state = _seen(sample_ratio.fresh(), 500, 10_000, 0.05, at=0.0)
    state = json.loads(json.dumps(state, allow_nan=False))
    state = _seen(state, 1_000, 10_000, 0.25, at=10.0)
    assert sample_ratio.sentence(state) == "canary got 1,500 of 20,000 requests (7.50 %), expected 15.00 %"
