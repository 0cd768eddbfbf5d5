from __future__ import annotations

import numpy as np
import pytest
from davy.counting import LATENCY_EDGES_SECONDS

from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval
from rollout.gates.latency import _shifted_down, _shifted_up
from tests.rollout.judge.traffic import Behaviour, lognormal


@pytest.mark.parametrize("tolerance", [0.0, 0.1, 0.15, 0.2, 2.0])
def test_the_shift_rounds_up_to_roll_back_and_down_to_promote(tolerance):
    every = np.arange(80)
    stated = LATENCY_EDGES_SECONDS[every] * (1 + tolerance) + 1e-3
    assert np.all(LATENCY_EDGES_SECONDS[_shifted_up(every, tolerance)] >= stated)
    assert np.all(LATENCY_EDGES_SECONDS[_shifted_down(every, tolerance)] <= stated)
    assert np.all(_shifted_up(every, tolerance) - _shifted_down(every, tolerance) <= 1)


def test_the_first_interval_has_no_past_to_refer_to():
    rng, gate = np.random.default_rng(2), get("latency")
    slow, fast = Behaviour(latency=lognormal(1.0)), Behaviour()
    first = Interval(0.0, 5.0, slow.answer(rng, 500), fast.answer(rng, 500))
    state = gate.absorb(gate.enter_step(gate.fresh({}), 50), first)
    assert gate.verdict(state, GateSpec("latency", 1.0)).n == 0


def test_references_come_from_past_intervals_of_stable_only():
    gate, rng = get("latency"), np.random.default_rng(2)
    stable = Behaviour().answer(rng, 500)
    states = [
        gate.absorb(gate.fresh({}), Interval(0.0, 5.0, canary, stable))
        for canary in (Behaviour(latency=lognormal(1.0)).answer(rng, 500), Behaviour().answer(rng, 500))
    ]
    assert states[0]["past"] == states[1]["past"]


def test_latencies_outside_the_bins_are_still_judged():
    gate = get("latency")
    state = gate.enter_step(gate.fresh({}), 50)
    for i, slow in enumerate((95, 95, 95)):
        histogram = tuple(100 if k == slow else 0 for k in range(96))
        state = gate.absorb(
            state, Interval(5.0 * i, 5.0 * i + 5, Arm(100, 0, None, histogram), Arm(100, 0, None, histogram))
        )
    assert gate.verdict(state, GateSpec("latency", 1.0)).n == 200
