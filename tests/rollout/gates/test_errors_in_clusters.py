"""Errors that come in clusters count for less: by what stable's past says, or by what must be assumed."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rollout import judge
from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from rollout.judge import dispersion

SPEC = GateSpec("errors", 1.0)


def told(assignment, history=None, spec=SPEC):
    """A judge that knows what the router assigns."""
    state = judge.enter_step(judge.start([spec]), 25)
    known = {"assignment": assignment, "history": history or dispersion.fresh()}
    return judge.absorb(state, "errors", Interval(-9.0, 0.0, Arm(0), Arm(0), known=known))


def past(cluster, intervals=400, seed=1):
    """An hour of a stable version whose errors come in clusters of one key."""
    rng, state = np.random.default_rng(seed), dispersion.fresh()
    for _ in range(intervals):
        counts = np.bincount(rng.integers(16, size=rng.poisson(2)), minlength=16) * cluster
        state = dispersion.absorb(state, counts.tolist(), n=5_000, seconds=10)
    return state


def divisor(state):
    return state["errors"]["evidence"]["divisor"]


@pytest.mark.parametrize(("assignment", "wanted"), [("request", 1.0), ("key", 6.5), ("connection", 6.5)])
def test_without_history_phi_is_assumed_by_what_the_router_assigns(assignment, wanted):
    assert divisor(told(assignment)) == pytest.approx(wanted)


def test_nobody_has_said_anything_errors_count_one_by_one():
    state = judge.start([SPEC])
    assert divisor(state) == 1
    assert judge.unassumed(state) == ["errors"]
    assert judge.unassumed(told("request")) == []


def test_an_hour_of_single_errors_by_key_gives_errors_their_full_weight():
    assert divisor(told("key", past(1))) == 1


def test_an_hour_of_clusters_says_how_large_they_are():
    assert divisor(told("key", past(5))) == pytest.approx(1.3 * 5, rel=0.25)
    assert divisor(told("key", past(20))) == pytest.approx(1.3 * 20, rel=0.25)


def test_clusters_do_not_matter_where_each_request_is_drawn_anew():
    assert divisor(told("request", past(20))) == 1


def test_log_e_is_divided_for_harm_and_for_promotion():
    seen = Interval(0.0, 1.0, Arm(1_000, 20), Arm(9_000, 9))
    once, divided = (
        judge.absorb(told(unit), "errors", seen)["errors"]["evidence"] for unit in ("request", "key")
    )
    assert divided["pass"] == pytest.approx([value / 6.5 for value in once["pass"]])
    start = math.log(0.75)
    by_one = [(value - start) / 6.5 + start for value in once["fail"]["log_mass"]]
    assert divided["fail"]["log_mass"] == pytest.approx(by_one)


def test_the_reason_says_what_was_assumed():
    seen = Interval(0.0, 1.0, Arm(1_000, 20), Arm(9_000, 9))

    def reason(state):
        return judge.conclude(judge.absorb(state, "errors", seen), 0.01).gates[0].reason

    assert reason(told("request")).endswith("φ = 1 declared: requests are assigned one by one")
    assert reason(told("key")).endswith(
        "errors come in clusters: φ = 5.0 assumed, evidence is divided by 6.5"
    )
    assert "measured on stable, evidence is divided by" in reason(told("key", past(5)))
    assert "φ" not in reason(told("key", past(1)))


def test_collectors_intervals_teach_later_ones_and_add_no_evidence():
    state = told("key", past(1, intervals=350))
    assert divisor(state) == pytest.approx(6.5)  # not an hour yet
    before = state["errors"]["evidence"]["fail"]
    for i in range(20):
        stable = Arm(5_000, 2, errors_by_key_bucket=(1, 1, *(0,) * 14))
        state = judge.absorb(state, "errors", Interval(10.0 * i, 10.0 * i + 10, Arm(100), stable, aside=True))
    assert divisor(state) == 1
    assert state["errors"]["evidence"]["fail"] == before


def test_an_interval_is_weighed_by_what_was_known_before_it():
    burst = Interval(0.0, 10.0, Arm(100, 1), Arm(900, 40, errors_by_key_bucket=(40, *(0,) * 15)))
    known = told("key", past(1))
    plain = Interval(0.0, 10.0, Arm(100, 1), Arm(900, 40))
    after, without = judge.absorb(known, "errors", burst), judge.absorb(known, "errors", plain)
    assert after["errors"]["evidence"]["fail"] == without["errors"]["evidence"]["fail"]
    assert divisor(after) >= divisor(known)


def test_telling_twice_changes_nothing_and_the_state_survives_json():
    state = told("key", past(5))
    known = {"assignment": "request", "history": dispersion.fresh()}
    again = judge.absorb(state, "errors", Interval(0.0, 1.0, Arm(0), Arm(0), known=known))
    assert again == state == json.loads(json.dumps(state, allow_nan=False))


def test_a_unit_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="planet"):
        get("errors").assume(get("errors").fresh({}), "planet", dispersion.fresh())


def highest_log_e(state, cluster, seed):
    """The most that E ever was while clusters fall into either arm by its share, a tenth into the canary."""
    rng, highest = np.random.default_rng([seed, cluster]), -math.inf
    for i in range(150):
        failed = [int(cluster * rng.poisson(0.4 * share)) for share in (0.1, 0.9)]
        arms = Arm(max(500, failed[0]), failed[0]), Arm(max(4_500, failed[1]), failed[1])
        state = judge.absorb(state, "errors", Interval(float(i), i + 1.0, *arms))
        highest = max(highest, judge.conclude(state, 0.05).log_e)
    return highest


@pytest.mark.parametrize("cluster", [5, 20])
def test_clusters_that_fall_into_one_arm_do_not_roll_a_healthy_canary_back(cluster):
    """Both arms at the null's boundary: at α = .05 within two deviations. Taken one by one they would."""
    runs, strict = 60, GateSpec("errors", 1.0, settings={"theta0": 1.0, "delta": 0.0})
    measured = [
        highest_log_e(told("key", past(cluster, seed=run), strict), cluster, run) for run in range(runs)
    ]
    ignored = [highest_log_e(told("request", None, strict), cluster, run) for run in range(runs)]
    line = math.log(20)
    assert sum(e >= line for e in measured) <= runs * 0.05 + 2 * math.sqrt(runs * 0.05)
    assert sum(e >= line for e in ignored) > runs / 4


def test_a_failing_canary_is_still_rolled_back():
    rng, state = np.random.default_rng(2), told("key")
    for i in range(60):
        arms = Arm(50, int(rng.binomial(50, 0.1))), Arm(950, int(rng.binomial(950, 0.001)))
        state = judge.absorb(state, "errors", Interval(float(i), i + 1.0, *arms))
    failed = judge.conclude(state, 0.01).failed
    assert failed is not None
    assert failed.verdict is Verdict.FAIL
