"""How are counts added to the windows that are stored? Exactly once, by any number of workers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import numpy as np
from davy import counting, wire
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import segments
from monitoring.models import Window

Array = NDArray[np.int64]

ZLIB_LEVEL = 1  # of stored counts: 3 to 5 times faster than 6, at most some percent larger from 1,000 rows on
COUNTED = ["n", "errors", "errors_by_key_bucket", "confidence", "latency", "detections", "embedding"]


class Key(NamedTuple):
    """The identity of a window. Workers lock windows in the order of their keys, so they cannot deadlock."""

    version_id: int
    purpose: str
    segment_key: str
    reference_digest: str
    fleet: str
    start: datetime
    end: datetime


@dataclass
class Tally:
    """A window while it is being added up; `counts.purpose` is not used, the key has it."""

    counts: wire.WindowCounts
    reporters: set[UUID] = field(default_factory=set)  # of what is added, not of what is stored
    packed_embedding: bytes = b""  # what is stored, and stays when nothing is added to it

    def add(self, other: wire.WindowCounts, reporters: Iterable[UUID] = ()) -> None:
        """Add counts of the same interval and segment, in place."""
        self.counts.add(other)
        self.reporters.update(reporters)


def admitted(tallies: Mapping[Key, Tally], now: datetime) -> dict[Key, Tally]:
    """The tallies with segments beyond the model's bound under `other`."""
    versions = ModelVersion.objects.filter(pk__in={key.version_id for key in tallies})
    models = dict(versions.values_list("pk", "model_id"))
    named: dict[int, dict[str, Mapping[str, str]]] = defaultdict(dict)
    for key, tally in tallies.items():
        named[models[key.version_id]][key.segment_key] = tally.counts.segment
    kept = {pk: segments.admit(pk, found.values(), now) for pk, found in sorted(named.items())}
    admitted: dict[Key, Tally] = {}
    for key, tally in tallies.items():
        segment = kept[models[key.version_id]][key.segment_key]
        place = key._replace(segment_key=wire.segment_key(segment))
        if place not in admitted and place == key:
            admitted[place] = tally
        else:
            whole = admitted.setdefault(place, Tally(wire.WindowCounts(segment=dict(segment))))
            whole.add(tally.counts, tally.reporters)
    return admitted


def merge(tallies: Mapping[Key, Tally], now: datetime) -> None:
    """Add tallies to the stored windows; inside the caller's transaction.

    The first upsert creates the windows that are missing and locks all of them in the order of the keys; what
    is read after it cannot change before the commit. The second upsert writes the sums.
    """
    identity = list(Key._fields)
    keys = sorted(tallies)
    locked = Window.objects.bulk_create(
        [Window(**key._asdict(), n=0, errors=0, folded_at=now) for key in keys],
        update_conflicts=True,
        unique_fields=identity,
        update_fields=["folded_at"],
    )
    for row in Window.objects.filter(pk__in=[row.pk for row in locked]):
        tally = tallies[Key(*(getattr(row, name) for name in identity))]
        mine = tally.counts.embedding
        tally.packed_embedding = bytes(row.embedding)
        tally.add(_stored(row, None if mine is None else mine.shape))
    Window.objects.bulk_create(
        [_row(key, tallies[key], now) for key in keys],
        update_conflicts=True,
        unique_fields=identity,
        update_fields=[*COUNTED, "segment", "folded_at"],
    )


def _row(key: Key, tally: Tally, now: datetime) -> Window:
    counts = tally.counts
    embedding = counts.embedding
    return Window(
        **key._asdict(),
        segment=counts.segment,
        n=counts.n,
        errors=counts.errors,
        errors_by_key_bucket=wire.pack(counts.errors_by_key_bucket, ZLIB_LEVEL),
        confidence=wire.pack(counts.confidence, ZLIB_LEVEL),
        latency=wire.pack(counts.latency, ZLIB_LEVEL),
        detections=b"" if counts.detections is None else wire.pack(counts.detections, ZLIB_LEVEL),
        embedding=tally.packed_embedding if embedding is None else wire.pack(embedding, ZLIB_LEVEL),
        folded_at=now,
    )


def _stored(row: Window, shape: tuple[int, ...] | None) -> wire.WindowCounts:
    """The counts of a window; without `shape`, that of its embedding counts, they are left out."""
    return wire.WindowCounts(
        n=row.n,
        errors=row.errors,
        errors_by_key_bucket=added_up([row.errors_by_key_bucket], counting.KEY_BUCKETS),
        confidence=added_up([row.confidence], counting.CONFIDENCE_BINS),
        latency=added_up([row.latency], counting.LATENCY_BINS),
        detections=added_up([row.detections], counting.DETECTION_BINS) if row.detections else None,
        embedding=added_up([row.embedding], *shape) if shape and row.embedding else None,
    )


def added_up(packed: Iterable[bytes | memoryview], *shape: int) -> Array:
    """Packed counts of one shape added up; what is empty counts nothing."""
    counts = np.zeros(shape, np.int64)
    for data in packed:
        if data:
            counts += wire.unpack(bytes(data), shape)
    return counts
