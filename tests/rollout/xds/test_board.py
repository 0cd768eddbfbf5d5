"""Who is told what, and when: the board of waiting Envoys, with a database that the test holds in its hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import pytest

from rollout.xds.board import Ask, AwayError, Board, Key, Report, Resource

KEY: Key = (1, "routes")
OTHER: Key = (2, "routes")


class Table:
    """What is stored; it counts how often it is asked."""

    def __init__(self) -> None:
        self.resources: dict[Key, Resource] = {}
        self.reports: list[Report] = []
        self.looks = self.admissions = 0
        self.away = self.closed = False
        self.tokens = {("shop", "good"): 1}

    def put(self, version: str, key: Key = KEY) -> None:
        self.resources[key] = Resource(version, version.encode())

    def exchange(self, reports: Sequence[Report], known: Mapping[Key, str]) -> dict[Key, Resource]:
        self.looks += 1
        if self.away:
            raise AwayError("away")
        self.reports += reports
        every = {key: self.resources.get(key, Resource("0", b"empty")) for key in known}
        return {key: found for key, found in every.items() if found.version != known[key]}

    def admit(self, fleet: str, token: str) -> int | None:
        self.admissions += 1
        if self.away:
            raise AwayError("away")
        return self.tokens.get((fleet, token))

    def forget(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def table() -> Table:
    table = Table()
    table.put("v1")
    return table


def played(table: Table, scene: Callable[[Board], Coroutine[Any, Any, None]], **times: float) -> None:
    """Run a scene with a board of its own."""

    async def run() -> None:
        await scene(Board(table, **{"poll_seconds": 0.01, "wait_seconds": 5.0, **times}))

    asyncio.run(asyncio.wait_for(run(), 20))


def asking(
    board: Board, version: str, node: str = "edge-1", key: Key = KEY, error: str = ""
) -> asyncio.Task[str | None]:
    """An Envoy that asks; in the end, the version that it is told."""

    async def ask() -> str | None:
        found = await board.answer(key, Ask(node, version, error))
        return None if found is None else found.version

    return asyncio.create_task(ask())


def has(table: Table, version: str, refused: str = "") -> bool:
    """Whether the last that was stored is this."""
    last = table.reports[-1] if table.reports else None
    return last is not None and (last.version, last.refused_version) == (version, refused)


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


# Told at once, or when there is news


def test_an_envoy_that_has_another_version_is_answered_at_once(table: Table) -> None:
    async def scene(board: Board) -> None:
        assert await asking(board, "") == "v1"
        assert await asking(board, "v0") == "v1"

    played(table, scene)


def test_an_envoy_that_has_everything_waits_for_news(table: Table) -> None:
    async def scene(board: Board) -> None:
        waiting = asking(board, "v1")
        await until(lambda: table.looks >= 3)
        assert not waiting.done()
        table.put("v2")
        assert await waiting == "v2"

    played(table, scene)


def test_without_news_the_wait_ends(table: Table) -> None:
    async def scene(board: Board) -> None:
        began = time.monotonic()
        assert await asking(board, "v1") is None
        assert time.monotonic() - began >= 0.2

    played(table, scene, wait_seconds=0.2)


def test_before_anything_was_set_there_is_an_answer_too(table: Table) -> None:
    async def scene(board: Board) -> None:
        assert await asking(board, "", key=OTHER) == "0"

    played(table, scene)


def test_news_of_one_fleet_wake_no_other(table: Table) -> None:
    table.put("w1", OTHER)

    async def scene(board: Board) -> None:
        mine, theirs = asking(board, "v1"), asking(board, "w1", key=OTHER)
        await until(lambda: table.looks >= 2)
        table.put("v2")
        assert await mine == "v2"
        assert not theirs.done()
        theirs.cancel()

    played(table, scene)


def test_what_another_process_told_it_is_never_taken_back(table: Table) -> None:
    """This board still knows v1 when the Envoy comes with v2 of another process."""

    async def scene(board: Board) -> None:
        assert await asking(board, "") == "v1"
        table.put("v2")
        waiting = asking(board, "v2")
        await until(lambda: table.looks >= 4)
        assert not waiting.done()
        waiting.cancel()

    played(table, scene, poll_seconds=0.05)


def test_many_that_wait_cost_no_more_than_one(table: Table) -> None:
    async def scene(board: Board) -> None:
        waiting = [asking(board, "v1", f"edge-{i}") for i in range(300)]
        await until(lambda: len(table.reports) == 300)
        before, began = table.looks, time.monotonic()
        await asyncio.sleep(0.3)
        assert table.looks - before <= (time.monotonic() - began) / 0.05 + 1
        table.put("v2")
        assert set(await asyncio.gather(*waiting)) == {"v2"}

    played(table, scene, poll_seconds=0.05)


def test_while_nobody_asks_nobody_is_asked(table: Table) -> None:
    async def scene(board: Board) -> None:
        await asking(board, "")
        await until(lambda: len(table.reports) == 1)
        await asyncio.sleep(0.05)
        before = table.looks
        await asyncio.sleep(0.1)
        assert table.looks == before
        assert await asking(board, "") == "v1"

    played(table, scene)


def test_one_that_goes_away_disturbs_nobody(table: Table) -> None:
    async def scene(board: Board) -> None:
        gone, patient = asking(board, "v1"), asking(board, "v1", "edge-2")
        await until(lambda: len(table.reports) == 2)
        gone.cancel()
        early = asking(board, "old", "edge-3")
        await asyncio.sleep(0)
        early.cancel()
        table.put("v2")
        assert await patient == "v2"

    played(table, scene)


def test_the_connection_is_given_back_when_the_process_ends(table: Table) -> None:
    async def scene(board: Board) -> None:
        await asking(board, "")

    played(table, scene)
    assert table.closed


# What is stored of them


def test_what_an_envoy_has_is_stored_once_for_each_change(table: Table) -> None:
    async def scene(board: Board) -> None:
        await asking(board, "")
        await until(lambda: has(table, ""))
        for _ in range(3):
            await asking(board, "v1")
        await until(lambda: has(table, "v1"))

    played(table, scene, wait_seconds=0.05)
    assert [(r.version, r.refused_version) for r in table.reports] == [("", ""), ("v1", "")]


def test_an_envoy_that_comes_back_twice_without_what_it_was_sent_refuses_it(table: Table) -> None:
    async def scene(board: Board) -> None:
        await asking(board, "v1")
        table.put("v2")
        assert await asking(board, "v1") == "v2"
        assert await asking(board, "v1") == "v2"  # the answer may have been lost
        assert await asking(board, "v1") == "v2"  # after a while
        await until(lambda: has(table, "v1", "v2"))

    played(table, scene, wait_seconds=0.05)
    assert "its log says why" in table.reports[-1].refusal


def test_one_that_refuses_is_not_asked_again_and_again_but_told_what_is_newer_at_once(table: Table) -> None:
    async def scene(board: Board) -> None:
        table.put("v2")
        for _ in range(2):
            await asking(board, "v1")
        refusing = asking(board, "v1")
        await until(lambda: has(table, "v1", "v2"))
        assert not refusing.done()
        table.put("v3")
        assert await refusing == "v3"
        waiting = asking(board, "v3")
        await until(lambda: has(table, "v3"))
        waiting.cancel()

    played(table, scene)


def test_the_envoy_s_own_words_are_kept(table: Table) -> None:
    async def scene(board: Board) -> None:
        table.put("v2")
        await asking(board, "v1")
        refusing = asking(board, "v1", error="no domains")
        await until(lambda: has(table, "v1", "v2"))
        refusing.cancel()

    played(table, scene)
    assert table.reports[-1].refusal == "no domains"


def test_a_restarted_envoy_is_told_at_once_and_refuses_nothing(table: Table) -> None:
    async def scene(board: Board) -> None:
        for life in range(1, 5):
            assert await asking(board, "") == "v1"
            waiting = asking(board, "v1")
            await until(lambda life=life: len([r for r in table.reports if r.version == "v1"]) == life)
            waiting.cancel()

    played(table, scene)
    assert {r.refused_version for r in table.reports} == {""}


# Tokens


def test_a_token_is_looked_up_once_for_all_who_come_with_it(table: Table) -> None:
    async def scene(board: Board) -> None:
        rows = await asyncio.gather(*(board.admit("shop", "good") for _ in range(50)))
        assert set(rows) == {1}
        assert await board.admit("shop", "good") == 1
        assert await board.admit("shop", "bad") is None
        assert await board.admit("other", "good") is None

    played(table, scene)
    assert table.admissions == 3


# The database is away


def test_who_would_have_to_be_told_hears_that_the_database_is_away_and_reports_are_kept(table: Table) -> None:
    async def scene(board: Board) -> None:
        assert await asking(board, "") == "v1"
        waiting = asking(board, "v1")
        await until(lambda: has(table, "v1"))
        table.away = True
        with pytest.raises(AwayError):
            await asking(board, "old")
        late = asking(board, "v1", "edge-9")
        await asyncio.sleep(0.05)
        assert not waiting.done()
        table.away = False
        table.put("v2")
        assert await waiting == await late == "v2"
        assert [r.node for r in table.reports].count("edge-9") == 1

    played(table, scene)
