from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from benchmarks.judge.traffic import (
    Clusters,
    Fault,
    Traffic,
    World,
    confidence_shares,
    ks,
    latency_shares,
    tilt_of_ks,
)
from benchmarks.judge.weather import CALM, ROUGH, draw

CALMLY = np.zeros(1)


def _block(world, *, seed=1, ticks=720, weight_percent=50.0, since=0):
    traffic = Traffic(np.random.default_rng(seed), world, ticks=ticks, tick_seconds=5.0, window_ticks=2)
    return traffic.block(0, ticks, weight_percent, since)


@pytest.mark.parametrize("counts", ["latency", "confidence"])
def test_both_arms_of_one_model_answer_alike_however_rough_the_weather(counts):
    block = _block(World(50.0))
    arms = np.array([getattr(arm, counts).sum(axis=0) for arm in (block.canary, block.stable)])
    seen = arms[:, arms.sum(axis=0) >= 10]
    assert chi2_contingency(seen).pvalue > 0.001


def test_both_arms_of_one_model_fail_alike_however_rough_the_weather():
    block = _block(World(200.0, 0.01))
    failed = np.array([arm.errors.sum() for arm in (block.canary, block.stable)])
    sent = np.array([arm.n.sum() for arm in (block.canary, block.stable)])
    assert chi2_contingency([failed, sent - failed]).pvalue > 0.001


@pytest.mark.parametrize("weight_percent", [1.0, 5.0, 25.0])
def test_the_canary_gets_its_share_of_the_requests(weight_percent):
    block = _block(World(500.0, climate=CALM), weight_percent=weight_percent)
    sent = block.canary.n.sum() + block.stable.n.sum()
    share = weight_percent / 100
    assert sent == pytest.approx(500 * 3600, rel=0.01)
    assert block.canary.n.sum() == pytest.approx(share * sent, abs=5 * math.sqrt(share * sent))


@pytest.mark.parametrize(
    ("fault", "rate"),
    [
        (Fault(), 0.001),
        (Fault(error_added=0.019), 0.02),
        (Fault(error_factor=2.0), 0.002),
        (Fault(error_added=1), 1),
    ],
)
def test_a_fault_fails_the_stated_share_of_the_canarys_requests_only(fault, rate):
    block = _block(World(1000.0, 0.001, fault, climate=CALM))
    for arm, expected in ((block.canary, rate), (block.stable, 0.001)):
        n = int(arm.n.sum())
        assert arm.errors.sum() == pytest.approx(expected * n, abs=5 * math.sqrt(expected * n))


@pytest.mark.parametrize("kind", [Clusters((5,), (1.0,)), Clusters((1, 20), (0.9, 0.1))])
def test_clusters_keep_the_rate_and_have_the_stated_dispersion(kind):
    errors = _block(World(1000.0, 0.01, error_clusters=kind, climate=CALM), ticks=20_000).stable.errors
    assert errors.mean() == pytest.approx(25.0, rel=0.03)
    assert errors.var() / errors.mean() == pytest.approx(kind.dispersion, rel=0.05)


def test_slower_by_a_bin_moves_every_latency_by_a_bin():
    stable = latency_shares(CALMLY, Fault())[0]
    assert latency_shares(CALMLY, Fault(slower=10 ** (1 / 16)))[0][1:-1] == pytest.approx(
        stable[:-2], abs=1e-6
    )


def test_a_slower_tail_leaves_the_body_and_moves_what_is_beyond_the_p99():
    stable = np.cumsum(latency_shares(CALMLY, Fault())[0])
    slower = np.cumsum(latency_shares(CALMLY, Fault(tail_slower=10 ** (1 / 16)))[0])
    body, tail = stable < 0.95, stable > 0.99
    assert slower[body] == pytest.approx(stable[body], abs=1e-6)
    assert slower[1:][tail[:-1]] == pytest.approx(stable[:-1][tail[:-1]], abs=1e-6)


def test_a_cold_canary_is_slow_just_after_a_change_of_weight_only():
    world = World(2000.0, fault=Fault(cold_slower=3.0, cold_seconds=10.0), climate=CALM)
    block = _block(world, ticks=48)

    def mean(arm, window):
        return arm.latency[window] @ np.arange(96) / arm.latency[window].sum()

    assert mean(block.canary, 0) > mean(block.stable, 0) + 3
    assert mean(block.canary, 23) == pytest.approx(mean(block.stable, 23), abs=0.2)


@pytest.mark.parametrize("distance", [0.005, 0.05, 0.1])
def test_a_tilt_moves_confidences_by_the_stated_distance_towards_unsure(distance):
    fault = Fault(tilt=tilt_of_ks(distance))
    assert ks(fault) == pytest.approx(distance, rel=1e-6)
    unsure = [confidence_shares(CALMLY, f)[0][:60].sum() for f in (Fault(), fault)]
    assert unsure[1] > unsure[0]


def test_unsure_predictions_are_added_in_points():
    unsure = [confidence_shares(CALMLY, f)[0][:60].sum() for f in (Fault(), Fault(unsure_added=0.02))]
    assert unsure[1] - unsure[0] == pytest.approx(0.02)


def test_a_stable_model_is_unsure_of_about_a_tenth():
    assert confidence_shares(CALMLY, Fault())[0][:60].sum() == pytest.approx(0.1, abs=0.03)


def test_the_weather_is_rough():
    weather = draw(
        np.random.default_rng(3),
        ROUGH,
        ticks=100_000,
        tick_seconds=5.0,
        requests_per_second=100.0,
        error_rate=0.001,
    )
    assert np.log(weather.error_rate).std() > 0.25
    assert 0.005 < (weather.error_rate > 0.02).mean() < 0.05
    assert weather.requests.max() > 3 * np.median(weather.requests)
