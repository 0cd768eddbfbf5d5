"""A plan may say beforehand for how long after a change of weight latency is no evidence."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rollout import judge
from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval
from rollout.plans import needs
from tests.rollout.judge.traffic import Behaviour, lognormal

PATIENT = GateSpec("latency", 1.0, settings={"warm_up_seconds": 60})
EVIDENCE = ("fail", "pass", "trouble", "step")


def interval(at, *, slow=False, seed=3):
    """10 s of 500 requests in either arm."""
    rng = np.random.default_rng([seed, int(at)])
    canary = Behaviour(latency=lognormal(1.0)) if slow else Behaviour()
    return Interval(at, at + 10.0, canary.answer(rng, 500), Behaviour().answer(rng, 500))


def fed(spec, starts, *, slow, state=None):
    state = state or judge.enter_step(judge.start([spec]), 5)
    for at in starts:
        state = judge.absorb(state, "latency", interval(at, slow=slow))
    return state


def test_what_begins_in_the_warm_up_is_no_evidence_but_shows_what_stable_is_like():
    fresh = judge.enter_step(judge.start([PATIENT]), 5)
    warm = fed(PATIENT, np.arange(100.0, 160.0, 10.0), slow=True)["latency"]["evidence"]
    assert {name: warm[name] for name in EVIDENCE} == {
        name: fresh["latency"]["evidence"][name] for name in EVIDENCE
    }
    alone = fed(GateSpec("latency", 1.0), np.arange(100.0, 160.0, 10.0), slow=True)
    assert warm["past"] == alone["latency"]["evidence"]["past"]


def test_a_canary_that_stays_slow_is_rolled_back_after_it():
    cold = fed(PATIENT, np.arange(0.0, 60.0, 10.0), slow=True)
    assert judge.conclude(cold, 0.01).failed is None
    assert judge.conclude(fed(PATIENT, (60.0, 70.0), slow=True, state=cold), 0.01).failed is not None


def test_each_step_has_a_warm_up_of_its_own_from_its_first_interval():
    state = judge.enter_step(fed(PATIENT, np.arange(0.0, 120.0, 10.0), slow=False), 25)
    state = fed(PATIENT, np.arange(500.0, 560.0, 10.0), slow=True, state=state)
    assert judge.conclude(state, 0.01).failed is None


def test_without_a_word_nothing_is_left_out():
    plain, said = (GateSpec("latency", 1.0, settings=given) for given in ({}, {"warm_up_seconds": 0}))
    starts = (0.0, 10.0)
    evidence = [fed(spec, starts, slow=True)["latency"]["evidence"] for spec in (plain, said)]
    assert evidence[0] == evidence[1]
    assert judge.conclude(fed(plain, starts, slow=True), 0.01).failed is not None


def test_segments_warm_up_with_the_whole():
    spec = replace(PATIENT, segments="device")
    state = judge.enter_step(judge.start([spec]), 5)
    for step, first in ((5, 0.0), (25, 1_000.0)):
        state = judge.enter_step(state, step)
        for at in np.arange(first, first + 60.0, 10.0):
            seen = interval(at, slow=True)
            arms = (replace(arm, segments={"device=nano": arm}) for arm in (seen.canary, seen.stable))
            state = judge.absorb(state, "latency", Interval(seen.start, seen.end, *arms))
    assert judge.conclude(state, 0.01).log_e == pytest.approx(0.0, abs=1e-6)


def test_errors_are_judged_all_the_while():
    specs = [GateSpec("errors", 0.5), replace(PATIENT, weight=0.5)]
    state = judge.enter_step(judge.start(specs), 5)
    state = judge.absorb(state, "errors", Interval(0.0, 1.0, Arm(50, 50), Arm(950)))
    failed = judge.conclude(state, 0.01).failed
    assert failed is not None
    assert failed.name == "errors"


@pytest.mark.parametrize("seconds", [-1, 3601, "soon"])
def test_a_warm_up_that_is_none_is_refused(seconds):
    with pytest.raises(ValueError, match="warm_up_seconds"):
        get("latency").fresh({"warm_up_seconds": seconds})


def test_what_a_rollout_will_need_is_told_for_a_warm_canary():
    stable = Behaviour().answer(np.random.default_rng(4), 20_000)
    assert needs.to_pass(PATIENT, 50, stable) == needs.to_pass(GateSpec("latency", 1.0), 50, stable)
