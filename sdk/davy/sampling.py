"""Which predictions are shown to people?

*measure*: an unbiased sample. A live row is drawn when the hash of its id is below q, and q may differ between the
strata of confidence. What is drawn is never thinned out afterwards: too much of it lowers q for the next interval,
and q travels with the row as its inclusion probability. *band*: rows of uncertain confidence, to learn from; at most
so many an interval, those with the smallest hash. *shadow*: while Davy mirrors requests of the stable version to a
canary, it tells both collectors one q. They draw by the same hash, so that a mirrored request is drawn by both or by
neither, and its two answers can be compared.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from davy.batch import Batch, Segment

STRATA = ("<.3", ".3-.6", ".6-.9", ">=.9")
STRATUM_EDGES = np.array([0.3, 0.6, 0.9])
LEAST_SCALE = 1e-4

Row = dict[str, Any]


@dataclass(frozen=True)
class Sampling:
    """How much to sample.

    measure       q of all strata, or of each by its name in STRATA (the others: 0); from 0 to 1
    measure_most  rows an interval above which q is lowered for the next
    band          confidences low <= c < high
    band_most     rows an interval
    shadow_most   rows an interval above which this server's q of mirrored requests is lowered for the next
    embeddings    whether rows carry their embedding
    """

    measure: float | Mapping[str, float] = 0.01
    measure_most: int = 200
    band: tuple[float, float] = (0.3, 0.6)
    band_most: int = 20
    shadow_most: int = 500
    embeddings: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.measure, Mapping) and set(self.measure) - set(STRATA):
            raise ValueError(f"strata {sorted(set(self.measure) - set(STRATA))} are not among {STRATA}")
        if not ((self.shares >= 0) & (self.shares <= 1)).all():
            raise ValueError(f"measure {self.measure} is not from 0 to 1")
        if not self.band[0] <= self.band[1]:
            raise ValueError(f"band {self.band} ends before it begins")

    @property
    def shares(self) -> NDArray[np.float64]:
        """(4,) q of each stratum."""
        if isinstance(self.measure, Mapping):
            return np.array([self.measure.get(stratum, 0.0) for stratum in STRATA])
        return np.array([float(self.measure)] * len(STRATA))


def uniform(ids: Sequence[str]) -> NDArray[np.float64]:
    """(2, n) numbers in [0, 1), two independent ones per id, the same on every server: 53 bits each of its blake2b."""
    digests = b"".join([blake2b(i.encode("utf-8", "replace"), digest_size=16).digest() for i in ids])
    bits = np.frombuffer(digests, "<u8").reshape(-1, 2).T >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53


@dataclass
class Draw:
    """The sample of one interval; scale (0, 1] lowers every q of *measure*, shadow_scale that of *shadow*."""

    sampling: Sampling
    scale: float = 1.0
    shadow_share: float = 0.0  # q of mirrored requests as Davy told it; 0: nothing is compared
    shadow_scale: float = 1.0
    measured: list[Row] = field(default_factory=list)
    shadowed: list[Row] = field(default_factory=list)
    in_band: int = 0
    _band: list[tuple[float, int, Row]] = field(default_factory=list)  # a heap, the largest hash on top

    def __post_init__(self) -> None:
        self._shares = self.sampling.shares * self.scale

    def offer(
        self, batch: Batch, segment: Segment, hashes: NDArray[np.float64], at: float, head: Row
    ) -> None:
        """Draw from live rows without errors, seen `at` (unix seconds); hashes = uniform(batch.ids)."""
        confidences = batch.columns["confidences"]
        strata = np.searchsorted(STRATUM_EDGES, confidences, side="right")
        drawn = (hashes[0] < self._shares[np.minimum(strata, len(STRATA) - 1)]) & np.isfinite(confidences)
        low, high = self.sampling.band
        band = (confidences >= low) & (confidences < high) & ~drawn  # one row need not be labelled twice
        for i in np.flatnonzero(drawn).tolist():
            stratum = int(strata[i])
            self.measured.append(
                {
                    **self._row(batch, i, segment, at, head),
                    "sampler": "measure",
                    "inclusion_probability": float(self._shares[stratum]),
                    "stratum": STRATA[stratum],
                }
            )
        before, self.in_band = self.in_band, self.in_band + int(np.count_nonzero(band))
        for i in np.flatnonzero(band & (hashes[1] < self._threshold())).tolist():
            if hashes[1, i] < self._threshold():
                row = {
                    **self._row(batch, i, segment, at, head),
                    "sampler": "band",
                    "stratum": STRATA[strata[i]],
                }
                push = heapq.heappush if len(self._band) < self.sampling.band_most else heapq.heapreplace
                push(self._band, (-float(hashes[1, i]), before + i, row))

    def offer_for_comparison(
        self, batch: Batch, segment: Segment, hashes: NDArray[np.float64], at: float, head: Row, purpose: str
    ) -> None:
        """Draw from the rows of which the other version may have a twin: live ones here, mirrored ones there."""
        share = self.shadow_share * self.shadow_scale
        drawn = (hashes[0] < share) & np.isfinite(batch.columns["confidences"])
        for i in np.flatnonzero(drawn).tolist():
            row = self._answer(batch, i, segment, at, head)
            self.shadowed.append(
                {**row, "purpose": purpose, "sampler": "shadow", "inclusion_probability": share}
            )

    def _threshold(self) -> float:
        """The hash that a band row must be below to be kept."""
        if len(self._band) < self.sampling.band_most:
            return 1.0
        return -self._band[0][0] if self._band else 0.0

    def rows(self) -> list[Row]:
        """What was drawn. A band row's inclusion probability is that of being kept among the interval's band."""
        kept = len(self._band) / max(self.in_band, 1)
        in_band = [{**row, "inclusion_probability": kept} for _, _, row in self._band]
        return self.measured + in_band + self.shadowed

    def next_scale(self) -> float:
        """The scale of the next interval: lower after too many rows, twice as high (up to 1) after few."""
        return _next_scale(self.scale, len(self.measured), self.sampling.measure_most)

    def next_shadow_scale(self) -> float:
        """Likewise for the rows that are compared."""
        return _next_scale(self.shadow_scale, len(self.shadowed), self.sampling.shadow_most)

    def _row(self, batch: Batch, i: int, segment: Segment, at: float, head: Row) -> Row:
        """Row i as POST /telemetry/predictions wants it, with the columns that are there."""
        columns = batch.columns
        row = self._answer(batch, i, segment, at, head)
        if "keys" in columns and columns["keys"][i] is not None:
            row["key"] = str(columns["keys"][i])
        if "latency_seconds" in columns and np.isfinite(columns["latency_seconds"][i]):
            row["latency_ms"] = max(float(columns["latency_seconds"][i]) * 1000.0, 0.0)
        if "probabilities" in columns and np.isfinite(columns["probabilities"][i]).all():
            row["probabilities"] = [_share(p) for p in columns["probabilities"][i]]
        return row

    def _answer(self, batch: Batch, i: int, segment: Segment, at: float, head: Row) -> Row:
        """Row i with what was asked and answered only: a pair needs no more, and thousands of scores are long."""
        columns = batch.columns
        row: Row = {
            **head,
            "id": batch.ids[i],
            "at": datetime.fromtimestamp(at, timezone.utc).isoformat(),
            "confidence": _share(columns["confidences"][i]),
            "segment": dict(segment.values),
        }
        for name, column in (("label", "labels"), ("image", "images")):
            if column in columns and columns[column][i] is not None:
                row[name] = str(columns[column][i])
        if "detections" in columns and np.ndim(columns["detections"][i]) > 0:
            row["detections"] = list(columns["detections"][i])
        if (
            self.sampling.embeddings
            and "embeddings" in columns
            and np.isfinite(columns["embeddings"][i]).all()
        ):
            row["embedding"] = [float(f"{x:.7g}") for x in columns["embeddings"][i]]
        return row


def _next_scale(scale: float, drawn: int, most: int) -> float:
    if drawn > most:
        return max(scale * most / drawn, LEAST_SCALE)
    return min(1.0, scale * 2) if drawn < most / 2 else scale


def _share(value: Any) -> float:
    """A share from 0 to 1: a softmax in float32 may add up to a little more."""
    return min(max(round(float(value), 6), 0.0), 1.0)


def encode_row(row: Row) -> bytes:
    """A row as JSON; ValueError or TypeError when it holds what JSON cannot."""
    return json.dumps(row, allow_nan=False, separators=(",", ":"), default=_plain).encode()


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays (a detection's box, say) as Python's."""
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
