"""How many requests a gate will need: what is foretold, against what the gate needs when chance plays along."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from rollout import gates, judge
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from rollout.judge import dispersion
from rollout.plans import needs
from tests.rollout.judge.traffic import Behaviour, unsure

STABLE_REQUESTS = 200_000
RUNS = 31
WITHIN = 2.5  # a simulated median is within this factor of what was foretold
USUAL, POOR = Behaviour(), Behaviour(error_rate=0.005, confidence=unsure(0.3))


def spec(name: str, weight: float = 1.0) -> GateSpec:
    return GateSpec(name, weight)


def stable(behaviour: Behaviour = USUAL) -> Arm:
    return behaviour.answer(np.random.default_rng(1), STABLE_REQUESTS)


def intervals(rng: np.random.Generator, canary: Behaviour, other: Behaviour, weight: float, n_c: int):
    """Endless intervals of n_c canary requests on average, at this split."""
    total, at = round(n_c / (weight / 100)), 0.0
    while True:
        sent = int(rng.binomial(total, weight / 100))
        yield Interval(at, at + 5.0, canary.answer(rng, sent), other.answer(rng, total - sent))
        at += 5.0


def requests_to_pass(name: str, weight: float, healthy: Behaviour, guess: int, seed: int) -> int:
    """Canary requests until the gate passed, of a canary that is stable's twin, after a while of looking at stable."""
    rng, gate = np.random.default_rng(seed), gates.get(name)
    state, sent = gate.fresh({}), 0
    for looked, interval in enumerate(intervals(rng, healthy, healthy, weight, max(1, guess // 25))):
        if looked == 5:
            state = gate.enter_step(state, weight)
        state = gate.absorb(state, interval)
        sent += interval.canary.n if looked >= 5 else 0
        if looked >= 5 and gate.verdict(state, spec(name)).verdict is Verdict.PASS:
            return sent
        assert sent < 50 * guess, "never passes"
    raise AssertionError


@pytest.mark.parametrize("weight", [1, 5, 25, 50])
@pytest.mark.parametrize("name", ["errors", "latency", "confidence"])
@pytest.mark.parametrize("healthy", [USUAL, POOR], ids=["usual", "poor"])
def test_a_step_takes_about_the_requests_that_were_foretold(
    healthy: Behaviour, name: str, weight: float
) -> None:
    foretold = needs.to_pass(spec(name), weight, stable(healthy)).requests
    assert foretold is not None
    median = statistics.median(
        requests_to_pass(name, weight, healthy, foretold, seed) for seed in range(RUNS)
    )
    assert foretold / WITHIN <= median <= foretold * WITHIN


def requests_to_detect(weight: float, guess: int, seed: int) -> int:
    """Canary requests until a canary with two points more failures is rolled back by errors alone."""
    rng, healthy = np.random.default_rng(seed), USUAL
    faulty = Behaviour(error_rate=healthy.error_rate + needs.FAULT_POINTS / 100)
    state, sent = judge.start([spec("errors")]), 0
    for interval in intervals(rng, faulty, healthy, weight, max(1, guess // 25)):
        state, sent = judge.absorb(state, "errors", interval), sent + interval.canary.n
        if judge.conclude(state, 0.01).failed is not None:
            return sent
        assert sent < 50 * guess, "never noticed"
    raise AssertionError


@pytest.mark.parametrize("weight", [1, 5, 50])
def test_a_fault_is_noticed_after_about_the_requests_that_were_foretold(weight: float) -> None:
    foretold = needs.to_detect([spec("errors")], weight, stable(), 0.01).requests
    assert foretold is not None
    median = statistics.median(requests_to_detect(weight, foretold, seed) for seed in range(RUNS))
    assert foretold / WITHIN <= median <= foretold * WITHIN


def test_a_tighter_margin_takes_more_requests() -> None:
    needed = [needs.to_pass(spec("errors"), weight, stable()).requests for weight in (1, 5, 25, 50)]
    assert needed == sorted(needed)


def test_a_gate_with_a_small_share_of_alpha_notices_later() -> None:
    alone = needs.to_detect([spec("errors")], 5, stable(), 0.01).requests
    shared = needs.to_detect([spec("errors", 0.1), spec("latency", 0.9)], 5, stable(), 0.01).requests
    assert alone < shared


def test_clusters_of_errors_multiply_what_is_needed() -> None:
    clustered = {"assignment": "key", "history": dispersion.fresh()}
    plain = needs.to_pass(spec("errors"), 25, stable()).requests
    assert needs.to_pass(spec("errors"), 25, stable(), clustered).requests > 5 * plain
    noticed = needs.to_detect([spec("errors")], 25, stable(), 0.01).requests
    assert needs.to_detect([spec("errors")], 25, stable(), 0.01, clustered).requests > 5 * noticed


def test_no_error_seen_is_not_taken_for_a_rate_of_nothing() -> None:
    few = needs.to_pass(spec("errors"), 50, Arm(1_000, 0)).requests
    many = needs.to_pass(spec("errors"), 50, Arm(1_000_000, 0)).requests
    assert many < few


def test_an_error_rate_that_hides_the_fault_is_said() -> None:
    need = needs.to_detect([spec("errors")], 5, Arm(100_000, 20_000), 0.01)
    assert need.requests is None
    assert "tolerates" in need.reason


@pytest.mark.parametrize(
    ("name", "arm", "reason"),
    [
        ("errors", Arm(0), "no requests"),
        ("latency", Arm(1_000), "latency"),
        ("confidence", Arm(1_000), "confidence"),
    ],
)
def test_what_is_not_known_is_said_and_not_guessed(name: str, arm: Arm, reason: str) -> None:
    need = needs.to_pass(spec(name), 5, arm)
    assert need.requests is None
    assert reason in need.reason


def test_a_plan_without_a_gate_that_may_roll_back_notices_nothing() -> None:
    dry = GateSpec("errors", 1.0, dry_run=True)
    assert needs.to_detect([dry, spec("latency")], 5, stable(), 0.01).requests is None


@pytest.mark.parametrize("name", sorted(gates.GATES))
def test_every_gate_foretells_or_says_why_not(name: str) -> None:
    need = needs.to_pass(spec(name), 25, stable())
    assert (need.requests is None) == bool(need.reason)
    assert need.requests is None or 0 < need.requests < math.inf
