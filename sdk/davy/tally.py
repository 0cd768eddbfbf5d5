"""How many of what came in one interval?"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from davy.batch import OTHER_SEGMENT, Batch, Segment
from davy.counting import KEY_BUCKETS, Counts, count_confidence, count_detections, count_latency
from davy.reference import Reference
from davy.wire import MAX_WINDOWS, PURPOSES, WindowCounts

_ROOM = MAX_WINDOWS - 2 * len(PURPOSES)  # the rest is for no segment and for `other`, of each purpose


@dataclass
class Tally:
    """The windows of the interval [start, end) (unix seconds), by purpose and segment.

    reference fixes which embeddings can be counted: an interval is counted with one reference or with none.
    """

    start: float
    end: float
    reference: Reference | None
    windows: dict[tuple[str, str], WindowCounts] = field(default_factory=dict)

    def add(
        self, purpose: str, segment: Segment, counts: WindowCounts, values: NDArray[np.float32] | None = None
    ) -> bool:
        """Add a batch's counts, and its finite projections (k+1, n) by the tally's reference, to its window.

        False when there is no room for its segment, and they went to `segment=other`, as the server would say.
        """
        room = not segment.key or (purpose, segment.key) in self.windows or len(self.windows) < _ROOM
        segment = segment if room else OTHER_SEGMENT
        window = self.windows.get((purpose, segment.key))
        if window is None:
            window = self.windows[purpose, segment.key] = WindowCounts(purpose, dict(segment.values))
        window.add(counts)
        if values is not None and self.reference is not None:
            if window.embedding is None:
                window.embedding = np.zeros(self.reference.counts.shape, np.int64)
            self.reference.count_projected(values, window.embedding)
        return room

    def report_windows(self) -> list[WindowCounts]:
        """The windows to report; without live traffic an empty one: silence and "no requests" must differ."""
        found = list(self.windows.values())
        if not any(window.purpose == "live" for window in found):
            found.append(WindowCounts("live"))
        return found


def good_rows(batch: Batch) -> Batch:
    """The rows without an error."""
    errors = batch.columns.get("errors")
    if errors is None or not errors.any():
        return batch
    return batch.take(np.flatnonzero(~errors))


def count_batch(batch: Batch, good: Batch) -> tuple[WindowCounts, int]:
    """The counts of a batch, less embeddings, and how many of its values were dropped as not finite.

    good is good_rows(batch): rows with an error count in n and errors only, since they have no result.
    """
    counts = WindowCounts(n=len(batch.ids), errors=len(batch.ids) - len(good.ids))
    if counts.errors:
        counts.errors_by_key_bucket = _errors_by_key_bucket(batch)
    dropped = 0
    columns = good.columns
    if "confidences" in columns:
        counts.confidence = count_confidence(columns["confidences"])
        dropped += len(good.ids) - int(counts.confidence.sum())
    if "latency_seconds" in columns:
        counts.latency = count_latency(columns["latency_seconds"])
        dropped += len(good.ids) - int(counts.latency.sum())
    if "detections" in columns:
        counts.detections = count_detections(
            [d if np.ndim(d) == 0 else len(d) for d in columns["detections"]]
        )
    return counts, dropped


def _errors_by_key_bucket(batch: Batch) -> Counts:
    """(16,) failed rows by a hash of their key that is the same on every server; rows without a key in none."""
    keys = batch.columns.get("keys")
    if keys is None:
        return np.zeros(KEY_BUCKETS, np.int64)
    failed = [keys[i] for i in np.flatnonzero(batch.columns["errors"])]
    buckets = [zlib.crc32(str(key).encode()) % KEY_BUCKETS for key in failed if key not in (None, "")]
    return np.bincount(np.array(buckets, np.int64), minlength=KEY_BUCKETS)
