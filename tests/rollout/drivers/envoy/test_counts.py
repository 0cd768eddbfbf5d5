"""How long requests took, as Envoy tells it: in which bins they come to stand, and whose requests they are."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from davy.counting import LATENCY_EDGES_SECONDS, count_latency
from hypothesis import given
from hypothesis import strategies as st

from rollout.drivers.base import ArmCounts
from rollout.drivers.envoy.counts import Counted, latency_bins
from tests.rollout.gateway import Gateway, Served, eventually
from tests.rollout.model_server import ModelServer, two_servers

Servers = dict[str, ModelServer]


def envoys_bucket(seconds: float) -> dict[str, Any]:
    """The bucket in which Envoy counts a request: whole milliseconds, two digits (circllhist)."""
    whole = math.floor(seconds * 1000)
    if whole < 10:
        return {"lower_bound": whole, "width": 0.1 if whole else 0, "count": 1}
    width = 10 ** (math.floor(math.log10(whole)) - 1)
    return {"lower_bound": whole // width * width, "width": width, "count": 1}


# Bins


@given(st.floats(0.001, 90))
def test_a_request_stands_at_most_half_a_millisecond_or_5_percent_beside_its_place(seconds: float) -> None:
    (found,) = np.flatnonzero(latency_bins([envoys_bucket(seconds)]))
    low, high = LATENCY_EDGES_SECONDS[found], LATENCY_EDGES_SECONDS[found + 1]
    error = max(0.0005, 0.05 * seconds) + 1e-9
    assert low - error <= seconds <= high + error


@given(st.floats(0, 90), st.floats(0, 90))
def test_of_two_requests_the_slower_never_stands_in_a_faster_bin(one: float, other: float) -> None:
    faster, slower = sorted((one, other))
    (left,), (right,) = (np.flatnonzero(latency_bins([envoys_bucket(s)])) for s in (faster, slower))
    assert left <= right


def test_counts_add_up_and_what_took_no_millisecond_stands_together() -> None:
    buckets = [
        {"lower_bound": 0, "width": 0, "count": 7},
        {"lower_bound": 5, "width": 0.1, "count": 3},
        {"lower_bound": 110, "width": 10, "count": 2},
        {"lower_bound": 5_000_000, "width": 1_000_000, "count": 1},
    ]
    expected = count_latency([0.0005] * 7 + [0.0055] * 3 + [0.115] * 2 + [5500.0])
    assert latency_bins(buckets) == tuple(expected)
    assert latency_bins([]) == (0,) * 96


def test_several_envoys_add_up_and_one_that_tells_no_latency_leaves_none() -> None:
    one = Counted(50, ArmCounts(9, 1, 2, 3, (1, 2)), ArmCounts(4, 0, 0, 0, (0, 1)))
    other = Counted(20, ArmCounts(1, 1, 1, 1, (5, 5)), ArmCounts(1, 0, 0, 0, None))
    assert one.plus(other) == Counted(20, ArmCounts(10, 2, 3, 4, (6, 7)), ArmCounts(5, 0))


# A real Envoy


@pytest.fixture
def servers() -> Iterator[Servers]:
    with two_servers() as servers:
        yield servers


def latencies(served: Served) -> dict[str, np.ndarray]:
    counts = served.counts()
    assert counts.canary.latency is not None
    assert counts.stable.latency is not None
    return {"canary": np.array(counts.canary.latency), "stable": np.array(counts.stable.latency)}


def slow(server: ModelServer, served: Served, seconds: float) -> None:
    def answer(_: int) -> int:
        time.sleep(seconds)
        return 200

    server.answers[served.model] = answer


@pytest.mark.fleet
def test_each_arm_s_requests_stand_where_they_took_so_long(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 50)
    slow(servers["b"], served, 0.15)
    answered = served.users(100)
    eventually(lambda: latencies(served)["canary"].sum() == answered[200, "b"])
    found = latencies(served)
    assert found["stable"].sum() == answered[200, "a"]
    slower = LATENCY_EDGES_SECONDS[:-1] >= 0.14
    assert found["canary"][slower].sum() == answered[200, "b"]
    assert found["stable"][slower].sum() == 0


@pytest.mark.fleet
def test_pinned_and_mirrored_requests_have_no_latency(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 0)
    served.driver.set_mirror(served.route, 100)
    eventually(lambda: served.driver.observed_mirror(served.route) == 100)
    served.users(20, {"x-davy-pin": "canary"})
    served.users(30)
    eventually(lambda: len(servers["b"].headers[served.model]) == 50)
    eventually(lambda: latencies(served)["stable"].sum() == 30)
    assert latencies(served)["canary"].sum() == 0


@pytest.mark.fleet
def test_a_request_that_was_tried_twice_is_told(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 100)
    servers["b"].answers[served.model] = lambda count: 500 if count % 10 == 0 else 200
    served.users(200)
    assert served.counts().canary.retried == servers["b"].bad[served.model] > 0
    assert served.counts().stable.retried == 0
    assert served.counts().canary.assigned == 200


@pytest.mark.fleet
def test_a_retry_that_met_the_canary_again_is_told_too(gateway: Gateway, servers: Servers) -> None:
    """Its second attempt went well, so that it does not count as failed."""
    served = gateway.serve(servers, 100, fallback=False)
    servers["b"].answers[served.model] = lambda count: 500 if count % 10 == 0 else 200
    assert served.users(100, at_once=1) == {(200, "b"): 100}
    canary = served.counts().canary
    assert (canary.assigned, canary.retried) == (100, servers["b"].bad[served.model])


@pytest.mark.fleet
def test_an_arm_without_requests_has_empty_bins(gateway: Gateway, servers: Servers) -> None:
    served = gateway.serve(servers, 0)
    assert {name: bins.sum() for name, bins in latencies(served).items()} == {"canary": 0, "stable": 0}
