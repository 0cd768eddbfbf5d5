"""Slow requests and unsure predictions come in clusters, too: where users stay in an arm they count for less."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout import judge
from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval
from rollout.judge import dispersion
from tests.rollout.judge.traffic import Behaviour, lognormal, unsure

NAMES = ("latency", "confidence", "unsure_share")
KNOWN = {"seconds": 7200.0, "errors": 1000.0, "weight": 1.0, "weighted_phi": 1.0}  # errors come one by one


def told(spec, assignment, history=None):
    """A judge that knows what the router assigns, and what the past says of errors."""
    state = judge.enter_step(judge.start([spec]), 50)
    known = {"assignment": assignment, "history": history or dispersion.fresh()}
    return judge.absorb(state, spec.name, Interval(-9.0, 0.0, Arm(0), Arm(0), known=known))


@pytest.mark.parametrize(
    ("assignment", "divisor", "said"),
    [
        ("request", 1.0, "φ = 1 declared: requests are assigned one by one"),
        ("key", 6.5, "come in clusters: φ = 5.0 assumed, evidence is divided by 6.5"),
        ("connection", 6.5, "come in clusters: φ = 5.0 assumed, evidence is divided by 6.5"),
    ],
)
@pytest.mark.parametrize("name", NAMES)
def test_phi_is_assumed_by_what_the_router_assigns_and_the_page_says_so(name, assignment, divisor, said):
    rng, state = np.random.default_rng(1), told(GateSpec(name, 1.0), assignment)
    for i in range(2):
        arms = Behaviour().answer(rng, 500), Behaviour().answer(rng, 500)
        state = judge.absorb(state, name, Interval(10.0 * i, 10.0 * i + 10, *arms))
    assert state[name]["evidence"]["divisor"] == pytest.approx(divisor)
    assert judge.conclude(state, 0.01).gates[0].reason.endswith(said)


@pytest.mark.parametrize("name", NAMES)
def test_single_errors_say_nothing_about_other_events(name):
    spec = GateSpec(name, 1.0)
    state = told(spec, "key", KNOWN)
    assert state == told(spec, "key")
    errors = Arm(1_000, 16, errors_by_key_bucket=(1,) * 16)
    seen = Interval(0.0, 10.0, Arm(100), errors, aside=True)
    assert judge.absorb(state, name, seen) == state


@pytest.mark.parametrize("name", NAMES)
def test_a_rollout_from_before_is_told_on_its_next_look(name):
    state = judge.start([GateSpec(name, 1.0)])
    del state[name]["evidence"]["dispersion"]
    assert judge.unassumed(state) == [name]


def highest_log_e(state, cluster, seed):
    """The most that E ever was while users send `cluster` equal pictures each, to either arm by its share."""
    rng, highest = np.random.default_rng([seed, cluster]), -math.inf
    stable = unsure(0.1)
    for i in range(60):
        arms = []
        for n in (200, 800):
            confidence = tuple((cluster * rng.multinomial(n // cluster, stable)).tolist())
            arms.append(Arm(sum(confidence), 0, confidence=confidence))
        state = judge.absorb(state, "confidence", Interval(10.0 * i, 10.0 * i + 10, *arms))
        highest = max(highest, judge.conclude(state, 0.05).log_e)
    return highest


def test_users_who_stay_in_an_arm_do_not_roll_a_healthy_canary_back():
    """Both arms at the null's boundary: at α = .05 within two deviations. Taken one by one they would."""
    runs, strict = 15, GateSpec("confidence", 1.0, settings={"theta0": 1.0, "delta": 0.0})
    line = math.log(20)
    assumed, ignored = (
        sum(highest_log_e(told(strict, unit), 5, run) >= line for run in range(runs))
        for unit in ("key", "request")
    )
    assert assumed <= runs * 0.05 + 2 * math.sqrt(runs * 0.05)
    assert ignored > runs / 3


def test_a_slow_canary_is_still_rolled_back_where_users_stay():
    rng, state = np.random.default_rng(2), told(GateSpec("latency", 1.0), "key")
    slow = Behaviour(latency=lognormal(0.1))
    for i in range(20):
        arms = slow.answer(rng, 200), Behaviour().answer(rng, 800)
        state = judge.absorb(state, "latency", Interval(10.0 * i, 10.0 * i + 10, *arms))
    assert judge.conclude(state, 0.01).failed is not None


def test_a_unit_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="planet"):
        get("latency").assume(get("latency").fresh({}), "planet", dispersion.fresh())
