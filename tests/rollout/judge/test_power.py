"""What the judge sees, and how soon. Bounds are loose; the numbers to reach stand in the benchmarks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout import judge
from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from tests.rollout.judge.traffic import Behaviour, interval, lognormal, unsure, until_failed

STABLE = Behaviour()


@pytest.mark.parametrize(("weight_percent", "rate", "most"), [(1, 1000, 400), (5, 300, 400), (25, 300, 700)])
def test_errors_of_two_percent_are_seen_within_a_few_hundred_requests(weight_percent, rate, most):
    canary = Behaviour(error_rate=0.02)
    gates = [GateSpec("errors", 0.35), GateSpec("latency", 0.25), GateSpec("confidence", 0.15)]
    needed = [
        until_failed(
            np.random.default_rng(s), canary, STABLE, rate=rate, weight_percent=weight_percent, gates=gates
        )
        for s in range(15)
    ]
    assert np.median([n for n, _ in needed]) <= most
    assert all(judgement.failed.name == "errors" for _, judgement in needed)


@pytest.mark.parametrize(("weight_percent", "requests"), [(1, 10), (5, 10), (25, 10), (50, 15)])
def test_a_dead_canary_is_seen_within_ten_requests(weight_percent, requests):
    state = judge.enter_step(
        judge.start([GateSpec("errors", 0.35), GateSpec("latency", 0.25), GateSpec("confidence", 0.15)]),
        weight_percent,
    )
    stable = round(requests * (100 - weight_percent) / weight_percent)
    state = judge.absorb(state, "errors", Interval(0.0, 1.0, Arm(requests, requests), Arm(stable, 0)))
    assert judge.conclude(state, 0.01).failed.name == "errors"


@pytest.mark.parametrize(
    ("canary", "gate", "most"),
    [
        (Behaviour(latency=lognormal(0.010)), "latency", 1_000),
        (Behaviour(latency=0.9 * lognormal(0.005) + 0.1 * lognormal(0.05)), "latency", 2_000),
        (Behaviour(confidence=unsure(0.20)), "confidence", 3_000),
    ],
    ids=["twice as slow", "a tenth ten times as slow", "twice as unsure"],
)
def test_slower_and_less_sure_canaries_are_seen(canary, gate, most):
    needed = [
        until_failed(np.random.default_rng(s), canary, STABLE, rate=300, weight_percent=25, seconds=5.0)
        for s in range(8)
    ]
    assert np.median([n for n, _ in needed]) <= most
    assert {judgement.failed.name for _, judgement in needed} == {gate}


def _requests_to_pass(gate_name, weight_percent, canary, stable, *, seed, most=100_000):
    """Requests of both arms until PASS, after a minute of stable traffic as a past."""
    rng, gate, spec = np.random.default_rng(seed), get(gate_name), GateSpec(gate_name, 1.0)
    state, requests, i = gate.fresh({}), 0, 12
    for past in range(i):
        state = gate.absorb(state, interval(rng, 5.0 * past, 5.0, 300, 0, canary, stable))
    state = gate.enter_step(state, weight_percent)
    while requests < most:
        seen = interval(rng, 5.0 * i, 5.0, 300, weight_percent, canary, stable)
        requests, i = requests + seen.canary.n + seen.stable.n, i + 1
        state = gate.absorb(state, seen)
        if gate.verdict(state, spec).verdict is Verdict.PASS:
            return requests
    return math.inf


@pytest.mark.parametrize(
    ("gate", "both", "most"),
    [
        ("errors", Behaviour(error_rate=0.0), 30_000),
        ("errors", Behaviour(error_rate=0.001), 75_000),
        ("latency", STABLE, 36_000),
        ("latency", Behaviour(latency=lognormal(0.03)), 36_000),
        ("confidence", STABLE, 36_000),
        ("confidence", Behaviour(confidence=unsure(0.15)), 36_000),
    ],
)
def test_an_equal_canary_leaves_5_25_and_50_percent_in_plausible_traffic(gate, both, most):
    needed = [
        np.median([_requests_to_pass(gate, weight, both, both, seed=s) for s in range(7)])
        for weight in (5, 25, 50)
    ]
    assert sum(needed) <= most


@pytest.mark.parametrize(
    ("gate", "canary"),
    [
        ("errors", Behaviour(error_rate=0.002)),
        ("confidence", Behaviour(confidence=unsure(0.12))),
    ],
)
def test_a_canary_at_the_margin_is_promoted_at_most_one_time_in_twenty(gate, canary):
    runs = 60
    passed = sum(
        _requests_to_pass(gate, 50, canary, STABLE, seed=s, most=60_000) < math.inf for s in range(runs)
    )
    assert passed <= runs / 20 + 2 * math.sqrt(runs / 20)
