"""How do 1,000 requests a second leave from a fraction of a core? Over keep-alive connections, one each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import httptools


@dataclass(frozen=True, slots=True)
class Answer:
    """How a request ended. outcome: an HTTP status as text, "connection" or "timeout"."""

    outcome: str
    empty: bool
    seconds: float


Done = Callable[[Answer], None]


class Connection(asyncio.Protocol):
    """One connection to the gateway; sends one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._done: Done | None = None
        self._empty = True
        self.sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the loop)."""
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, sent_at: float, done: Done) -> None:
        """Send a whole request; done is called once with its answer."""
        assert self._transport is not None
        self._done, self._empty, self.sent_at = done, True, sent_at
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Parse (called by the loop)."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort("connection")

    def on_body(self, body: bytes) -> None:
        """Note that the answer has a body (called by the parser)."""
        self._empty = False

    def on_message_complete(self) -> None:
        """Report the answer and become idle again (called by the parser)."""
        keep = self._parser.should_keep_alive()
        self._finish(str(self._parser.get_status_code()))
        if keep:
            self._pool.idle.append(self)
        elif self._transport is not None:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Report a request left without an answer (called by the loop)."""
        self._pool.forget(self)
        self._finish("connection")

    def abort(self, outcome: str) -> None:
        """Give the request up under this outcome and close."""
        self._finish(outcome)
        if self._transport is not None:
            self._transport.abort()

    def _finish(self, outcome: str) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(Answer(outcome, self._empty, time.perf_counter() - self.sent_at))

    @property
    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return self._done is not None


class Pool:
    """At most `limit` connections to one host and port."""

    def __init__(self, host: str, port: int, limit: int, timeout_seconds: float) -> None:
        self._host, self._port, self._limit, self._timeout_seconds = host, port, limit, timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._opening: set[asyncio.Task[None]] = set()
        self._closed = False
        self.idle: list[Connection] = []

    def send(self, request: bytes, done: Done) -> bool:
        """Send on an idle or a new connection; False when all are busy (done is then never called)."""
        now = time.perf_counter()
        if self.idle:
            self.idle.pop().send(request, now, done)
        elif len(self._open) + len(self._opening) < self._limit:
            task = self._loop.create_task(self._send_on_new(request, now, done))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            return False
        return True

    async def _send_on_new(self, request: bytes, now: float, done: Done) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self), self._host, self._port
                )
        except OSError as error:  # TimeoutError is one
            outcome = "timeout" if isinstance(error, TimeoutError) else "connection"
            done(Answer(outcome, True, time.perf_counter() - now))
            return
        self._open.add(connection)
        connection.send(request, now, done)
        if self._closed:  # while the connection was being made
            connection.abort("connection")

    def forget(self, connection: Connection) -> None:
        """Drop a closed connection."""
        self._open.discard(connection)
        if connection in self.idle:
            self.idle.remove(connection)

    def give_up_late(self) -> None:
        """End requests older than the timeout; call it about once a second."""
        oldest = time.perf_counter() - self._timeout_seconds
        for connection in [one for one in self._open if one.busy and one.sent_at < oldest]:
            connection.abort("timeout")

    def close(self) -> None:
        """Close every connection; requests under way end as "connection"."""
        self._closed = True
        for connection in list(self._open):
            connection.abort("connection")
