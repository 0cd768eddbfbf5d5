"""Do both versions' collectors draw the same mirrored requests, and only while Davy asks for them?"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from davy.batch import NO_SEGMENT, Batch
from davy.collector import Collector
from davy.sampling import Draw, Sampling, encode_row, uniform

from tests.sdk.peer import Peer, Reply, running
from tests.sdk.test_outbox import PREDICTIONS, WINDOWS, Clock

NOTHING_ELSE = Sampling(measure=0.0, band_most=0)


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running() as peer:
        yield peer


@pytest.fixture
def clock() -> Clock:
    clock = Clock()
    clock.now = 1_700_000_003.0
    return clock


@pytest.fixture
def make(peer: Peer, clock: Clock) -> Iterator[Any]:
    made: list[Collector] = []

    def make(version: str, **more: Any) -> Collector:
        settings = {"background": False, "clock": clock, "monotonic": clock, "sampling": NOTHING_ELSE, **more}
        made.append(Collector(peer.url, "t", "products", version, **settings))
        return made[-1]

    yield make
    for collector in made:
        collector.close()


def told(share: object) -> Any:
    """A server that answers every report so."""
    return lambda asked: Reply(202, {"shadow_share": share} if asked.path.endswith(WINDOWS) else {})


def rows(peer: Peer) -> list[dict[str, Any]]:
    return [row for asked in peer.to(PREDICTIONS) for row in asked.json()]


def serve(collector: Collector, ids: list[str], purpose: str) -> None:
    n = len(ids)
    collector.observe(ids, confidences=np.full(n, 0.9), labels=["hat"] * n, purpose=purpose)


def next_interval(clock: Clock, *collectors: Collector) -> None:
    clock.now += 10
    for collector in collectors:
        collector.flush()


def test_both_versions_sample_the_same_requests(peer, clock, make):
    peer.respond = told(0.3)
    stable, canary = make("v1"), make("v2")
    next_interval(clock, stable, canary)
    ids = [f"r{i}" for i in range(1_000)]
    serve(stable, ids, "live")
    serve(canary, ids[::2], "shadow")  # half of them are mirrored
    next_interval(clock, stable, canary)
    drawn = {v: {row["id"] for row in rows(peer) if row["version"] == v} for v in ("v1", "v2")}
    assert abs(len(drawn["v1"]) - 300) < 5 * math.sqrt(210)
    assert drawn["v2"] == drawn["v1"] & set(ids[::2])
    assert {(row["version"], row["purpose"]) for row in rows(peer)} == {("v1", "live"), ("v2", "shadow")}
    assert {row["inclusion_probability"] for row in rows(peer)} == {0.3}


def test_nothing_is_sampled_before_davy_asks_nor_after(peer, clock, make):
    collector = make("v1")
    serve(collector, ["a"] * 50, "live")
    next_interval(clock, collector)
    peer.respond = told(1.0)
    next_interval(clock, collector)
    serve(collector, ["b"], "live")
    peer.respond = told(0.0)
    next_interval(clock, collector)
    serve(collector, ["c"], "live")
    next_interval(clock, collector)
    assert [row["id"] for row in rows(peer)] == ["b"]


def test_what_davy_asked_holds_for_a_minute_when_it_is_away(peer, clock, make):
    peer.respond = told(1.0)
    collector = make("v1")
    next_interval(clock, collector)
    peer.respond = lambda _: Reply(503, {})
    for i in range(12):
        serve(collector, [f"r{i}"], "live")
        next_interval(clock, collector)
    peer.respond = told(0.0)
    clock.now += 120
    collector.flush()
    assert {row["id"] for row in rows(peer)} == {f"r{i}" for i in range(6)}


@pytest.mark.parametrize("share", [1.5, -0.1, True, "all", None, [0.5]])
def test_an_answer_that_makes_no_sense_samples_nothing(peer, clock, make, share):
    peer.respond = told(share)
    collector = make("v1")
    next_interval(clock, collector)
    serve(collector, ["a"], "live")
    next_interval(clock, collector)
    assert not rows(peer)
    assert collector.stats.faults == 0


def test_failed_and_pinned_requests_are_not_compared(peer, clock, make):
    peer.respond = told(1.0)
    collector = make("v2")
    next_interval(clock, collector)
    serve(collector, ["pinned"], "pinned")
    collector.observe(["failed"], confidences=[0.9], errors=[True], purpose="shadow")
    next_interval(clock, collector)
    assert not rows(peer)


def offer(draw: Draw, n: int, **columns: Any) -> None:
    batch = Batch.of([f"r{i}" for i in range(n)], {"confidences": np.full(n, 0.9), **columns})
    draw.offer_for_comparison(batch, NO_SEGMENT, uniform(batch.ids), 1_700_000_000.0, {"model": "m"}, "live")


def test_a_server_under_more_load_than_foreseen_samples_less_in_the_next_interval():
    draw = Draw(Sampling(shadow_most=100), shadow_share=0.5)
    offer(draw, 10_000)
    after = Draw(draw.sampling, shadow_share=0.5, shadow_scale=draw.next_shadow_scale())
    offer(after, 10_000)
    assert len(draw.rows()) > 4_500
    assert abs(len(after.rows()) - 100) < 50
    assert after.rows()[0]["inclusion_probability"] == pytest.approx(0.5 * 100 / len(draw.rows()))


def test_a_compared_row_is_small_without_a_thousand_scores():
    draw = Draw(Sampling(), shadow_share=1.0)
    offer(
        draw,
        1,
        probabilities=np.full((1, 1_000), 0.001),
        labels=["hat"],
        keys=["k"],
        latency_seconds=np.array([0.1]),
    )
    (row,) = draw.rows()
    assert not {"probabilities", "key", "latency_ms"} & set(row)
    assert len(encode_row(row)) < 400


def test_embeddings_travel_where_the_collector_sends_them():
    vectors = np.array([[0.5, 1.0]], np.float32)
    for embeddings in (False, True):
        draw = Draw(Sampling(embeddings=embeddings), shadow_share=1.0)
        offer(draw, 1, embeddings=vectors)
        assert ("embedding" in json.loads(encode_row(draw.rows()[0]))) is embeddings
