"""What has not been sent yet, and when is it tried again?

Each closed interval is a parcel: its report, then its sample rows. Parcels are sent oldest first. Too many unsent ones
push out the oldest. With a folder they outlive the process.
"""

from __future__ import annotations

import gzip
import logging
import math
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from davy.client import ApiError, Client, ClientError
from davy.wire import CONTENT_TYPE, restamp

log = logging.getLogger("davy")

ROWS_PER_POST = 1000
REFUSED_FOR_GOOD = frozenset({400, 413, 415, 422})  # sending the same again cannot help
FIRST_BACKOFF_SECONDS = 1.0
MOST_BACKOFF_SECONDS = 60.0
SUFFIX = ".davy"
JSON = "application/json"


@dataclass
class Parcel:
    """An encoded report (b"" once it is sent) and the encoded rows, in posts, that go after it."""

    name: str
    report: bytes
    posts: list[bytes]


def parcel(name: str, report: bytes, rows: Sequence[bytes]) -> Parcel:
    """A parcel of a report and JSON rows."""
    posts = [rows[i : i + ROWS_PER_POST] for i in range(0, len(rows), ROWS_PER_POST)]
    return Parcel(name, report, [b"[" + b",".join(post) + b"]" for post in posts])


@dataclass
class Delivery:
    """What became of what was sent: parcels sent, pushed out unsent, refused; rows that the server rejected."""

    sent: int = 0
    pushed_out: int = 0
    refused: int = 0
    rows_rejected: int = 0


class Outbox:
    """At most `most` unsent parcels, in memory and in `folder` when given.

    clock gives unix seconds (reports are stamped with it when they are sent), monotonic seconds that never jump.
    on_unknown_reference is called when the server does not know the reference that embeddings were counted with,
    on_answer with what it answered to a report that it took.
    """

    def __init__(
        self,
        client: Client,
        most: int,
        folder: Path | None,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
        jitter: random.Random,
        on_unknown_reference: Callable[[], None],
        on_answer: Callable[[Any], None] = lambda _: None,
    ) -> None:
        self.delivery = Delivery()
        self._client = client
        self._most = most
        self._folder = folder
        self._clock = clock
        self._monotonic = monotonic
        self._jitter = jitter
        self._on_unknown_reference = on_unknown_reference
        self._on_answer = on_answer
        self._parcels: deque[Parcel] = deque()
        self._lock = threading.Lock()
        self._failures = 0
        self._not_before = -math.inf
        self._said: set[str] = set()
        for found in self._kept():
            self.put(found, keep=False)

    def __len__(self) -> int:
        return len(self._parcels)

    @property
    def due(self) -> float:
        """When (monotonic seconds) sending is worth a try; infinity when there is nothing to send."""
        return self._not_before if self._parcels else math.inf

    def put(self, parcel: Parcel, *, keep: bool = True) -> None:
        """Add the newest parcel; the oldest goes when there is no room."""
        if keep:
            self._keep(parcel)
        with self._lock:
            self._parcels.append(parcel)
            pushed_out = [self._parcels.popleft() for _ in range(len(self._parcels) - self._most)]
        for old in pushed_out:
            self.delivery.pushed_out += 1
            self._forget(old)
            self._say("pushed out", "unsent intervals are pushed out by newer ones")

    def send(self, *, last_chance: bool = False) -> None:
        """Send what is due, oldest first, until the server is away; last_chance does not wait for its time."""
        if not last_chance and self._monotonic() < self._not_before:
            return
        failure: ClientError | None = None
        for parcel in list(self._parcels):
            try:
                self._send(parcel)
            except ClientError as err:
                failure = err
                if isinstance(err, ApiError) and err.status == 404:
                    continue  # this model or version is not registered (yet): another's parcel may go through
                break
            with self._lock:
                if parcel in self._parcels:
                    self._parcels.remove(parcel)
            self._forget(parcel)
        self._plan(failure)

    def _plan(self, failure: ClientError | None) -> None:
        """Set the time of the next try: at once after success, later and later (with jitter) after failures."""
        if failure is None:
            self._failures, self._not_before = 0, -math.inf
            self._said.discard("unsent")
            return
        backoff = min(FIRST_BACKOFF_SECONDS * 2**self._failures, MOST_BACKOFF_SECONDS)
        wait = max(
            backoff * (0.5 + self._jitter.random() / 2), getattr(failure, "retry_after_seconds", None) or 0.0
        )
        self._failures = min(self._failures + 1, 10)
        self._not_before = self._monotonic() + wait
        self._say("unsent", f"telemetry waits in this process and is tried again: {failure}")

    def _send(self, parcel: Parcel) -> None:
        """Send what is left of a parcel; ClientError when it must be tried again."""
        if parcel.report:
            self._send_report(parcel.report)
            parcel.report = b""
        while parcel.posts:
            self._send_rows(parcel.posts[0])
            parcel.posts.pop(0)

    def _send_report(self, report: bytes) -> None:
        """Send a report, if need be without embeddings whose reference the server does not know."""
        try:
            try:
                answer = self._post("/telemetry/windows", restamp(report, self._clock()), CONTENT_TYPE)
            except ApiError as err:
                if not _about_embeddings(err):
                    raise
                self._on_unknown_reference()
                self._say("reference", f"embeddings are left out of the report: {err}")
                bare = restamp(report, self._clock(), embeddings=False)
                answer = self._post("/telemetry/windows", bare, CONTENT_TYPE)
        except ApiError as err:
            self._refused(err)
        else:
            self.delivery.sent += 1
            self._on_answer(answer)

    def _send_rows(self, rows: bytes) -> None:
        try:
            answer = self._post("/telemetry/predictions", gzip.compress(rows, 5), JSON, gzipped=True)
        except ApiError as err:
            self._refused(err)
            return
        rejected = answer.get("rejected") if isinstance(answer, dict) else None
        if isinstance(rejected, list) and rejected:
            self.delivery.rows_rejected += len(rejected)
            self._say("rejected", f"the server rejects sample rows, for instance {rejected[0]}")

    def _post(self, path: str, body: bytes, content_type: str, *, gzipped: bool = False) -> Any:
        headers = {"Content-Type": content_type, **({"Content-Encoding": "gzip"} if gzipped else {})}
        return self._client.send("POST", path, body=body, headers=headers).json()

    def _refused(self, err: ApiError) -> None:
        """Count what the server will never take; raise `err` when trying again may help."""
        if err.status not in REFUSED_FOR_GOOD:
            raise err
        self.delivery.refused += 1
        self._say("refused", f"the server refuses telemetry, which is lost: {err}")

    def _say(self, kind: str, message: str) -> None:
        """Log a warning of one kind once."""
        if kind not in self._said:
            self._said.add(kind)
            log.warning("davy: %s", message)

    def _kept(self) -> list[Parcel]:
        """The parcels that earlier processes left in the folder, oldest first."""
        if self._folder is None:
            return []
        self._folder.mkdir(parents=True, exist_ok=True)
        found = []
        for file in sorted(self._folder.glob(f"*{SUFFIX}")):
            try:
                body = msgpack.unpackb(file.read_bytes())
                found.append(Parcel(file.stem, body["report"], body["posts"]))
            except (OSError, ValueError, KeyError, TypeError, msgpack.UnpackException) as err:
                self._say("unreadable", f"{file} is left alone: {err}")
        return found

    def _keep(self, parcel: Parcel) -> None:
        """Write a parcel to the folder, whole or not at all."""
        if self._folder is None:
            return
        part = self._folder / f"{parcel.name}.part"
        try:
            part.write_bytes(bytes(msgpack.packb({"report": parcel.report, "posts": parcel.posts})))
            part.replace(self._folder / f"{parcel.name}{SUFFIX}")
        except OSError as err:
            self._say("disk", f"unsent telemetry is kept in memory only: {err}")

    def _forget(self, parcel: Parcel) -> None:
        if self._folder is not None:
            try:
                (self._folder / f"{parcel.name}{SUFFIX}").unlink(missing_ok=True)
            except OSError as err:
                self._say("disk", f"sent telemetry stays on disk: {err}")


def _about_embeddings(err: ApiError) -> bool:
    """Whether a report was refused for its reference or its embedding counts only."""
    errors = err.problem.get("errors")
    pointers = (
        [str(e.get("pointer")) for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []
    )
    return err.status == 422 and any(p.endswith(("/reference_digest", "/embedding")) for p in pointers)
