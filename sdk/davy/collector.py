"""How does a model server tell Davy what it predicted, without ever waiting or failing because of it?"""

from __future__ import annotations

import atexit
import logging
import math
import os
import random
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from davy.batch import Batch, split
from davy.client import ApiError, Client, ClientError, path
from davy.outbox import Outbox, parcel
from davy.reference import Reference, ReferenceError, finite_rows
from davy.sampling import Draw, Row, Sampling, encode_row, uniform
from davy.tally import Tally, count_batch, good_rows
from davy.wire import Report, encode_report

log = logging.getLogger("davy")

REFERENCE_SECONDS = 5.0  # between two looks for a reference that is not there yet
UNENCODED = 10  # closed intervals waiting for a thread that gets no time
LEAST_WAIT_SECONDS = 0.05
SHADOW_SECONDS = 60.0  # what Davy told about mirrored requests holds so long, or three intervals


@dataclass
class Stats:
    """What the collector did not count as it was told: look here when numbers are missing.

    dropped     values that are not finite
    overflowed  rows whose segment had no room in the interval; they are counted under `segment=other`
    misfits     columns left out because they did not fit their batch
    faults      errors swallowed: batches whose ids, errors, purpose or segments do not fit, and failures of our own
    lost        intervals that were never encoded, and sample rows that JSON cannot hold
    """

    dropped: int = 0
    overflowed: int = 0
    misfits: int = 0
    faults: int = 0
    lost: int = 0


class Collector:
    """Counts predictions of one version into windows and posts them, one report an interval.

    An interval is reported even when nothing came, so that Davy can tell "no requests" from "no collector".
    observe() may be called from any thread. See Sampling for what is sent of single predictions.

    url, token        Davy, and a token with the scope `telemetry` (and `read`, to fetch the reference)
    reference         a Reference, "fetch" (asked for until Davy has one), or None: embeddings are not counted
    interval_seconds  aligned to UTC; the same on all servers
    most_unsent       intervals kept while Davy is away, on disk too when `folder` is given
    fleet             the fleet that this server is in, as Davy names it; None: $DAVY_FLEET, or nobody knows
    background        False: nothing runs by itself, the caller calls flush()
    clock, monotonic  unix seconds, and seconds that never jump; for tests
    """

    def __init__(
        self,
        url: str,
        token: str,
        model: str,
        version: str,
        reference: Reference | Literal["fetch"] | None = None,
        *,
        interval_seconds: float = 10.0,
        sampling: Sampling | None = None,
        most_unsent: int = 360,
        folder: str | Path | None = None,
        timeout_seconds: float = 5.0,
        fleet: str | None = None,
        background: bool = True,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not interval_seconds > 0:
            raise ValueError(f"interval_seconds {interval_seconds} is not above 0")
        self.model, self.version = model, version
        self.fleet = os.environ.get("DAVY_FLEET", "") if fleet is None else fleet
        self.interval_seconds = interval_seconds
        self._client = Client(url, token, timeout=timeout_seconds)
        self._fetching = reference == "fetch"
        self._reference = reference if isinstance(reference, Reference) else None
        self._sampling = sampling or Sampling()
        self._most_unsent = most_unsent
        self._folder = Path(folder) if folder else None
        self._timeout_seconds = timeout_seconds
        self._background = background
        self._clock = clock
        self._monotonic = monotonic
        self._begin()
        atexit.register(self.close)
        if hasattr(os, "register_at_fork"):
            _reset_when_forked(weakref.ref(self))

    def _begin(self) -> None:
        """Start as a reporter of its own."""
        self._forked = False
        identity = uuid.uuid4()
        self.reporter = str(identity)
        self.stats = Stats()
        self._spread = min(1.0, self.interval_seconds / 10) * (identity.int % 1000) / 1000
        self._sequence = 0
        self._closed: deque[tuple[Tally, Draw, int]] = deque()
        self._lock = threading.Lock()  # guards the current interval; held for microseconds
        self._sending = threading.RLock()  # one sender at a time
        self._stop = threading.Event()
        self._logged: set[str] = set()
        self._reference_due = 0.0 if self._fetching else math.inf
        self._outbox = Outbox(
            self._client,
            self._most_unsent,
            self._folder,
            clock=self._clock,
            monotonic=self._monotonic,
            jitter=random.Random(identity.int),  # noqa: S311 - spreads retries, guards nothing
            on_unknown_reference=self._forget_reference,
            on_answer=self._heard,
        )
        self._shadow_share, self._shadow_until = 0.0, -math.inf
        self._tally, self._draw = self._open(self._clock(), 1.0, 1.0)
        self._thread = threading.Thread(target=self._run, name="davy-collector", daemon=True)
        if self._background:
            self._thread.start()

    def observe(
        self,
        ids: Sequence[Any],
        *,
        confidences: Any = None,
        embeddings: Any = None,
        labels: Any = None,
        probabilities: Any = None,
        detections: Any = None,
        segments: Mapping[str, Any] | None = None,
        images: Any = None,
        latency_seconds: Any = None,
        errors: Any = None,
        keys: Any = None,
        purpose: str | Sequence[str] = "live",
    ) -> None:
        """Count n predictions, now. Never raises, and never waits for the network.

        ids              n request ids; samples are drawn by their hash
        confidences      (n,) from 0 to 1
        embeddings       (n, d), any float type
        labels, images   n values: the predicted class; a URL or object key
        probabilities    (n, classes)
        detections       n numbers of detections, or n lists of {label, confidence, box}
        segments         name to one text for all rows or to n values, e.g. {"device": devices, "country": "at"}
        latency_seconds  (n,) as the router would see it
        errors           (n,) booleans; these rows count in n and errors only
        keys             n values that tell clients apart: errors are also counted in 16 buckets by key
        purpose          "live", "pinned" or "shadow" (mirrored), for all rows or n of them; only live is evidence and
                         sampled for labeling; of live and mirrored requests some are sampled to be compared
        """
        try:
            columns = {
                "confidences": confidences,
                "embeddings": embeddings,
                "labels": labels,
                "probabilities": probabilities,
                "detections": detections,
                "images": images,
                "latency_seconds": latency_seconds,
                "errors": errors,
                "keys": keys,
            }
            batch = Batch.of(ids, columns)
            if batch.misfits:
                self._misfits(batch.misfits)
            if self._forked:
                self._begin_in_child()
            if batch.ids and not self._stop.is_set():
                self._count(split(batch, purpose, segments or {}))
        except Exception:  # noqa: BLE001 - whatever is wrong here must not fail a request
            self._fault("observe")

    def _count(self, parts: list[tuple[str, Any, Batch]]) -> None:
        reference, at = self._reference, self._clock()
        for purpose, segment, batch in parts:
            good = good_rows(batch)
            counts, dropped = count_batch(batch, good)
            values = self._project(reference, good) if reference else None
            sampled = purpose == "live" or (purpose == "shadow" and self._draw.shadow_share > 0)
            hashes = uniform(good.ids) if sampled and "confidences" in good.columns else None
            with self._lock:
                self._roll(at)
                if self._tally.reference is not reference:
                    values = None  # the interval is counted with another one
                self.stats.dropped += dropped
                if not self._tally.add(purpose, segment, counts, values):
                    self.stats.overflowed += counts.n
                if hashes is not None and good.ids:
                    if purpose == "live":
                        self._draw.offer(good, segment, hashes, at, self._head)
                    self._draw.offer_for_comparison(good, segment, hashes, at, self._head, purpose)

    def _project(self, reference: Reference, good: Batch) -> NDArray[np.float32] | None:
        """(k+1, m) projections of the rows that are finite; None without embeddings that fit the reference."""
        embeddings = good.columns.get("embeddings")
        if embeddings is None:
            return None
        if embeddings.shape[1] != reference.dimensions:
            self._misfits(
                [f"embeddings: {embeddings.shape[1]} values, the reference has {reference.dimensions}"]
            )
            return None
        values = finite_rows(reference.project(embeddings))
        self.stats.dropped += len(embeddings) - values.shape[1]
        return values

    @property
    def _head(self) -> Row:
        return {"model": self.model, "version": self.version}

    @property
    def dropped(self) -> int:
        """Values that were not counted because they are not finite."""
        return self.stats.dropped

    @property
    def reference(self) -> Reference | None:
        """The reference that embeddings are counted with, once there is one."""
        return self._reference

    @property
    def outbox(self) -> Outbox:
        """What has not been sent yet, and what became of the rest."""
        return self._outbox

    def flush(self) -> None:
        """Close the interval if it is over, and send what is due. May wait for the network; never raises."""
        if self._stop.is_set() or self._forked:
            return
        with self._lock:
            self._roll(self._clock())
        self._deliver()

    def close(self) -> None:
        """Close the current interval as it is, try once to send everything, and stop; called at exit by itself."""
        if self._stop.is_set() or self._forked:
            return
        self._stop.set()
        atexit.unregister(self.close)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(2 * self._timeout_seconds)
        with self._lock:
            self._close_interval()
        self._deliver(last_chance=True)

    def _deliver(self, *, last_chance: bool = False) -> None:
        try:
            with self._sending:
                self._pack()
                if not last_chance:
                    self._fetch_reference()
                self._outbox.send(last_chance=last_chance)
        except Exception:  # noqa: BLE001 - the thread's outer edge: it must live on
            self._fault("sending")

    def _begin_in_child(self) -> None:
        """In a forked process nothing starts before the first observe(): it may never serve at all."""
        with self._lock:
            if self._forked:
                self._begin()

    def _reset_in_child(self) -> None:
        self._forked = not self._stop.is_set()
        self._lock = threading.Lock()  # the parent's may be held by a thread that is not here

    def _run(self) -> None:
        while not self._stop.wait(self._seconds_to_next()):
            self.flush()

    def _seconds_to_next(self) -> float:
        """Until the interval is over (and a little, different on each server), or a retry is due."""
        over = self._tally.end + self._spread - self._clock()
        retry = min(self._outbox.due, self._reference_due) - self._monotonic()
        return max(min(over, retry), LEAST_WAIT_SECONDS)

    def _open(self, now: float, scale: float, shadow_scale: float) -> tuple[Tally, Draw]:
        start = math.floor(now / self.interval_seconds) * self.interval_seconds
        tally = Tally(start, start + self.interval_seconds, self._reference)
        share = self._shadow_share if self._monotonic() < self._shadow_until else 0.0
        return tally, Draw(self._sampling, scale, share, shadow_scale)

    def _heard(self, answer: Any) -> None:
        """What Davy answered to a report: the share of requests to compare, and which reference is in force."""
        answer = answer if isinstance(answer, dict) else {}
        known = self._reference.digest if self._fetching and self._reference else None
        if known and answer.get("reference_digest", known) != known:
            self._reference_due = self._monotonic()  # until it is there, counts with the old one are good
        share = answer.get("shadow_share", 0.0)
        share = share if type(share) in (int, float) and 0 <= share <= 1 else 0.0
        with self._lock:
            self._shadow_share = self._draw.shadow_share = float(share)
            self._shadow_until = self._monotonic() + max(SHADOW_SECONDS, 3 * self.interval_seconds)

    def _roll(self, now: float) -> None:
        """Close the current interval when it is over; a clock that goes back reopens none. Needs the lock."""
        if now >= self._tally.end:
            self._close_interval()
            last = self._draw
            self._tally, self._draw = self._open(now, last.next_scale(), last.next_shadow_scale())

    def _close_interval(self) -> None:
        self._closed.append((self._tally, self._draw, self._sequence))
        self._sequence += 1
        if len(self._closed) > UNENCODED:
            self._closed.popleft()
            self.stats.lost += 1

    def _pack(self) -> None:
        """Encode the closed intervals into the outbox."""
        while self._closed:
            tally, draw, sequence = self._closed.popleft()
            report = Report(
                reporter=self.reporter,
                sequence=sequence,
                sent_at=self._clock(),
                model=self.model,
                version=self.version,
                reference_digest=tally.reference.digest if tally.reference else "",
                start=tally.start,
                end=tally.end,
                windows=tally.report_windows(),
                fleet=self.fleet,
            )
            name = f"{int(tally.start * 1000):015d}-{self.reporter}-{sequence:09d}"
            self._outbox.put(parcel(name, encode_report(report), self._encode(draw.rows())))

    def _encode(self, rows: list[Row]) -> list[bytes]:
        encoded = []
        for row in rows:
            try:
                encoded.append(encode_row(row))
            except (ValueError, TypeError):
                self.stats.lost += 1
        return encoded

    def _fetch_reference(self) -> None:
        """Ask for the reference when it is time to; intervals opened from then on count embeddings."""
        if self._monotonic() < self._reference_due:
            return
        where = path("models", self.model, "versions", self.version, "reference")
        try:
            answer = self._client.send("GET", where, headers={"Accept": "application/x-npz"})
            self._reference = Reference.from_npz(answer.body)
            self._reference_due = math.inf
        except (ClientError, ReferenceError) as err:
            retry_after = getattr(err, "retry_after_seconds", None) or REFERENCE_SECONDS
            self._reference_due = self._monotonic() + max(REFERENCE_SECONDS, retry_after)
            if not (isinstance(err, ApiError) and err.status == 404):
                self._warn_once("reference", f"no reference yet, asked again: {err}")

    def _forget_reference(self) -> None:
        """The server knows another reference: count no embeddings, or fetch it."""
        self._reference = None
        self._reference_due = self._monotonic() + REFERENCE_SECONDS if self._fetching else math.inf

    def _misfits(self, misfits: list[str]) -> None:
        self.stats.misfits += len(misfits)
        self._warn_once(f"misfit {misfits[0].split(':')[0]}", f"not counted: {misfits[0]}")

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._logged:
            self._logged.add(kind)
            log.warning("davy: %s", message)

    def _fault(self, where: str) -> None:
        self.stats.faults += 1
        if where not in self._logged:
            self._logged.add(where)
            log.exception("davy: a fault in %s was swallowed; telemetry may be missing", where)


def _reset_when_forked(collector: weakref.ref[Collector]) -> None:
    """A fork copies the reporter's name and its numbers, which Davy would take for duplicates, but not its thread."""

    def reset() -> None:
        if (found := collector()) is not None:
            found._reset_in_child()

    os.register_at_fork(after_in_child=reset)
