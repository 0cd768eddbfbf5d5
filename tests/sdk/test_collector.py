"""Does every prediction reach Davy once, whatever happens to the network, and none disturb the server?"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from davy.collector import Collector
from davy.sampling import Sampling
from davy.wire import Report, decode_report

from tests.sdk.peer import Peer, Reply, running
from tests.sdk.test_outbox import PREDICTIONS, WINDOWS, Clock
from tests.sdk.test_reference import make_reference

REFERENCE = "/models/products/versions/v2/reference"
SDK = Path(__file__).parents[2] / "sdk"


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
    """Collectors without a thread of their own, on a clock that stands still."""
    made: list[Collector] = []

    def make(**more: Any) -> Collector:
        settings = {"background": False, "clock": clock, "monotonic": clock, **more}
        made.append(Collector(peer.url, "t", "products", "v2", **settings))
        return made[-1]

    yield make
    for collector in made:
        collector.close()


def reports(peer: Peer) -> list[Report]:
    return [decode_report(asked.body) for asked in peer.to(WINDOWS)]


def ids(n: int, prefix: str = "r") -> list[str]:
    return [f"{prefix}{i}" for i in range(n)]


def test_predictions_are_counted_into_the_interval_they_came_in(peer, clock, make):
    collector = make()
    collector.observe(ids(3), confidences=[0.1, 0.5, 0.9], latency_seconds=[0.01] * 3)
    clock.now += 8
    collector.observe(ids(2, "s"), confidences=[0.2, 0.3], errors=[True, False], keys=["a", "b"])
    clock.now += 10
    collector.flush()
    first, second = reports(peer)
    assert (first.start, first.end, first.sequence) == (1_700_000_000, 1_700_000_010, 0)
    assert (second.start, second.end, second.sequence) == (1_700_000_010, 1_700_000_020, 1)
    assert first.reporter == second.reporter == collector.reporter
    assert [(r.windows[0].n, r.windows[0].errors) for r in (first, second)] == [(3, 0), (2, 1)]
    assert first.windows[0].latency.sum() == 3
    assert (first.model, first.version, first.reference_digest) == ("products", "v2", "")


def test_reports_name_the_fleet_that_the_server_is_in(peer, clock, make, monkeypatch):
    monkeypatch.setenv("DAVY_FLEET", "shop")
    for collector in (make(), make(fleet="lab"), make(fleet="")):
        clock.now += 10
        collector.flush()
    assert [report.fleet for report in reports(peer)] == ["shop", "lab", ""]


def test_an_interval_without_traffic_is_reported_as_such(peer, clock, make):
    collector = make()
    for _ in range(3):
        clock.now += 10
        collector.flush()
    assert [[(w.purpose, w.n) for w in r.windows] for r in reports(peer)] == [[("live", 0)]] * 3
    assert [r.sequence for r in reports(peer)] == [0, 1, 2]


def test_time_asleep_is_not_reported_as_time_without_traffic(peer, clock, make):
    collector = make()
    clock.now += 1000
    collector.flush()
    clock.now += 10
    collector.flush()
    assert [r.end - 1_700_000_000 for r in reports(peer)] == [10, 1010]


def test_a_clock_that_goes_back_reopens_no_interval(peer, clock, make):
    collector = make()
    clock.now += 10
    collector.observe(ids(1))
    clock.now -= 9
    collector.observe(ids(2))
    clock.now += 20
    collector.flush()
    assert [(r.start, r.windows[0].n) for r in reports(peer)] == [(1_700_000_000, 0), (1_700_000_010, 3)]


def test_nothing_counts_twice_when_davy_is_away(peer, clock, make):
    peer.respond = lambda _: Reply(503)
    collector = make()
    for _ in range(4):
        collector.observe(ids(5))
        clock.now += 10
        collector.flush()
    peer.respond = lambda _: Reply(202, {})
    peer.asked.clear()
    clock.now += 60
    collector.flush()
    assert [r.sequence for r in reports(peer)] == [0, 1, 2, 3, 4]
    assert sum(r.windows[0].n for r in reports(peer)) == 20
    assert {r.sent_at for r in reports(peer)} == {clock.now}


def test_embeddings_are_counted_with_the_reference(peer, clock, make):
    reference = make_reference()
    collector = make(reference=reference)
    embeddings = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
    embeddings[7, 2] = np.nan
    collector.observe(ids(40), embeddings=embeddings, errors=[True] + [False] * 39)
    clock.now += 10
    collector.flush()
    [report] = reports(peer)
    assert report.reference_digest == reference.digest
    assert (report.windows[0].embedding == reference.count(embeddings[1:])).all()
    assert (report.windows[0].n, collector.dropped) == (40, 1)


def test_a_reference_is_fetched_once_it_is_there_and_used_from_the_next_interval(peer, clock, make):
    reference = make_reference()
    peer.respond = lambda asked: Reply(404 if asked.method == "GET" else 202, {})
    collector = make(reference="fetch")
    collector.flush()
    collector.flush()
    assert len(peer.to(REFERENCE)) == 1
    peer.respond = lambda asked: Reply(200, reference.to_npz()) if asked.method == "GET" else Reply(202, {})
    clock.now += 5
    collector.flush()
    assert collector.reference.digest == reference.digest
    assert peer.to(REFERENCE)[1].headers["accept"] == "application/x-npz"
    for _ in range(2):
        collector.observe(ids(6), embeddings=np.zeros((6, 12)))
        clock.now += 10
        collector.flush()
    before, after = reports(peer)
    assert (before.windows[0].n, before.windows[0].embedding) == (6, None)
    assert after.windows[0].embedding[0].sum() == 6
    assert len(peer.to(REFERENCE)) == 2


def test_when_another_reference_is_in_force_it_is_fetched_and_counts_go_on_meanwhile(peer, clock, make):
    old, new = make_reference(), make_reference(seed=1)
    in_force = [old]

    def respond(asked):
        if asked.method == "GET":
            return Reply(200, in_force[-1].to_npz())
        return Reply(202, {"accepted": 1, "duplicate": 0, "reference_digest": in_force[-1].digest})

    def interval():
        collector.observe(ids(6), embeddings=np.zeros((6, 12)))
        clock.now += 10
        collector.flush()

    peer.respond = respond
    collector = make(reference="fetch")
    collector.flush()
    interval()
    interval()
    in_force.append(new)
    interval()  # sent with the old one; the answer names the new one
    interval()
    interval()
    interval()
    counted = [r.reference_digest for r in reports(peer) if r.windows[0].embedding is not None]
    assert set(counted[:2]) == {old.digest}
    assert counted[-1] == new.digest
    assert len(peer.to(REFERENCE)) == 2


def test_a_damaged_reference_or_another_dimension_costs_the_embeddings_only(peer, clock, make):
    peer.respond = lambda asked: Reply(200 if asked.method == "GET" else 202, b"{}")
    fetching, narrow = make(reference="fetch"), make(reference=make_reference())
    fetching.flush()
    for collector in (fetching, narrow):
        collector.observe(ids(2), embeddings=np.zeros((2, 5)), confidences=[0.5, 0.6])
    clock.now += 10
    fetching.flush()
    narrow.flush()
    assert [(r.windows[0].n, r.windows[0].confidence.sum()) for r in reports(peer)] == [(2, 2)] * 2
    assert [r.windows[0].embedding for r in reports(peer)] == [None] * 2
    assert narrow.stats.misfits == 1


def test_rows_are_reported_by_purpose_and_segment(peer, clock, make):
    collector = make()
    collector.observe(ids(3), segments={"device": ["ios", "web", "ios"]}, purpose=["live", "live", "shadow"])
    clock.now += 10
    collector.flush()
    [report] = reports(peer)
    assert {(w.purpose, w.segment["device"]): w.n for w in report.windows} == {
        ("live", "ios"): 1,
        ("live", "web"): 1,
        ("shadow", "ios"): 1,
    }


def test_samples_of_live_rows_follow_their_report(peer, clock, make):
    collector = make(sampling=Sampling(measure=1.0))
    collector.observe(ids(3), confidences=[0.4, np.nan, 0.9], errors=[False, False, True], images=ids(3))
    collector.observe(ids(3, "shadow"), confidences=[0.4] * 3, purpose="shadow")
    clock.now += 10
    collector.flush()
    [row] = peer.to(PREDICTIONS)[0].json()
    assert (row["id"], row["sampler"], row["image"], row["inclusion_probability"]) == (
        "r0",
        "measure",
        "r0",
        1.0,
    )
    assert datetime.fromisoformat(row["at"]).timestamp() == 1_700_000_003


def test_too_many_samples_lower_the_probability_of_the_next_interval(peer, clock, make):
    collector = make(sampling=Sampling(measure=1.0, measure_most=50, band_most=0))
    for _ in range(2):
        collector.observe(ids(100), confidences=[0.9] * 100)
        clock.now += 10
        collector.flush()
    first, second = [asked.json() for asked in peer.to(PREDICTIONS)]
    assert len(first) == 100
    assert {row["inclusion_probability"] for row in second} == {0.5}


@pytest.mark.parametrize(
    "arguments",
    [
        {"ids": None},
        {"ids": ids(2), "errors": [True]},
        {"ids": ids(2), "purpose": "lively"},
        {"ids": ids(2), "segments": {"device": ["ios"]}},
        {"ids": ids(2), "segments": 7},
    ],
)
def test_nothing_is_ever_raised_into_the_server(make, caplog, arguments):
    collector = make()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            collector.observe(**arguments)
    assert collector.stats.faults == 3
    assert len(caplog.records) == 1


def test_a_column_that_does_not_fit_is_left_out_and_said_once(peer, clock, make, caplog):
    collector = make()
    for _ in range(2):
        collector.observe(ids(2), confidences=[0.5], latency_seconds=[0.1, 0.1])
    clock.now += 10
    collector.flush()
    [window] = reports(peer)[0].windows
    assert (window.n, window.confidence.sum(), window.latency.sum()) == (4, 0, 4)
    assert collector.stats.misfits == 2
    assert sum("confidences" in record.message for record in caplog.records) == 1


def test_closing_sends_the_interval_as_it_is_and_what_comes_later_is_ignored(peer, clock, make):
    collector = make()
    collector.observe(ids(3))
    collector.close()
    collector.close()
    collector.observe(ids(3))
    collector.flush()
    assert [r.windows[0].n for r in reports(peer)] == [3]


def test_threads_lose_nothing(peer, clock, make):
    collector = make(reference=make_reference())
    embeddings = np.zeros((8, 12), np.float32)

    def serve(name: int) -> None:
        for i in range(50):
            collector.observe(ids(8, f"{name}-{i}-"), confidences=[0.5] * 8, embeddings=embeddings)

    threads = [threading.Thread(target=serve, args=(name,)) for name in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    clock.now += 10
    collector.flush()
    [window] = reports(peer)[0].windows
    assert window.n == window.confidence.sum() == window.embedding[0].sum() == 8 * 50 * 8


def test_the_background_thread_reports_by_itself_and_survives_an_outage(peer):
    peer.respond = lambda _: Reply(500)
    collector = Collector(peer.url, "t", "products", "v2", interval_seconds=0.1, reference="fetch")
    collector.observe(ids(5))
    peer.wait_for(WINDOWS, 2)
    peer.respond = lambda _: Reply(202, {})
    peer.wait_for(WINDOWS, 6)
    collector.close()
    assert sum({r.sequence: r.windows[0].n for r in reports(peer)}.values()) == 5
    assert collector.outbox.delivery.sent == len({r.sequence for r in reports(peer)})


def run_python(code: str, url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(SDK)}
    subprocess.run([sys.executable, "-c", code, url], check=True, env=environment, timeout=60)


def test_a_process_that_ends_sends_what_it_has(peer):
    run_python(
        "import sys; from davy.collector import Collector\n"
        "Collector(sys.argv[1], 't', 'm', 'v').observe(['a', 'b'])",
        peer.url,
    )
    assert [r.windows[0].n for r in reports(peer)] == [2]


def test_a_forked_server_is_a_reporter_of_its_own(peer):
    run_python(
        "import os, sys; from davy.collector import Collector\n"
        "collector = Collector(sys.argv[1], 't', 'm', 'v'); collector.observe(['a'])\n"
        "for n in (0, 2):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        collector.observe([str(i) for i in range(n)]) if n else None\n"
        "        sys.exit()\n"
        "    os.waitpid(child, 0)",
        peer.url,
    )
    found = reports(peer)
    assert sorted(r.windows[0].n for r in found) == [1, 2]
    assert len({r.reporter for r in found}) == 2
