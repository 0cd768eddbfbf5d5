from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rollout.gates.base import Labelled, LabelledStratum
from rollout.judge import EvidenceError, mixture, weighted_labels
from rollout.judge.half_plane import HARM, NON_INFERIORITY
from tests.rollout.judge.enumeration import outcomes

#: Inclusion weights of two classes of requests, and the share of requests in the second.
WEIGHTS, SECOND = (1.0, 4.0), 0.6
STAKES = np.array([0.0, 0.05, 0.6, 1e9])
#: Wrong answers among either class's requests.
RATES = [(0.0, 0.0), (0.01, 0.02), (0.2, 0.0), (0.0, 0.5), (0.4, 0.4), (1.0, 1.0)]
SIDES = {"harm": HARM, "non_inferiority": NON_INFERIORITY}


def _wrong(rates):
    return (1 - SECOND) * rates[0] + SECOND * rates[1]


def _labels(n, rates):
    """(Labelled, probability) of every outcome of n requests."""
    seen = [(1 - SECOND) * rates[0] / WEIGHTS[0], SECOND * rates[1] / WEIGHTS[1]]
    for (first, second, _), at in outcomes(n, (*seen, 1 - sum(seen))):
        yield Labelled(n, ((WEIGHTS[0], first), (WEIGHTS[1], second))), at


def _log_e(canary, stable, **given):
    given = {
        "side": HARM,
        "stake": STAKES,
        "centre": 0.1,
        "theta0": 1.0,
        "delta": 0.0,
        "max_weight": 4.0,
    } | given
    return weighted_labels.log_e(LabelledStratum("5 %, 12:07", canary, stable), **given)


@pytest.mark.parametrize(("theta0", "delta"), [(1.0, 0.0), (0.999, 0.001), (1.25, 0.1)])
@pytest.mark.parametrize(("n_c", "n_b"), [(1, 1), (2, 4), (3, 2), (5, 1)])
@pytest.mark.parametrize("centre", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
def test_expectation_is_at_most_one_on_the_whole_null(side, theta0, delta, n_c, n_b, centre):
    null = [
        (canary, stable)
        for canary, stable in itertools.product(RATES, RATES)
        if side * (_wrong(canary) - theta0 * _wrong(stable) - delta) <= 1e-12
    ]
    for rates_c, rates_b in null:
        mean = sum(
            at_c * at_b * np.exp(_log_e(canary, stable, side=side, centre=centre, theta0=theta0, delta=delta))
            for canary, at_c in _labels(n_c, rates_c)
            for stable, at_b in _labels(n_b, rates_b)
        )
        assert np.all(mean <= 1 + 1e-9)


@pytest.mark.parametrize("came", [0.0, 0.3, 0.8])
def test_labels_that_never_come_in_either_arm_do_not_break_the_expectation_of_harm(came):
    for rates_c, rates_b in itertools.product(RATES, RATES):
        if _wrong(rates_c) > 0.999 * _wrong(rates_b) + 0.001:
            continue
        canary_rates, stable_rates = ([came * rate for rate in rates] for rates in (rates_c, rates_b))
        mean = sum(
            at_c * at_b * np.exp(_log_e(canary, stable, theta0=0.999, delta=0.001))
            for canary, at_c in _labels(3, canary_rates)
            for stable, at_b in _labels(3, stable_rates)
        )
        assert np.all(mean <= 1 + 1e-9)


def test_it_is_the_designs_formula_with_the_canarys_own_centre():
    u, mu, theta0, delta = 0.05, 0.1, 1.25, 0.02
    v, mu_c = u * theta0 * 30 / 600, theta0 * mu + delta
    found = _log_e(
        Labelled(30, ((1.0, 2), (4.0, 3))),
        Labelled(600, ((4.0, 9),)),
        stake=[u],
        theta0=theta0,
        delta=delta,
    )
    wanted = 2 * math.log(1 + u * (1 - mu_c)) + 3 * math.log(1 + u * (4 - mu_c)) + 25 * math.log(1 - u * mu_c)
    wanted += 9 * math.log(1 - v * (4 - mu)) + 591 * math.log(1 + v * mu)
    assert found == pytest.approx([wanted])


@pytest.mark.parametrize("side", SIDES.values(), ids=SIDES)
def test_the_stake_is_clipped_by_the_greatest_possible_weight_not_by_those_seen(side):
    """Else the same requests would be bet on differently when a heavy label happens to come."""
    light, none = (Labelled(50, ((1.0, 1),)), Labelled(50))
    rash = _log_e(light, none, side=side, stake=[1e9], max_weight=20.0)
    assert rash != pytest.approx(_log_e(light, none, side=side, stake=[1e9], max_weight=1.0))
    listed = Labelled(50, ((1.0, 1), (20.0, 0)))
    assert rash == pytest.approx(_log_e(listed, none, side=side, stake=[1e9], max_weight=20.0))


def test_weights_in_floating_point_are_accepted_at_the_ends():
    heaviest = 1 / 0.07
    found = _log_e(
        Labelled(9, ((heaviest * (1 + 1e-12), 1), (1 - 1e-12, 1))),
        Labelled(9),
        max_weight=heaviest,
        stake=[1e9],
    )
    assert np.isfinite(found).all()


@pytest.mark.parametrize(
    "arm",
    [
        Labelled(-1),
        Labelled(math.nan),
        Labelled(5, ((1.0, 6),)),
        Labelled(5, ((1.0, 3), (4.0, 3))),
        Labelled(5, ((1.0, -1),)),
        Labelled(5, ((1.0, math.nan),)),
        Labelled(5, ((0.5, 1),)),
        Labelled(5, ((4.1, 1),)),
        Labelled(5, ((math.nan, 1),)),
        Labelled(5, ((math.inf, 1),)),
    ],
)
def test_labels_that_cannot_be_are_refused(arm):
    with pytest.raises(EvidenceError):
        _log_e(arm, Labelled(5))
    with pytest.raises(EvidenceError):
        _log_e(Labelled(5), arm)


@pytest.mark.parametrize("max_weight", [0.5, math.nan, math.inf])
def test_a_greatest_weight_is_needed(max_weight):
    with pytest.raises(EvidenceError, match="greatest weight"):
        _log_e(Labelled(5), Labelled(5), max_weight=max_weight)


@pytest.mark.parametrize(("n_c", "n_b"), [(0, 50), (50, 0), (0, 0)])
def test_an_arm_without_requests_is_no_evidence(n_c, n_b):
    assert not _log_e(Labelled(n_c), Labelled(n_b)).any()


def _sampled(rng, n, wrong):
    """n requests of which a fifth, the unsure ones, is labelled always and the rest one in twenty."""
    unsure = rng.binomial(n, 0.2)
    return Labelled(
        int(n),
        (
            (1.0, int(rng.binomial(unsure, min(1.0, 3 * wrong)))),
            (20.0, int(rng.binomial(rng.binomial(n - unsure, 0.5 * wrong), 1 / 20))),
        ),
    )


def _matured_until(wrong_c, wrong_b, line, *, side, delta, seed, most=60_000):
    """Canary's matured requests until the e-value reaches the line, one stratum a minute, at 25 %."""
    rng = np.random.default_rng(seed)
    excesses = np.array([0.5, 1.0, 2.0]) * abs(wrong_c - wrong_b - delta)
    sums = np.zeros(len(excesses))
    for matured in range(500, most, 500):
        canary, stable = _sampled(rng, 500, wrong_c), _sampled(rng, 1_500, wrong_b)
        stake = weighted_labels.stake(
            excess=excesses, wrong_c=wrong_b, wrong_b=wrong_b, mean_weight=9.0, n_c=500, n_b=1_500
        )
        sums += _log_e(canary, stable, side=side, stake=stake, centre=wrong_b, delta=delta, max_weight=20.0)
        if mixture.log_mean(sums) >= math.log(line):
            return matured
    return math.inf


def test_the_samples_shares_are_unbiased():
    rng = np.random.default_rng(2)
    arms = [_sampled(rng, 100_000, 0.10) for _ in range(20)]
    estimates = [sum(weight * wrong for weight, wrong in arm.classes) / arm.n for arm in arms]
    assert np.mean(estimates) == pytest.approx(0.10, abs=0.002)


def test_a_canary_that_is_wrong_twice_as_often_is_found():
    needed = [_matured_until(0.20, 0.10, 100, side=HARM, delta=0.0, seed=s) for s in range(10)]
    assert np.median(needed) <= 6_000


def test_an_equal_canary_is_proven_not_to_be_five_points_worse():
    needed = [_matured_until(0.10, 0.10, 20, side=NON_INFERIORITY, delta=0.05, seed=s) for s in range(10)]
    assert np.median(needed) <= 12_000
