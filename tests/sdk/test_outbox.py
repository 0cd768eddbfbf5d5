"""Does everything arrive once Davy is back, in order and without harm from what will never be taken?"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from davy.client import Client
from davy.outbox import Outbox, Parcel, parcel
from davy.wire import decode_report, encode_report

from tests.sdk.peer import Asked, Peer, Reply, running
from tests.sdk.test_wire import make_report

WINDOWS, PREDICTIONS = "/telemetry/windows", "/telemetry/predictions"


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running() as peer:
        yield peer


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(peer: Peer, clock: Clock, **more: Any) -> Outbox:
    settings: dict[str, Any] = {"most": 5, "folder": None, "on_unknown_reference": lambda: None, **more}
    client = Client(peer.url, "t", timeout=5)
    return Outbox(client, clock=clock, monotonic=clock, jitter=random.Random(0), **settings)


def report(sequence: int, rows: int = 0) -> Parcel:
    body = make_report()
    body.sequence = sequence
    return parcel(f"{sequence:09d}", encode_report(body), [b'{"id":"r%d"}' % i for i in range(rows)])


def sequences(peer: Peer) -> list[int]:
    return [decode_report(asked.body).sequence for asked in peer.to(WINDOWS)]


def test_a_report_goes_before_its_rows_and_rows_go_in_posts_of_a_thousand(peer, clock):
    outbox = make(peer, clock)
    outbox.put(report(1, rows=1001))
    outbox.send()
    assert [asked.path[7:] for asked in peer.asked] == [WINDOWS, PREDICTIONS, PREDICTIONS]
    assert [len(asked.json()) for asked in peer.to(PREDICTIONS)] == [1000, 1]
    assert (len(outbox), outbox.delivery.sent) == (0, 1)


def test_a_report_is_stamped_with_the_time_it_is_sent(peer, clock):
    outbox = make(peer, clock)
    outbox.put(report(1))
    clock.now += 3600
    outbox.send()
    assert decode_report(peer.asked[0].body).sent_at == clock.now


def test_while_davy_is_away_the_newest_are_kept_and_then_sent_in_order(peer, clock):
    peer.respond = lambda _: Reply(503)
    outbox = make(peer, clock, most=3)
    for sequence in range(5):
        outbox.put(report(sequence))
        outbox.send()
    peer.respond = lambda _: Reply(202, {})
    peer.asked.clear()
    clock.now += 120
    outbox.send()
    assert sequences(peer) == [2, 3, 4]
    assert outbox.delivery.pushed_out == 2


def test_tries_come_later_and_later_and_at_once_after_success(peer, clock):
    peer.respond = lambda _: Reply(500)
    outbox = make(peer, clock)
    outbox.put(report(1))
    waits = []
    for _ in range(9):
        outbox.send()
        waits.append(outbox.due - clock.now)
        clock.now = outbox.due
    assert all(0.5 * 2**i <= wait <= 2**i for i, wait in enumerate(waits[:6]))
    assert 30 <= waits[-1] <= 60
    peer.respond = lambda _: Reply(202, {})
    outbox.send()
    outbox.put(report(2))
    assert outbox.due < clock.now


def test_nothing_is_sent_before_its_time_except_as_a_last_chance(peer, clock):
    peer.respond = lambda _: Reply(429, {}, {"Retry-After": "300"})
    outbox = make(peer, clock)
    outbox.put(report(1))
    outbox.send()
    clock.now += 299
    outbox.send()
    assert len(peer.asked) == 1
    outbox.send(last_chance=True)
    assert len(peer.asked) == 2


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_what_is_refused_for_good_does_not_stand_in_the_way(peer, clock, status):
    peer.respond = lambda asked: Reply(status if decode_report(asked.body).sequence == 1 else 202, {})
    outbox = make(peer, clock)
    outbox.put(report(1))
    outbox.put(report(2))
    outbox.send()
    assert (len(outbox), outbox.delivery.refused, outbox.delivery.sent) == (0, 1, 1)


@pytest.mark.parametrize("status", [302, 401, 403, 408, 409, 429, 500, 503])
def test_what_may_pass_later_is_kept(peer, clock, status):
    peer.respond = lambda _: Reply(status)
    outbox = make(peer, clock)
    outbox.put(report(1))
    outbox.send()
    assert len(outbox) == 1


def test_a_version_that_is_not_registered_yet_does_not_stand_in_the_way(peer, clock):
    peer.respond = lambda asked: Reply(404 if decode_report(asked.body).sequence == 1 else 202, {})
    outbox = make(peer, clock)
    outbox.put(report(1))
    outbox.put(report(2))
    outbox.send()
    assert (len(outbox), outbox.delivery.sent) == (1, 1)


def test_rows_that_failed_are_sent_again_without_their_report(peer, clock):
    peer.respond = lambda asked: Reply(503 if asked.path.endswith(PREDICTIONS) else 202, {})
    outbox = make(peer, clock)
    outbox.put(report(1, rows=1))
    outbox.send()
    peer.respond = lambda _: Reply(202, {"rejected": [{"index": 0}]})
    clock.now += 60
    outbox.send()
    assert sequences(peer) == [1]
    assert len(peer.to(PREDICTIONS)) == 2
    assert outbox.delivery.rows_rejected == 1


def test_a_reference_that_davy_does_not_know_costs_the_embeddings_not_the_report(peer, clock):
    def respond(asked: Asked) -> Reply:
        known = decode_report(asked.body).reference_digest == ""
        return Reply(202, {}) if known else Reply(422, {"errors": [{"pointer": "/reference_digest"}]})

    peer.respond = respond
    told = []
    outbox = make(peer, clock, on_unknown_reference=lambda: told.append(1))
    outbox.put(report(1))
    outbox.send()
    sent = decode_report(peer.asked[-1].body)
    assert (sent.windows[0].n, sent.windows[0].embedding) == (40, None)
    assert (told, outbox.delivery.sent, outbox.delivery.refused) == ([1], 1, 0)


def test_unsent_parcels_outlive_the_process_in_a_folder(peer, clock, tmp_path: Path):
    peer.respond = lambda _: Reply(503)
    before = make(peer, clock, folder=tmp_path / "unsent")
    before.put(report(1, rows=2))
    before.put(report(2))
    before.send()
    (tmp_path / "unsent" / "junk.davy").write_bytes(b"\x01junk")
    peer.respond = lambda _: Reply(202, {})
    peer.asked.clear()
    after = make(peer, clock, folder=tmp_path / "unsent")
    after.send()
    assert sequences(peer) == [1, 2]
    assert [row["id"] for row in peer.to(PREDICTIONS)[0].json()] == ["r0", "r1"]
    assert [file.name for file in (tmp_path / "unsent").iterdir()] == ["junk.davy"]


def test_the_folder_is_bounded_too_and_a_disk_that_fails_is_no_fault(peer, clock, tmp_path: Path):
    peer.respond = lambda _: Reply(503)
    outbox = make(peer, clock, most=2, folder=tmp_path / "unsent")
    for sequence in range(4):
        outbox.put(report(sequence))
    assert sorted(file.stem for file in (tmp_path / "unsent").iterdir()) == ["000000002", "000000003"]
    for file in (tmp_path / "unsent").iterdir():
        file.unlink()
    (tmp_path / "unsent").rmdir()
    outbox.put(report(9))
    assert len(outbox) == 2
