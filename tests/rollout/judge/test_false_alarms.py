"""However often one looks: both arms are the same model, and everything drifts."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout import judge
from rollout.gates.base import GateSpec
from tests.rollout.judge.traffic import GATES, Behaviour, absorb_all, interval, lognormal, unsure

RUNS, INTERVALS = 60, 30
#: Nothing tolerated: an equal canary stands on the null's boundary.
STRICT = tuple(
    GateSpec(gate.name, gate.weight, settings={"theta0": 1.0, "delta": 0.0, **extra})
    for gate, extra in zip(GATES, ({}, {"tolerance": 0.0}, {}), strict=True)
)


def _drifting(rng, i):
    """A shared incident in the middle, and confidence and latency that wander."""
    return Behaviour(
        error_rate=0.2 if 15 <= i < 18 else 0.002,
        confidence=unsure(0.10 + 0.05 * math.sin(i / 6) + 0.02 * rng.random()),
        latency=lognormal(0.02 * (1 + 0.5 * math.sin(i / 4)), 0.3),
    )


def _highest_log_e(rng, gates):
    state, highest = judge.start(gates), -math.inf
    for i in range(INTERVALS):
        weight = (5, 25, 50)[i * 3 // INTERVALS]
        if i % (INTERVALS // 3) == 0:
            state = judge.enter_step(state, weight)
        both = _drifting(rng, i)
        state = absorb_all(state, interval(rng, 20.0 * i, 20.0, 50, weight, both, both))
        highest = max(highest, judge.conclude(state, 0.01).log_e)
    return highest


def test_false_rollbacks_stay_below_alpha_on_the_nulls_boundary():
    rng = np.random.default_rng(11)
    highest = np.array([_highest_log_e(rng, STRICT) for _ in range(RUNS)])
    for alpha in (0.01, 0.05, 0.2):
        alarms = int((highest >= -math.log(alpha)).sum())
        assert alarms <= RUNS * alpha + 2 * math.sqrt(RUNS * alpha)


def test_a_canary_equal_to_stable_is_not_even_suspect_with_production_margins():
    rng = np.random.default_rng(12)
    assert all(_highest_log_e(rng, GATES) < math.log(20) for _ in range(15))


@pytest.mark.parametrize("cause", ["unsure", "latency", "both"])
def test_a_better_canary_never_fails(cause):
    better = Behaviour(
        error_rate=0.0,
        confidence=unsure(0.10 if cause == "latency" else 0.03),
        latency=lognormal(0.005 if cause == "unsure" else 0.002),
    )
    rng = np.random.default_rng(13)
    state = judge.enter_step(judge.start(GATES), 50)
    for i in range(60):
        state = absorb_all(state, interval(rng, 5.0 * i, 5.0, 400, 50, better, Behaviour()))
        assert judge.conclude(state, 0.01).log_e < math.log(2)
