"""Parity by pairs: a share above or below its budget, shown as soon as chance allows and not before."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval, Pairs, Verdict
from rollout.judge import EvidenceError, mixture
from tests.rollout.judge.enumeration import outcomes

GATE = get("parity")
SPEC = GateSpec("parity", 0.2)
LINE = math.log(100)


def interval(i, **pairs):
    return Interval(10.0 * i, 10.0 * i + 10, Arm(1), Arm(1), pairs=Pairs(**pairs))


def begun(**settings):
    return GATE.enter_step(GATE.fresh(settings), 0)


def cosines(close, apart):
    return (*(0,) * 50, apart, *(0,) * 48, close)


def run(rng, differ, intervals, *, per_interval=500):
    state = begun()
    for i in range(intervals):
        x = int(rng.binomial(per_interval, differ))
        state = GATE.absorb(state, interval(i, compared=per_interval, agreed=per_interval - x))
        yield state


@pytest.mark.parametrize("differ", [0.0, 0.0005, 0.001])
def test_agreement_within_the_budget_gains_no_evidence_of_harm(differ):
    state = begun()
    mean = sum(
        p * math.exp(mixture.log_e(GATE.absorb(state, interval(0, compared=20, agreed=ok))["fail"]))
        for (ok, _), p in outcomes(20, (1 - differ, differ))
    )
    assert mean <= 1 + 1e-9


@pytest.mark.parametrize("differ", [0.002, 0.01, 1.0])
def test_agreement_below_the_tolerance_gains_none_for_promotion(differ):
    state = begun()
    mean = sum(
        p * math.exp(GATE.verdict(GATE.absorb(state, interval(0, compared=20, agreed=ok)), SPEC).log_e_pass)
        for (ok, _), p in outcomes(20, (1 - differ, differ))
        if p
    )
    assert mean <= 1 + 1e-9


def test_a_faithful_variant_passes_after_some_thousand_pairs():
    *_, state = run(np.random.default_rng(1), 0.0003, 12)
    verdict = GATE.verdict(state, SPEC)
    assert verdict.verdict is Verdict.PASS
    assert verdict.n == 6_000
    assert verdict.value == pytest.approx(99.97, abs=0.06)
    assert "an agreement below 99.8 % is excluded" in verdict.reason


def test_a_variant_at_99_percent_fails_within_some_hundred_pairs():
    rng = np.random.default_rng(2)
    needed = []
    for _ in range(20):
        for state in run(rng, 0.01, 60, per_interval=50):
            if mixture.log_e(state["fail"]) >= LINE:
                needed.append(GATE.failure(state, SPEC).n)
                break
    assert len(needed) == 20
    assert np.median(needed) <= 1_000


def test_a_variant_exactly_at_its_budget_is_seldom_failed():
    rng = np.random.default_rng(3)
    crossed = sum(any(mixture.log_e(s["fail"]) >= LINE for s in run(rng, 0.001, 40)) for _ in range(300))
    assert crossed <= 9  # expected at most 3


def test_embeddings_must_stay_close_too():
    state = begun()
    for i in range(20):
        state = GATE.absorb(state, interval(i, compared=500, agreed=500, cosine=cosines(490, 10)))
    verdict = GATE.verdict(state, SPEC)
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.log_e_fail > LINE
    assert verdict.value == pytest.approx(98.0)


def test_embeddings_alone_can_show_parity():
    state = begun()
    for i in range(8):
        state = GATE.absorb(state, interval(i, cosine=cosines(500, 0)))
    assert GATE.verdict(state, SPEC).verdict is Verdict.PASS


def test_the_budget_is_the_plans():
    state = begun(agreement=0.95, tolerance_points=1.0)
    for i in range(4):
        state = GATE.absorb(state, interval(i, compared=500, agreed=485))
    verdict = GATE.verdict(state, SPEC)
    assert verdict.verdict is Verdict.PASS
    assert verdict.bound == pytest.approx(95.0)


def test_what_was_shown_holds_in_the_steps_that_follow():
    *_, state = run(np.random.default_rng(4), 0.0, 12)
    assert GATE.verdict(GATE.enter_step(state, 50), SPEC).verdict is Verdict.PASS


def test_more_agreements_than_pairs_are_refused():
    with pytest.raises(EvidenceError):
        GATE.absorb(begun(), interval(0, compared=5, agreed=6))


@pytest.mark.parametrize(
    "settings", [{"agreement": 1.0}, {"agreement": 0.1}, {"tolerance_points": 0}, {"least_cosine": 2}]
)
def test_a_setting_that_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        GATE.fresh(settings)
