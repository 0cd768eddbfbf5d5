"""Objects per image: more or fewer than stable beyond the margin is told, in either direction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from rollout.judge import mixture
from tests.rollout.judge.enumeration import outcomes

GATE, SPEC = get("detections"), GateSpec("detections", 1.0)
N_C, N_B = 3, 4


def images(none, one, many):
    """An arm with so many images of 0, 1 and 5 objects."""
    histogram = [0] * 64
    histogram[0], histogram[1], histogram[5] = none, one, many
    return Arm(none + one + many, detections=tuple(histogram))


def expected(canary, stable, weight_percent=25):
    """Expected (E of harm, e of the promotion) after one interval; canary, stable: shares of 0, 1 and 5 objects."""
    state = GATE.enter_step(GATE.fresh({}), weight_percent)
    state = GATE.absorb(state, Interval(0.0, 10.0, images(0, 0, 0), images(1_200, 2_000, 800)))
    mean = np.zeros(2)
    for x, p in outcomes(N_C, canary):
        for y, q in outcomes(N_B, stable):
            if p and q:
                mean += p * q * _evidence(GATE.absorb(state, Interval(10.0, 20.0, images(*x), images(*y))))
    return mean / _evidence(state)


def _evidence(state):
    return np.exp([mixture.log_e(state["fail"]), GATE.log_pass(state)])


@pytest.mark.parametrize("stable", [(0.3, 0.5, 0.2), (0.05, 0.9, 0.05), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)])
@pytest.mark.parametrize("way", [-1, 1])
def test_a_difference_within_the_margin_gains_no_evidence_of_harm(stable, way):
    delta = GATE.defaults["delta"]
    for step in (0.0, delta / 2, delta):
        moved = float(np.clip(stable[0] + way * step, 0, 1)) - stable[0]
        canary = (stable[0] + moved, max(0.0, stable[1] - moved), 0.0)
        canary = (*canary[:2], 1 - sum(canary[:2]))
        if max(abs(canary[2] - stable[2]), abs(canary[0] - stable[0])) <= delta + 1e-12 and min(canary) >= 0:
            harm, _ = expected(canary, stable)
            assert harm <= 1 + 1e-9


@pytest.mark.parametrize("weight_percent", [1, 5, 25, 50])
@pytest.mark.parametrize(("more", "at"), [(1, 0), (-1, 0), (1, 2), (-1, 2)])
def test_a_difference_of_the_margin_gains_nothing_for_promotion(weight_percent, more, at):
    stable = np.array([0.3, 0.4, 0.3])
    margin = GATE.defaults["margin_points"][str(weight_percent)] / 100
    canary = stable.copy()
    canary[at] += more * margin
    canary[1] -= more * margin
    _, promotion = expected(tuple(canary), tuple(stable), weight_percent)
    assert promotion <= 1 + 1e-9


def judged(mean_c, mean_b, intervals=40, n=(60, 600)):
    rng = np.random.default_rng(3)
    state = GATE.enter_step(GATE.fresh({}), 10)
    for i in range(intervals):
        pair = [
            Arm(k, detections=tuple(np.bincount(np.minimum(rng.poisson(mean, k), 63), minlength=64).tolist()))
            for k, mean in zip(n, (mean_c, mean_b), strict=True)
        ]
        state = GATE.absorb(state, Interval(10.0 * i, 10.0 * i + 10, *pair))
    return state


@pytest.mark.parametrize(("mean", "words"), [(4.5, "or more objects"), (1.8, "fewer than")])
def test_a_canary_that_finds_more_or_fewer_objects_fails_and_says_which(mean, words):
    state = judged(mean, 3.0)
    assert GATE.verdict(state, SPEC).log_e_fail >= math.log(100)
    failure = GATE.failure(state, SPEC)
    assert failure.verdict is Verdict.FAIL
    assert words in failure.reason
    assert failure.value > 0


def test_an_equal_canary_passes():
    verdict = GATE.verdict(judged(3.0, 3.0), SPEC)
    assert verdict.verdict is Verdict.PASS
    assert verdict.log_e_fail < 1


def test_a_canary_that_lost_a_direction_does_not_pass_on_the_other_one():
    assert GATE.verdict(judged(3.6, 3.0), SPEC).verdict is Verdict.INCONCLUSIVE


def test_a_detector_of_at_most_one_object_is_judged_by_whether_there_is_one():
    rng = np.random.default_rng(3)
    state = GATE.enter_step(GATE.fresh({}), 10)
    for i in range(40):
        found = rng.binomial(60, 0.5), rng.binomial(600, 0.3)
        arms = images(60 - found[0], found[0], 0), images(600 - found[1], found[1], 0)
        state = GATE.absorb(state, Interval(10.0 * i, 10.0 * i + 10, *arms))
    assert GATE.verdict(state, SPEC).log_e_fail >= math.log(100)
    assert "1 or more objects" in GATE.failure(state, SPEC).reason
