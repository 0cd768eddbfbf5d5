"""What do windows add up to over a minute, an hour, a day? Made whole again whenever one of them changed.

Folding leaves a mark (`Unrolled`) on the minute and the hour of every window that it touches, in its own transaction.
When the time is over, a roll-up is computed from all that it consists of, and the mark goes unless it was touched
meanwhile. So a late window is never added twice or forgotten, whoever crashes, and rolling twice changes nothing.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from davy import wire
from django.db import connection, transaction
from django.db.models import F, QuerySet
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import references
from monitoring.merging import COUNTED, ZLIB_LEVEL
from monitoring.models import Reference, Rollup, Unrolled, Window
from monitoring.statistics import scores
from monitoring.windows import ROLLED, aligned

Array = NDArray[np.int64]
Numbers = NDArray[np.float64]

MINUTE, HOUR = ROLLED
DAY = 86400
GRACE = timedelta(seconds=30)  # the last reports of an interval take a moment to arrive and be folded
HISTOGRAMS = [name for name in COUNTED if name not in ("n", "errors")]
ROWS_AT_ONCE = 200
LOCKS = 0x726F6C6C  # of PostgreSQL's advisory locks: (this, version)


class Identity(NamedTuple):
    """Which roll-up of an interval."""

    purpose: str
    segment_key: str
    reference_digest: str
    fleet: str


@dataclass
class Sums:
    """Rows added up: n, errors, and the histograms, each flat, that any of the rows has."""

    segment: Mapping[str, str]
    n: int = 0
    errors: int = 0
    histograms: dict[str, Array] = field(default_factory=dict)

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a window or a smaller roll-up, in place."""
        self.n += row["n"]
        self.errors += row["errors"]
        for name in HISTOGRAMS:
            if row[name]:
                counts = _flat(bytes(row[name]))
                known = self.histograms.get(name)
                self.histograms[name] = counts if known is None else known + counts


def roll(now: datetime, seconds: float | None = None) -> int:
    """Make the roll-ups of closed minutes, hours and days whose windows changed; returns how many intervals.

    seconds  after about which it stops, although there is more; None: when all are made
    Any number of workers may roll at once: a version is rolled by one at a time.
    """
    until = None if seconds is None else time.monotonic() + seconds
    done = 0
    for length in (MINUTE, HOUR, DAY):
        over = now - GRACE - timedelta(seconds=length)
        marks = Unrolled.objects.filter(seconds=length, start__lte=over).order_by("start", "version")
        for mark in marks.select_related("version"):
            if until is not None and time.monotonic() > until:
                return done
            done += _roll(mark, now)
    return done


def closed(now: datetime, seconds: int) -> datetime:
    """The end of the last interval of this length that `roll` may have made."""
    return aligned(now - GRACE, seconds)


def _roll(mark: Unrolled, now: datetime) -> bool:
    """Roll one interval up; False when somebody else is at this version, or was faster."""
    with transaction.atomic():
        if not _alone(mark.version_id):
            return False
        touched = Unrolled.objects.filter(pk=mark.pk).values_list("touched", flat=True).first()
        if touched is None:
            return False
        sums = _sums(_parts(mark))
        _store(mark, sums, now)
        if mark.seconds == HOUR:
            _mark_day(mark)
        Unrolled.objects.filter(pk=mark.pk, touched=touched).delete()
        return True


def _alone(version_id: int) -> bool:
    """Whether this transaction is the only one that rolls the version. What it reads from now on is the newest."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [LOCKS, version_id % 2**31])
        row = cursor.fetchone()
    return bool(row and row[0])


def _parts(mark: Unrolled) -> QuerySet[Any, dict[str, Any]]:
    """What the interval consists of: windows that begin in it and are no longer than it; hours, of a day."""
    length = timedelta(seconds=mark.seconds)
    columns = [*Identity._fields, *COUNTED, "segment"]
    inside = {"version": mark.version_id, "start__gte": mark.start, "start__lt": mark.start + length}
    whole: QuerySet[Any] = Window.objects.filter(**inside, end__lte=F("start") + length)
    if mark.seconds == DAY:
        whole = Rollup.objects.filter(**inside, seconds=HOUR)
    return whole.values(*columns)


def _sums(rows: QuerySet[Any, dict[str, Any]]) -> dict[Identity, Sums]:
    found: dict[Identity, Sums] = {}
    for row in rows.iterator(chunk_size=ROWS_AT_ONCE):
        identity = Identity(*(row[name] for name in Identity._fields))
        found.setdefault(identity, Sums(row["segment"])).add(row)
    return found


def _store(mark: Unrolled, sums: Mapping[Identity, Sums], now: datetime) -> None:
    tables = _tables(mark.version, {identity.reference_digest for identity in sums})
    rows = (
        _row(mark, identity, found, tables.get(identity.reference_digest), now)
        for identity, found in sums.items()
    )
    Rollup.objects.bulk_create(
        rows,
        batch_size=ROWS_AT_ONCE,
        update_conflicts=True,
        unique_fields=["version", *Identity._fields, "seconds", "start"],
        update_fields=[*COUNTED, "segment", "embedded", "score_sums", "rolled_at"],
    )


def _row(mark: Unrolled, identity: Identity, sums: Sums, table: Numbers | None, now: datetime) -> Rollup:
    embedding = sums.histograms.get("embedding")
    scored: dict[str, Any] = {"embedded": 0, "score_sums": b""}
    if embedding is not None and table is not None:
        counts = embedding.reshape(table.shape[1:])
        scored = {
            "embedded": int(counts[0].sum()),
            "score_sums": scores.score_sums(table, counts).astype("<f8").tobytes(),
        }
    packed = {
        name: wire.pack(sums.histograms[name], ZLIB_LEVEL) if name in sums.histograms else b""
        for name in HISTOGRAMS
    }
    return Rollup(
        version_id=mark.version_id,
        seconds=mark.seconds,
        start=mark.start,
        segment=sums.segment,
        n=sums.n,
        errors=sums.errors,
        rolled_at=now,
        **identity._asdict(),
        **packed,
        **scored,
    )


def _tables(version: ModelVersion, digests: Iterable[str]) -> dict[str, Numbers]:
    """By digest, the score tables of those of the version's references that are known."""
    known = Reference.objects.filter(version=version, digest__in=set(digests))
    return {digest: _table(pk, digest) for pk, digest in known.values_list("pk", "digest")}


@lru_cache(maxsize=64)
def _table(pk: int, digest: str) -> Numbers:
    """(2, k+1, B); the arrays of a reference never change."""
    return scores.score_table(references.arrays_of(pk, digest).counts)


def _mark_day(hour: Unrolled) -> None:
    Unrolled.objects.bulk_create(
        [Unrolled(version_id=hour.version_id, seconds=DAY, start=aligned(hour.start, DAY))],
        update_conflicts=True,
        unique_fields=["version", "seconds", "start"],
        update_fields=["touched"],
    )


def _flat(packed: bytes) -> Array:
    """Stored counts without their shape: equal identities have equal shapes."""
    return np.frombuffer(zlib.decompress(packed[1:]), f"<u{packed[0]}").astype(np.int64)
