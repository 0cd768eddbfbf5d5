"""Images that would go to people: the share of confidences within a range, one-sided."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from rollout.judge import mixture
from tests.rollout.judge.enumeration import outcomes

GATE, SPEC = get("unsure_share"), GateSpec("unsure_share", 1.0)


def arm(unsure, others=0, bin_=45):
    """An arm with so many confidences in one bin, and others at .95."""
    histogram = [0] * 100
    histogram[bin_], histogram[95] = unsure, others
    return Arm(unsure + others, confidence=tuple(histogram))


def known(settings=None):
    state = GATE.enter_step(GATE.fresh(settings or {}), 25)
    return GATE.absorb(state, Interval(0.0, 10.0, arm(0), arm(500, 4_500)))


@pytest.mark.parametrize("p_b", [0.0, 0.1, 0.4])
def test_a_tolerated_share_gains_no_evidence_of_harm_and_the_margin_none_for_promotion(p_b):
    settings, state = GATE.defaults, known()
    boundary = settings["theta0"] * p_b + settings["delta"]
    least = p_b + settings["margin_points"]["25"] / 100
    for p_c, side in ((boundary, 0), (boundary / 2, 0), (least, 1), (1.0, 1)):
        mean = 0.0
        for x, p in outcomes(3, (p_c, 1 - p_c)):
            for y, q in outcomes(5, (p_b, 1 - p_b)):
                after = GATE.absorb(state, Interval(10.0, 20.0, arm(*x), arm(*y)))
                mean += p * q * _evidence(after)[side]
        assert mean / _evidence(state)[side] <= 1 + 1e-9


def _evidence(state):
    return np.exp([mixture.log_e(state["fail"]), GATE.log_pass(state)])


def judged(share_c, share_b, settings=None, bin_=45):
    rng, state = np.random.default_rng(2), known(settings)
    for i in range(1, 40):
        unsure = rng.binomial(50, share_c), rng.binomial(500, share_b)
        arms = arm(unsure[0], 50 - unsure[0], bin_), arm(unsure[1], 500 - unsure[1], bin_)
        state = GATE.absorb(state, Interval(10.0 * i, 10.0 * i + 10, *arms))
    return state


def test_a_canary_that_floods_the_queue_fails_and_says_so():
    state = judged(0.3, 0.1)
    assert GATE.verdict(state, SPEC).log_e_fail >= math.log(100)
    assert "of confidence .30 to .60" in GATE.failure(state, SPEC).reason


def test_a_surer_canary_never_fails_and_passes():
    verdict = GATE.verdict(judged(0.02, 0.1), SPEC)
    assert verdict.log_e_fail < 1
    assert verdict.verdict is Verdict.PASS


def test_only_confidences_within_the_plans_range_count():
    wide = {"lower": 0.0, "upper": 0.7}
    assert GATE.verdict(judged(0.3, 0.1, bin_=65), SPEC).log_e_fail < 1
    assert GATE.verdict(judged(0.3, 0.1, wide, bin_=65), SPEC).log_e_fail >= math.log(100)


@pytest.mark.parametrize("settings", [{"lower": 0.6}, {"lower": 0.7, "upper": 0.5}, {"upper": 0.001}])
def test_a_range_without_a_bin_is_refused(settings):
    with pytest.raises(ValueError, match=r"^lower: "):
        GATE.fresh(settings)
