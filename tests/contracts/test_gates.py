"""What every gate promises: add a gate to its table and these tests judge it."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from rollout.gates import GATES, UnknownGate, get
from rollout.gates.base import Arm, GateSpec, Interval, Labelled, LabelledStratum, Pairs, Verdict

QUANTILES = (10, 15, 25, 25, 15, 10)  # images of a reference, in percent
REFERENCE = {"reference": (QUANTILES,) * 3, "reference_digest": "a" * 64}
NOTHING = Arm(0, 0, (0,) * 100, (0,) * 96, (0,) * 64, ((0,) * 6,) * 3, **REFERENCE)


@pytest.fixture(params=sorted(GATES))
def gate(request):
    return GATES[request.param]


def _spec(gate):
    return GateSpec(gate.name, gate.default_weight)


def _arm(rng, n):
    return Arm(
        n,
        int(rng.binomial(n, 0.001)),
        tuple(rng.multinomial(n, np.full(100, 0.01)).tolist()),
        tuple(rng.multinomial(n, np.full(96, 1 / 96)).tolist()),
        tuple(rng.multinomial(n, np.full(64, 1 / 64)).tolist()),
        tuple(tuple(row) for row in rng.multinomial(n, np.array(QUANTILES) / 100, size=3).tolist()),
        **REFERENCE,
    )


def _interval(gate, rng, start, canary, stable):
    """What the gate's source knows of these arms: their own counts, one in ten labelled, or as many pairs."""
    found = Interval(start, start + 10, canary, stable)
    if gate.source == "labels":
        arms = (_labelled(rng, arm.n) for arm in (canary, stable))
        return replace(found, labels=(LabelledStratum(f"{start}", *arms, max_weight=10.0),))
    if gate.source == "pairs":
        n = min(canary.n, stable.n)
        return replace(found, pairs=Pairs(compared=n, agreed=int(rng.binomial(n, 0.9999))))
    return found


def _labelled(rng, n):
    return Labelled(10 * n, ((10.0, int(rng.binomial(n, 0.05))),), ((10.0, n),))


def _absorbed(gate, state, intervals, *, seed=5):
    rng = np.random.default_rng(seed)
    for i in range(intervals):
        state = gate.absorb(state, _interval(gate, rng, 10.0 * i, _arm(rng, 400), _arm(rng, 1_200)))
    return state


def test_the_table_names_each_gate_by_its_own_name(gate):
    assert get(gate.name) is gate
    assert gate.source in {"router", "collector", "labels", "pairs"}
    assert gate.default_weight > 0
    assert set(gate.needs) <= set(Arm.__dataclass_fields__)


def test_an_unknown_name_is_refused_and_the_known_ones_are_told():
    with pytest.raises(UnknownGate, match="errors"):
        get("colour")


def test_no_evidence_is_inconclusive(gate):
    state = gate.enter_step(gate.fresh({}), 50)
    for i in range(200):
        state = gate.absorb(state, _interval(gate, np.random.default_rng(0), 10.0 * i, NOTHING, NOTHING))
    verdict = gate.verdict(state, _spec(gate))
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert (verdict.n, verdict.value) == (0, None)
    assert (verdict.log_e_fail, verdict.log_e_pass) == pytest.approx((0, 0))


@pytest.mark.parametrize("silent", ["canary", "stable"])
def test_one_silent_arm_is_no_evidence(gate, silent):
    rng = np.random.default_rng(1)
    state = gate.enter_step(gate.fresh({}), 50)
    for i in range(50):
        loud = _arm(rng, 1_000)
        arms = {"canary": loud, "stable": loud, silent: NOTHING}
        state = gate.absorb(state, _interval(gate, rng, 10.0 * i, **arms))
    verdict = gate.verdict(state, _spec(gate))
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert (verdict.log_e_fail, verdict.log_e_pass) == pytest.approx((0, 0))


def test_counts_that_the_source_does_not_offer_are_no_evidence(gate):
    histograms = {"confidence", "latency", "detections", "embedding"} & set(gate.needs)
    if not histograms:
        pytest.skip("reads no histogram")
    state = gate.enter_step(gate.fresh({}), 50)
    state = gate.absorb(state, Interval(0.0, 10.0, Arm(500), Arm(500)))
    assert gate.verdict(state, _spec(gate)).verdict is Verdict.INCONCLUSIVE


def test_evidence_outside_a_step_promotes_nothing(gate):
    assert gate.verdict(_absorbed(gate, gate.fresh({}), 50), _spec(gate)).verdict is Verdict.INCONCLUSIVE


def test_an_equal_canary_passes_in_the_end_and_a_new_step_asks_again(gate):
    """Not about pairs: there are none after the mirroring, and what they say does not depend on the weight."""
    state = _absorbed(gate, gate.enter_step(gate.fresh({}), 25), 120)
    verdict = gate.verdict(state, _spec(gate))
    assert verdict.verdict is Verdict.PASS
    assert verdict.n > 0
    assert verdict.reason
    again = Verdict.PASS if gate.source == "pairs" else Verdict.INCONCLUSIVE
    assert gate.verdict(gate.enter_step(state, 50), _spec(gate)).verdict is again


def test_the_state_survives_json_at_every_moment(gate):
    state = gate.enter_step(gate.fresh({}), 25)
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    state = _absorbed(gate, state, 10)
    again = json.loads(json.dumps(state, allow_nan=False))
    assert again == state
    assert gate.verdict(again, _spec(gate)) == gate.verdict(state, _spec(gate))


def test_absorbing_is_pure(gate):
    state = gate.enter_step(gate.fresh({}), 25)
    before = json.dumps(state)
    assert _absorbed(gate, state, 5) == _absorbed(gate, state, 5)
    assert json.dumps(state) == before


def test_a_failure_says_what_happened(gate):
    state = _absorbed(gate, gate.enter_step(gate.fresh({}), 25), 10)
    failure = gate.failure(state, _spec(gate))
    assert failure.verdict is Verdict.FAIL
    assert "canary" in failure.reason
    assert "stable" in failure.reason


@pytest.mark.parametrize(
    "settings",
    [
        {"colour": 1},
        {"theta0": "wide"},
        {"theta0": math.nan},
        {"theta0": 0.5},
        {"delta": -0.1},
        {"delta": True},
        {"margin_points": 3},
        {"margin_points": {}},
        {"margin_points": {"half": 1.0}},
        {"margin_points": {"0": 1.0}},
        {"margin_points": {"5": math.inf}},
    ],
)
def test_a_bad_setting_is_refused_by_its_key(gate, settings):
    with pytest.raises(ValueError, match=rf"^{next(iter(settings))}: "):
        gate.fresh(settings)


def test_a_plans_setting_takes_effect(gate):
    if "margin_points" not in gate.defaults:
        pytest.skip("has no margins over weights")
    spec = _spec(gate)
    state = gate.enter_step(gate.fresh({"margin_points": {"10": 7.0, "40": 4.0}}), 39.9)
    assert gate.verdict(state, spec).bound == 7.0
    assert gate.verdict(gate.enter_step(state, 40), spec).bound == 4.0
    assert gate.verdict(gate.enter_step(state, 1), spec).bound == 7.0
