"""The label-free estimate: a mean of expected mistakes, compared one-sidedly with stable's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from rollout.judge import mixture
from tests.rollout.judge.enumeration import outcomes

GATE = get("label_free_accuracy")
SPEC = GateSpec("label_free_accuracy", 0.1)
LINE = math.log(100)


def arm(sure, unsure):
    """`sure` predictions of confidence .995, `unsure` of .305."""
    histogram = [0] * 100
    histogram[99], histogram[30] = sure, unsure
    return Arm(sure + unsure, confidence=tuple(histogram))


def run(rng, unsure_c, unsure_b, intervals, **settings):
    state = GATE.enter_step(GATE.fresh(settings), 25)
    for i in range(intervals):
        arms = []
        for n, rate in ((500, unsure_c), (1_500, unsure_b)):
            x = int(rng.binomial(n, rate))
            arms.append(arm(n - x, x))
        state = GATE.absorb(state, Interval(10.0 * i, 10.0 * i + 10, *arms))
        yield state


@pytest.mark.parametrize("unsure_b", [0.0, 0.1, 0.6])
def test_a_tolerated_mean_gains_no_evidence_of_harm(unsure_b):
    state = GATE.enter_step(GATE.fresh({}), 25)
    state = GATE.absorb(state, Interval(0.0, 10.0, arm(0, 0), arm(4_500, 500)))
    before = math.exp(mixture.log_e(state["fail"]))
    for unsure_c in (unsure_b, min(1.0, 1.25 * unsure_b + 0.02)):
        mean = sum(
            p
            * q
            * math.exp(mixture.log_e(GATE.absorb(state, Interval(10.0, 20.0, arm(*x), arm(*y)))["fail"]))
            for x, p in outcomes(3, (1 - unsure_c, unsure_c))
            for y, q in outcomes(4, (1 - unsure_b, unsure_b))
        )
        assert mean <= before * (1 + 1e-9)


def test_an_equal_canary_passes_and_its_estimate_is_told():
    *_, state = run(np.random.default_rng(1), 0.1, 0.1, 60)
    verdict = GATE.verdict(state, SPEC)
    assert verdict.verdict is Verdict.PASS
    assert "by its confidence the canary is wrong in 7" in verdict.reason


def test_a_canary_that_doubts_itself_fails():
    states = list(run(np.random.default_rng(2), 0.3, 0.1, 60))
    assert any(mixture.log_e(state["fail"]) >= LINE for state in states)


def test_a_canary_that_is_surer_never_fails():
    *_, state = run(np.random.default_rng(3), 0.02, 0.1, 60)
    assert mixture.log_e(state["fail"]) < 0.1
    assert GATE.verdict(state, SPEC).verdict is Verdict.PASS


def test_the_calibration_says_what_a_confidence_is_worth():
    """Where .3 stands for 90 % accuracy, doubting itself three times as often costs 2 points only."""
    table = {"30.5": 0.9, "100": 1.0}
    *_, state = run(np.random.default_rng(4), 0.3, 0.1, 60, calibration=table)
    assert GATE.verdict(state, SPEC).value == pytest.approx(2.0, abs=0.3)
    assert mixture.log_e(state["fail"]) < LINE


@pytest.mark.parametrize("table", [{"50": 1.2}, {"0": 0.1}, {"sure": 1.0}, {}])
def test_a_calibration_that_makes_no_sense_is_refused(table):
    with pytest.raises(ValueError, match="calibration"):
        GATE.fresh({"calibration": table})
