"""E[e] ≤ 1, exactly: every outcome of small intervals, judged by the real gates with their own alternatives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.gates import get
from rollout.gates.base import Arm, Interval
from rollout.judge import dispersion, mixture
from tests.rollout.judge.enumeration import outcomes
from tests.rollout.judge.traffic import unsure

FAST, MIDDLE, SLOW = 30, 36, 44  # latency bins, further apart than any shift
N_C, N_B = 3, 5
STEPS = (1, 5, 25, 50)


def _errors(counts):
    ok, failed = counts
    return Arm(ok + failed, failed)


def _confidence(counts):
    sure, below = counts
    return Arm(sure + below, 0, confidence=(*(0,) * 59, below, *(0,) * 39, sure))


def _latency(counts):
    histogram = [0] * 96
    for index, count in zip((FAST, MIDDLE, SLOW), counts, strict=True):
        histogram[index] = count
    return Arm(sum(counts), 0, latency=tuple(histogram))


PAST = Interval(
    0.0,
    10.0,
    Arm(0, 0, (0,) * 100, (0,) * 96),
    Arm(5_000, 10, tuple(int(5_000 * p) for p in unsure(0.1)), _latency((4_000, 960, 40)).latency),
)
ARMS = {"errors": _errors, "confidence": _confidence, "latency": _latency}


def _evidence(state):
    """(E of harm, e of the step's promotion)."""
    return np.exp([mixture.log_e(state["fail"]), mixture.log_mean(state["pass"])])


def _expected(name, weight_percent, canary, stable, *, assignment="request"):
    """Expected (E, e) after an interval, relative to before it; canary, stable: probabilities of the outcomes."""
    gate = get(name)
    state = gate.assume(gate.fresh({}), assignment, dispersion.fresh())
    state = gate.absorb(gate.enter_step(state, weight_percent), PAST)
    mean = sum(
        p * q * _evidence(gate.absorb(state, Interval(10.0, 20.0, ARMS[name](x), ARMS[name](y))))
        for x, p in outcomes(N_C, canary)
        if p
        for y, q in outcomes(N_B, stable)
        if q
    )
    return mean / _evidence(state)


@pytest.mark.parametrize("p_b", [0.0, 0.001, 0.1, 0.5])
@pytest.mark.parametrize("name", ["errors", "confidence"])
def test_a_tolerated_rate_gains_no_evidence_of_harm(name, p_b):
    settings = get(name).defaults
    boundary = settings["theta0"] * p_b + settings["delta"]
    for p_c in (0.0, boundary / 2, boundary):
        harm, _ = _expected(name, 25, (1 - p_c, p_c), (1 - p_b, p_b))
        assert harm <= 1 + 1e-9


@pytest.mark.parametrize("p_b", [0.0, 0.001, 0.1, 0.5])
@pytest.mark.parametrize("weight_percent", STEPS)
@pytest.mark.parametrize("name", ["errors", "confidence"])
def test_a_loss_of_the_margin_gains_no_evidence_for_promotion(name, weight_percent, p_b):
    least = p_b + get(name).defaults["margin_points"][str(weight_percent)] / 100
    for p_c in (least, (1 + least) / 2, 1.0):
        _, promotion = _expected(name, weight_percent, (1 - p_c, p_c), (1 - p_b, p_b))
        assert promotion <= 1 + 1e-9


@pytest.mark.parametrize("tails", [(0.2, 0.008), (0.0, 0.0), (0.6, 0.3), (0.02, 0.02)])
def test_a_tolerated_slowness_gains_no_evidence_of_harm(tails):
    settings = get("latency").defaults
    slower = [min(1.0, settings["theta0"] * tail + settings["delta"]) for tail in tails]
    harm, _ = _expected("latency", 25, _probabilities(*slower), _probabilities(*tails))
    assert harm <= 1 + 1e-9


@pytest.mark.parametrize("tail", [0.0, 0.008, 0.2])
@pytest.mark.parametrize("weight_percent", STEPS)
def test_slowness_at_the_margin_gains_no_evidence_for_promotion(weight_percent, tail):
    slower = tail + get("latency").defaults["margin_points"][str(weight_percent)] / 100
    _, promotion = _expected(
        "latency", weight_percent, _probabilities(max(0.3, slower), slower), _probabilities(0.3, tail)
    )
    assert promotion <= 1 + 1e-9


def _probabilities(above_fast, above_middle):
    return (1 - above_fast, above_fast - above_middle, above_middle)


@pytest.mark.parametrize("name", ["errors", "confidence"])
def test_nothing_is_gained_either_where_clusters_are_assumed(name):
    settings = get(name).defaults
    boundary = settings["theta0"] * 0.1 + settings["delta"]
    harm, _ = _expected(name, 25, (1 - boundary, boundary), (0.9, 0.1), assignment="key")
    least = 0.1 + settings["margin_points"]["25"] / 100
    _, promotion = _expected(name, 25, (1 - least, least), (0.9, 0.1), assignment="key")
    assert max(harm, promotion) <= 1 + 1e-9


def test_slowness_gains_nothing_either_where_clusters_are_assumed():
    settings, tails = get("latency").defaults, (0.2, 0.008)
    slower = [settings["theta0"] * tail + settings["delta"] for tail in tails]
    harm, _ = _expected("latency", 25, _probabilities(*slower), _probabilities(*tails), assignment="key")
    assert harm <= 1 + 1e-9


def test_a_canary_beyond_the_tolerated_rate_does_gain():
    harm, _ = _expected("errors", 25, (0.5, 0.5), (0.99, 0.01))
    assert math.log(harm) > 0
