from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rollout import judge
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from tests.rollout.judge.traffic import GATES, Behaviour, absorb_all, interval

STABLE = Behaviour()
FAILING = Behaviour(error_rate=0.2)


def _record(canary, *, intervals=20, weight_percent=25, seed=3):
    rng = np.random.default_rng(seed)
    return [interval(rng, 5.0 * i, 5.0, 200, weight_percent, canary, STABLE) for i in range(intervals)]


def _judged(record, gates=GATES):
    state = judge.enter_step(judge.start(gates), 25)
    for seen in record:
        state = absorb_all(state, seen)
    return state


def test_the_failing_gate_is_named_with_its_numbers():
    judgement = judge.conclude(_judged(_record(FAILING)), 0.01)
    assert judgement.failed is not None
    assert judgement.failed.name == "errors"
    assert judgement.failed.verdict is Verdict.FAIL
    assert "requests failed (" in judgement.failed.reason
    assert judgement.failed in judgement.gates


def test_a_late_fault_is_told_without_the_healthy_hours_before_it():
    record = _record(STABLE, intervals=120)
    rng = np.random.default_rng(4)
    state = _judged(record)
    for i in range(120, 140):
        state = absorb_all(state, interval(rng, 5.0 * i, 5.0, 200, 25, FAILING, STABLE))
    failed = judge.conclude(state, 0.01).failed
    assert failed is not None
    assert failed.value == pytest.approx(19.9, abs=3)


def test_replaying_the_record_gives_the_same_judgement_through_json():
    record = _record(STABLE)
    state = judge.enter_step(judge.start(GATES), 25)
    for seen in record:
        state = json.loads(json.dumps(absorb_all(state, seen), allow_nan=False))
    assert state == _judged(record)
    assert judge.conclude(state, 0.01) == judge.conclude(_judged(record), 0.01)


def test_a_replayed_interval_does_not_multiply_evidence():
    record = _record(FAILING, intervals=3)
    assert _judged([*record, record[-1], record[0]]) == _judged(record)


def test_the_state_stays_small():
    state = _judged(_record(STABLE, intervals=200))
    assert len(json.dumps(state)) < 5_000


def test_a_new_step_restarts_promotion_and_keeps_the_evidence_of_harm():
    state = _judged(_record(STABLE, intervals=60))
    entered = judge.enter_step(state, 50)
    assert any(v.verdict is Verdict.PASS for v in judge.conclude(state, 0.01).gates)
    assert all(v.verdict is Verdict.INCONCLUSIVE for v in judge.conclude(entered, 0.01).gates)
    assert judge.log_e(entered, "errors")["fail"] == judge.log_e(state, "errors")["fail"]


def test_a_gate_in_dry_run_is_shown_and_changes_nothing():
    gates = (GateSpec("errors", 1.0, dry_run=True), GateSpec("confidence", 1.0))
    judgement = judge.conclude(_judged(_record(FAILING), gates), 0.01)
    assert judgement.failed is None
    assert [v.verdict for v in judgement.gates if v.name == "errors"] == [Verdict.FAIL]
    assert judgement.log_e == judge.log_e(_judged(_record(FAILING), gates), "confidence")["fail"]


def test_weights_are_normalised_over_the_plans_gates():
    record = _record(STABLE)
    small, large = (
        judge.conclude(_judged(record, [GateSpec("errors", w), GateSpec("latency", 2 * w)]), 0.01).log_e
        for w in (0.01, 10.0)
    )
    assert small == pytest.approx(large)


def test_e_at_the_line_rolls_back_and_below_it_does_not():
    state = _judged(_record(Behaviour(error_rate=0.03), intervals=2))
    log_e = judge.conclude(state, 0.01).log_e
    assert judge.conclude(state, math.exp(-log_e) * 1.001).failed is not None
    assert judge.conclude(state, math.exp(-log_e) * 0.999).failed is None


@pytest.mark.parametrize(
    ("canary", "stable"),
    [
        (Arm(10, 11), Arm(10, 0)),
        (Arm(10, 0), Arm(5, 6)),
        (Arm(-1, 0), Arm(5, 0)),
        (Arm(math.nan, 0), Arm(5, 0)),
    ],
)
def test_counts_that_cannot_be_are_refused(canary, stable):
    state = judge.start([GateSpec("errors", 1.0)])
    with pytest.raises(judge.EvidenceError):
        judge.absorb(state, "errors", Interval(0.0, 1.0, canary, stable))


@pytest.mark.parametrize(("start", "end"), [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (0.0, math.inf)])
def test_an_interval_without_length_is_refused(start, end):
    state = judge.start([GateSpec("errors", 1.0)])
    with pytest.raises(judge.EvidenceError, match="not an interval"):
        judge.absorb(state, "errors", Interval(start, end, Arm(1), Arm(1)))


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ([GateSpec("colour", 1.0)], "no gate 'colour'"),
        ([GateSpec("errors", 1.0), GateSpec("errors", 1.0)], "errors: given twice"),
        ([GateSpec("errors", 0.0)], "errors: weight"),
        ([GateSpec("errors", 1.0, settings={"theta0": "wide"})], "errors: theta0: "),
    ],
)
def test_a_plan_that_cannot_be_judged_is_refused(gates, message):
    with pytest.raises(ValueError, match=message):
        judge.start(gates)


def test_no_gates_have_no_evidence():
    assert judge.conclude(judge.start([]), 0.01) == judge.Judgement(0.0, None, ())
