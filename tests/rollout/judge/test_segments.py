"""A fault of one segment: found sooner, named, and at no cost to α."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from rollout import judge
from rollout.gates.base import Arm, GateSpec, Interval
from rollout.judge import segments
from tests.rollout.judge.enumeration import outcomes

WHOLE, GUARDED = GateSpec("errors", 1.0), GateSpec("errors", 1.0, segments="device")
DEVICES = {"nano": 0.05, "orin": 0.35, "xavier": 0.6}


def parted(**counts):
    """An arm of devices with (requests, errors) each."""
    parts = {f"device={name}": Arm(n, errors) for name, (n, errors) in counts.items()}
    return Arm(sum(p.n for p in parts.values()), sum(p.errors for p in parts.values()), segments=parts)


def started(*specs):
    return judge.enter_step(judge.start(specs), 25)


def record(faulty, *, rate=2_000, seconds=60, weight=0.05, base=0.002, seed=1):
    """Intervals of 1 s in which the canary's `faulty` devices {name: error rate} differ from all others."""
    rng, found = np.random.default_rng(seed), []
    for i in range(seconds):
        arms = []
        for share, faults in ((weight, faulty), (1 - weight, {})):
            parts = {}
            for name, part in DEVICES.items():
                n = int(rng.poisson(rate * share * part))
                parts[name] = (n, int(rng.binomial(n, faults.get(name, base))))
            arms.append(parted(**parts))
        found.append(Interval(float(i), i + 1.0, *arms))
    return found


def until_failed(spec, intervals, alpha=0.01):
    """(seconds until the rollback, the FAIL); infinity when it never comes."""
    state = started(spec)
    for seconds, interval in enumerate(intervals, 1):
        state = judge.absorb(state, spec.name, interval)
        failed = judge.conclude(state, alpha).failed
        if failed:
            return seconds, failed
    return math.inf, None


def test_a_fault_of_a_device_with_a_twentieth_of_the_traffic_is_found_sooner_than_by_the_whole():
    times = np.array(
        [
            [
                until_failed(spec, record({"nano": 0.05}, seconds=400, seed=seed))[0]
                for spec in (WHOLE, GUARDED)
            ]
            for seed in range(7)
        ]
    )
    whole, guarded = np.median(times, axis=0)
    assert guarded < whole / 2


def test_the_failure_names_the_segment_and_tells_its_numbers():
    _, failed = until_failed(GUARDED, record({"nano": 0.2}, seconds=120))
    assert failed.segment == "device=nano"
    assert failed.failed_because.startswith("errors failed on device=nano: canary ")
    assert failed.n < 1_000


def test_a_fault_of_all_is_not_blamed_on_a_segment():
    _, failed = until_failed(GUARDED, record(dict.fromkeys(DEVICES, 0.1)))
    assert failed.segment == ""
    assert failed.failed_because.startswith("errors failed: canary ")


def test_watching_segments_costs_a_fault_of_all_only_log_2():
    intervals = record(dict.fromkeys(DEVICES, 0.03), seconds=10)
    whole, guarded = started(WHOLE), started(GUARDED)
    for interval in intervals:
        whole, guarded = judge.absorb(whole, "errors", interval), judge.absorb(guarded, "errors", interval)
        lost = judge.log_e(whole, "errors")["fail"] - judge.log_e(guarded, "errors")["fail"]
        assert lost <= math.log(2) + 1e-9


@pytest.mark.parametrize("rates", [(0.0, 0.0), (0.05, 0.05), (0.0, 0.3), (0.5, 0.1)])
def test_the_mixture_of_whole_and_segments_is_an_e_value(rates):
    """Exactly: every outcome of two segments, in the same mix in both arms, with errors at the tolerated boundary."""
    boundary = [min(1.0, 1.25 * p + 1e-4) for p in rates]
    parts = ((2, boundary[0]), (1, boundary[1]), (4, rates[0]), (2, rates[1]))
    cases = [[(x[1], p) for x, p in outcomes(n, (1 - rate, rate)) if p] for n, rate in parts]
    mean = 0.0
    for drawn in itertools.product(*cases):
        (nano_c, orin_c, nano_b, orin_b), chances = zip(*drawn, strict=True)
        canary, stable = (
            parted(nano=(2, nano_c), orin=(1, orin_c)),
            parted(nano=(4, nano_b), orin=(2, orin_b)),
        )
        state = judge.absorb(started(GUARDED), "errors", Interval(0.0, 1.0, canary, stable))
        mean += math.prod(chances) * math.exp(judge.log_e(state, "errors")["fail"])
    assert mean <= 1 + 1e-9


def test_a_healthy_canary_is_not_failed_for_any_of_many_devices():
    """All at the null's boundary, and each of 12 devices gets its chance: at α = .1 within two deviations."""
    rng, runs, alarms = np.random.default_rng(3), 60, 0
    spec = replace(GUARDED, settings={"theta0": 1.0, "delta": 0.0})
    for _ in range(runs):
        state, highest = started(spec), -math.inf
        for i in range(40):
            arms = [
                parted(
                    **{
                        f"d{k}": (n, int(rng.binomial(n, 0.02)))
                        for k, n in enumerate(rng.poisson(mean, 12).tolist())
                    }
                )
                for mean in (8, 60)
            ]
            state = judge.absorb(state, "errors", Interval(float(i), i + 1.0, *arms))
            highest = max(highest, judge.conclude(state, 0.1).log_e)
        alarms += highest >= math.log(10)
    assert alarms <= runs * 0.1 + 2 * math.sqrt(runs * 0.1)


def test_weights_of_segments_and_of_those_to_come_are_one():
    nothing = [
        [f"device={i}", {"fail": {"origin": None, "epoch": 0, "log_mass": [math.log(0.75)]}}]
        for i in range(9)
    ]
    for count in range(10):
        assert segments.log_e(0.0, nothing[:count]) == pytest.approx(0.0)


def test_new_values_get_the_places_behind_the_others_the_largest_first():
    state = started(GUARDED)
    first = Interval(0.0, 1.0, parted(a=(5, 0), b=(50, 0)), parted(a=(90, 0), b=(900, 0), lonely=(7, 0)))
    second = Interval(1.0, 2.0, parted(c=(500, 0), a=(5, 0)), parted(c=(500, 0), a=(90, 0)))
    for interval in (first, second):
        state = judge.absorb(state, "errors", interval)
    assert [label for label, _ in state["errors"]["beside"]["segments"]] == [
        "device=b",
        "device=a",
        "device=c",
    ]


def test_only_values_of_the_gates_key_are_judged():
    parts = {"device=nano": Arm(9), "camera=side": Arm(9)}
    both = Arm(18, segments=parts)
    state = judge.absorb(started(GUARDED), "errors", Interval(0.0, 1.0, both, both))
    assert [label for label, _ in state["errors"]["beside"]["segments"]] == ["device=nano"]


def test_a_replayed_interval_adds_nothing_and_the_state_survives_json():
    intervals = record({}, seconds=4)
    state = started(GUARDED)
    for interval in intervals:
        state = json.loads(json.dumps(judge.absorb(state, "errors", interval), allow_nan=False))
    assert judge.absorb(state, "errors", intervals[1]) == state


def test_segments_of_another_source_keep_an_order_of_their_own():
    """The whole by the router every second, segments by collectors later: neither shuts the other out."""
    state = started(GUARDED)
    for second in range(20):
        state = judge.absorb(state, "errors", Interval(float(second), second + 1.0, Arm(100, 1), Arm(900, 3)))
    bad = Interval(0.0, 10.0, parted(nano=(50, 30)), parted(nano=(900, 2)))
    aside = judge.absorb(state, "errors", replace(bad, aside=True))
    assert aside["errors"]["evidence"] == state["errors"]["evidence"]
    failed = judge.conclude(aside, 0.01).failed
    assert failed is not None
    assert failed.segment == "device=nano"


def test_promotion_asks_the_whole_only():
    intervals = record({}, rate=4_000, seconds=60, weight=0.5)
    verdicts = []
    for spec in (WHOLE, GUARDED):
        state = started(spec)
        for interval in intervals:
            state = judge.absorb(state, "errors", interval)
        verdicts.append(judge.conclude(state, 0.01).gates[0])
    assert verdicts[0].verdict == verdicts[1].verdict
    assert verdicts[0].log_e_pass == verdicts[1].log_e_pass
