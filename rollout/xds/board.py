"""Which Envoys wait for news, and what did each say that it has? One board per web process.

However many Envoys wait, one thread asks the database a few times a second, for all of them at once, and tells it in
the same call what they reported. An Envoy may ask another process next time, so nobody is answered from what was read
before it asked: it could be older than what it was told there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from rollout.drivers.envoy.routes import Kind

log = logging.getLogger(__name__)

POLL_SECONDS = 0.25
WAIT_SECONDS = 20.0  # an Envoy's request_timeout has to be longer
HEARTBEAT_SECONDS = 15.0  # what an Envoy has is stored when it changes, and so often, as a sign of life
ADMITTED_SECONDS = 10.0  # how long a token is believed, or not, without asking the database again
IGNORED_TIMES = 2  # who comes back so often without what it was sent refuses it; once, the answer was lost
FORGET_SECONDS = 600.0

Key = tuple[int, Kind]  # of a fleet's row
Found = TypeVar("Found")


class AwayError(Exception):
    """The database does not answer now."""


@dataclass(frozen=True)
class Resource:
    """What the Envoys of a fleet shall have."""

    version: str
    body: bytes


@dataclass(frozen=True)
class Ask:
    """One request of one Envoy: the version that it has ("": none), and the error when it refused one."""

    node: str
    version: str
    error: str = ""


@dataclass(frozen=True)
class Report:
    """What is stored of an Envoy."""

    key: Key
    node: str
    version: str
    refused_version: str
    refusal: str
    at: float  # unix seconds


class Source(Protocol):
    """The database, called in the board's own thread. Every call may raise AwayError."""

    def exchange(self, reports: Sequence[Report], known: Mapping[Key, str]) -> dict[Key, Resource]:
        """Store the reports; return the resources of the keys whose version is not the known one."""
        ...

    def admit(self, fleet: str, token: str) -> int | None:
        """The fleet's row when the token opens its configuration; None, and an alert, when it does not."""
        ...

    def forget(self) -> None:
        """Drop Envoys that have not asked for long."""
        ...

    def close(self) -> None:
        """Give the thread's connection back."""
        ...


@dataclass
class _Node:
    """What this process knows of one Envoy and kind."""

    version: str = ""  # that it said it has
    sent: str = ""  # what it was sent last
    ignored: int = 0  # how often it came back without it
    refused: str = ""
    refusal: str = ""
    stored: tuple[str, str, str] | None = None  # what of this is in the database
    stored_at: float = 0.0
    asked_at: float = 0.0

    def hear(self, ask: Ask, wanted: str) -> None:
        restarted = ask.version == "" and self.version != ""
        if ask.error:
            self.refused, self.refusal = self.sent or wanted, ask.error
        elif ask.version == self.sent or restarted:
            self.ignored, self.refused, self.refusal = 0, "", ""
            self.sent = "" if restarted else self.sent
        elif self.sent:
            self.ignored += 1
            if self.ignored >= IGNORED_TIMES:
                self.refused, self.refusal = self.sent, "it asks again without it; its log says why"
        self.version = ask.version

    def tell(self, version: str) -> None:
        if version != self.sent:
            self.sent, self.ignored = version, 0


class Board:
    """Use it from one event loop."""

    def __init__(
        self, source: Source, *, poll_seconds: float = POLL_SECONDS, wait_seconds: float = WAIT_SECONDS
    ) -> None:
        self._source = source
        self._poll_seconds = poll_seconds
        self._wait_seconds = wait_seconds
        self._thread = ThreadPoolExecutor(1, "davy-xds")
        self._known: dict[Key, Resource] = {}
        self._wanted: set[Key] = set()
        self._news: dict[Key, asyncio.Event] = {}
        self._nodes: dict[tuple[Key, str], _Node] = {}
        self._reports: dict[tuple[Key, str], Report] = {}
        self._admitted: dict[bytes, tuple[float, int | None]] = {}
        self._admitting: dict[bytes, asyncio.Task[int | None]] = {}
        self._waiting = 0
        self._work = asyncio.Event()  # somebody asks: the poller looks
        self._urgent = asyncio.Event()  # and does so now
        self._asked: asyncio.Future[bool] | None = None
        self._forgotten_at = time.monotonic()
        self._poller: asyncio.Task[None] | None = None

    async def admit(self, fleet: str, token: str) -> int | None:
        """The fleet's row when the token opens its configuration, else None. Raises AwayError."""
        secret = hashlib.sha256(f"{fleet}\n{token}".encode()).digest()
        until, row = self._admitted.get(secret, (0.0, None))
        if until > time.monotonic():
            return row
        if secret not in self._admitting:  # a fleet's Envoys share its token
            self._admitting[secret] = asyncio.create_task(self._ask_admission(secret, fleet, token))
        return await asyncio.shield(self._admitting[secret])

    async def _ask_admission(self, secret: bytes, fleet: str, token: str) -> int | None:
        try:
            row = await self._in_thread(lambda: self._source.admit(fleet, token))
            self._admitted[secret] = (time.monotonic() + ADMITTED_SECONDS, row)
            return row
        finally:
            del self._admitting[secret]

    async def answer(self, key: Key, ask: Ask) -> Resource | None:
        """What the Envoy shall have, as soon as that is not what it has; None after WAIT_SECONDS. Raises AwayError.

        One that refuses the present version is told it again only then, or anything newer at once.
        """
        ends = time.monotonic() + self._wait_seconds
        self._start()
        self._wanted.add(key)
        known = self._known.get(key)
        if known is None or known.version != ask.version:
            await self._refresh()
        node = self._hear(key, ask)
        self._waiting += 1
        try:
            while True:
                current = self._known[key]
                left = ends - time.monotonic()
                is_news = current.version != ask.version
                if is_news and (current.version != node.refused or left <= 0):
                    node.tell(current.version)
                    return current
                if left <= 0:
                    return None
                news = self._news.setdefault(key, asyncio.Event())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left):  # Python 3.11's wait_for may swallow a cancellation
                        await news.wait()
        finally:
            self._waiting -= 1

    def _hear(self, key: Key, ask: Ask) -> _Node:
        """Note what the Envoy says; it is stored with the next look when it is new, and as a heartbeat."""
        now = time.monotonic()
        node = self._nodes.setdefault((key, ask.node), _Node())
        node.hear(ask, self._known[key].version)
        node.asked_at = now
        facts = (node.version, node.refused, node.refusal)
        if facts != node.stored or now - node.stored_at >= HEARTBEAT_SECONDS:
            node.stored, node.stored_at = facts, now
            self._reports[key, ask.node] = Report(key, ask.node, *facts, at=time.time())
        self._work.set()
        return node

    def _start(self) -> None:
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._look_until_cancelled())

    async def _refresh(self) -> None:
        """Return after a look at the database that began after this call."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._work.set()
            self._urgent.set()
        if not await asyncio.shield(self._asked):
            raise AwayError

    async def _look_until_cancelled(self) -> None:
        """The poller: no query while nobody asks."""
        try:
            while True:
                await self._work.wait()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._poll_seconds):
                        await self._urgent.wait()
                self._urgent.clear()
                await self._look()
                if not (self._waiting or self._reports or self._asked):
                    self._work.clear()
        except asyncio.CancelledError:  # the loop ends
            self._thread.submit(self._source.close)
            self._thread.shutdown(wait=True)
            raise

    async def _look(self) -> None:
        asked, self._asked = self._asked, None
        reports, self._reports = self._reports, {}
        known = {key: self._known[key].version if key in self._known else "" for key in self._wanted}
        try:
            found = await self._in_thread(lambda: self._source.exchange(list(reports.values()), known))
            await self._forget()
        except AwayError as err:
            log.warning("the Envoys are told nothing new: %s", err)
            self._reports = {**reports, **self._reports}
            _tell(asked, False)
            await asyncio.sleep(self._poll_seconds)
            return
        except BaseException:
            _tell(asked, False)
            raise
        for key, resource in found.items():
            self._known[key] = resource
            self._news.pop(key, asyncio.Event()).set()
        _tell(asked, True)

    async def _forget(self) -> None:
        now = time.monotonic()
        if now - self._forgotten_at < FORGET_SECONDS:
            return
        self._forgotten_at = now
        self._nodes = {at: node for at, node in self._nodes.items() if now - node.asked_at < FORGET_SECONDS}
        self._admitted = {secret: kept for secret, kept in self._admitted.items() if kept[0] >= now}
        await self._in_thread(self._source.forget)

    async def _in_thread(self, call: Callable[[], Found]) -> Found:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)


def _tell(asked: asyncio.Future[bool] | None, answer: bool) -> None:
    if asked is not None and not asked.done():
        asked.set_result(answer)
