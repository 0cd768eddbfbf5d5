"""Where do embeddings fall in the frozen picture of a version's normal output?

A reference is made by the server when a version is registered. Both sides count with it: the server the
reference rows, the collector the live ones.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from davy.bin_table import MOST_STEPS, BinTable
from davy.counting import CONFIDENCE_BINS, Counts

BLOCK_ROWS = 1024  # rows counted at once: memory stays flat, and in the processor's cache
ARRAYS = ("mean", "components", "edges", "counts", "confidence_counts")  # in the order of the digest
ROUNDING = 4e-6  # a residual below this share of the row's squared norm is float32 rounding, and counts as 0


class ReferenceError(ValueError):
    """The data is not a usable reference; the message names the array."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A PCA projection with bins per component, and the counts of the reference rows in them.

    mean               (d,) float32        subtracted before the projection
    components         (k, d) float32      orthonormal rows
    edges              (k+1, B-1) float32  inner bin edges, sorted; row k: norm of what is left out
    counts             (k+1, B) int64      of the reference rows
    confidence_counts  (100,) int64        of the reference rows, see davy.counting
    rows               number of reference rows
    digest             sha256 over the bytes of the five arrays in this order, hexadecimal
    """

    mean: NDArray[np.float32]
    components: NDArray[np.float32]
    edges: NDArray[np.float32]
    counts: Counts
    confidence_counts: Counts
    rows: int
    digest: str

    @classmethod
    def build(
        cls,
        mean: ArrayLike,
        components: ArrayLike,
        edges: ArrayLike,
        counts: ArrayLike,
        confidence_counts: ArrayLike,
        rows: int,
    ) -> Reference:
        """A reference of these arrays (in the types above) with its digest; ReferenceError when unusable."""
        arrays = (
            np.ascontiguousarray(mean, "<f4"),
            np.ascontiguousarray(components, "<f4"),
            np.ascontiguousarray(edges, "<f4"),
            np.ascontiguousarray(counts, "<i8"),
            np.ascontiguousarray(confidence_counts, "<i8"),
        )
        _check(*arrays)
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(array.tobytes())
        return cls(*arrays, rows=rows, digest=digest.hexdigest())

    @property
    def dimensions(self) -> int:
        """Length d of an embedding."""
        return int(self.mean.shape[0])

    @property
    def bins(self) -> int:
        """Number B of bins of each row."""
        return int(self.counts.shape[1])

    def project(self, embeddings: ArrayLike) -> NDArray[np.float32]:
        """(k+1, n) projections of embeddings (n, d); row k is the norm of what the k components leave out.

        A residual too small to be told from float32 rounding is exactly 0. ValueError when d differs.
        """
        array = np.asarray(embeddings)
        if array.ndim != 2 or array.shape[1] != self.dimensions:
            raise ValueError(
                f"embeddings have shape {array.shape}, the reference wants (n, {self.dimensions})"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            return self.project_centred(array.astype(np.float32, copy=False) - self.mean)

    def project_centred(self, centred: NDArray[np.float32]) -> NDArray[np.float32]:
        """`project` of embeddings (n, d) float32 from which the mean was subtracted already."""
        out = np.empty((len(self.components) + 1, len(centred)), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            np.matmul(self.components, centred.T, out=out[:-1])
            total = np.einsum("ij,ij->i", centred, centred)
            left = total - np.einsum("ij,ij->j", out[:-1], out[:-1])
            left[left <= ROUNDING * total] = 0.0
            np.sqrt(left, out=out[-1])
        return out

    def count(self, embeddings: ArrayLike) -> Counts:
        """(k+1, B) counts of embeddings (n, d), any float type; rows with a NaN or an infinity are left out.

        Bin of x in a row = number of its edges <= x. Memory does not grow with n. ValueError when d differs.
        """
        array = np.asarray(embeddings)
        counts = np.zeros(self.counts.shape, np.int64)
        for start in range(0, max(len(array), 1), BLOCK_ROWS):
            values = self.project(array[start : start + BLOCK_ROWS])
            self.count_projected(finite_rows(values), counts)
        return counts

    def count_projected(self, values: NDArray[np.float32], counts: Counts) -> None:
        """Add finite projections (k+1, n) to `counts` (k+1, B), which is contiguous."""
        if self.table.steps <= MOST_STEPS:
            np.add.at(counts.reshape(-1), self.table.places(values).ravel(), 1)
            return
        ordered = np.sort(values, axis=1)
        below = np.empty((len(values), self.bins + 1), np.int64)  # how many values lie below each edge
        below[:, 0] = 0
        below[:, -1] = values.shape[1]
        for row, edges, inner in zip(ordered, self.edges, below[:, 1:-1]):  # noqa: B905
            inner[:] = np.searchsorted(row, edges, side="left")
        counts += np.diff(below, axis=1)

    @cached_property
    def table(self) -> BinTable:
        """Where projections are looked up; made at the first call."""
        return BinTable(self.edges)

    def to_npz(self) -> bytes:
        """The reference as an npz file; `from_npz` gives it back."""
        file = io.BytesIO()
        np.savez_compressed(
            file,
            mean=self.mean,
            components=self.components,
            edges=self.edges,
            counts=self.counts,
            confidence_counts=self.confidence_counts,
            rows=np.int64(self.rows),
            digest=np.frombuffer(bytes.fromhex(self.digest), np.uint8),
        )
        return file.getvalue()

    @classmethod
    def from_npz(cls, data: bytes) -> Reference:
        """The reference in an npz file made by `to_npz`; ReferenceError when it is damaged."""
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as file:
                found: dict[str, Any] = {name: file[name] for name in (*ARRAYS, "rows", "digest")}
        except KeyError as err:
            raise ReferenceError(f"the npz file has no array {err}") from None
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as err:
            raise ReferenceError(f"not an npz file: {err}") from None
        reference = cls.build(**{name: found[name] for name in ARRAYS}, rows=int(found["rows"]))
        if reference.digest != found["digest"].tobytes().hex():
            raise ReferenceError("digest: the arrays are not those that the digest was made of")
        return reference


def finite_rows(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Projections (k+1, n) without the columns of rows that held a NaN or an infinity."""
    finite = np.isfinite(values[-1])
    return values if finite.all() else values[:, finite]


def _check(
    mean: NDArray[np.float32],
    components: NDArray[np.float32],
    edges: NDArray[np.float32],
    counts: Counts,
    confidence_counts: Counts,
) -> None:
    """ReferenceError naming the first array that does not fit the others."""
    if mean.ndim != 1 or not len(mean) or not np.isfinite(mean).all():
        raise ReferenceError(f"mean: shape {mean.shape}, want (d,) of finite numbers")
    if components.ndim != 2 or not len(components) or components.shape[1] != len(mean):
        raise ReferenceError(f"components: shape {components.shape}, want (k, {len(mean)})")
    gram = components.astype(np.float64) @ components.astype(np.float64).T
    if not np.allclose(gram, np.eye(len(components)), atol=1e-3):
        raise ReferenceError("components: the rows are not orthonormal")
    if edges.ndim != 2 or len(edges) != len(components) + 1 or not np.isfinite(edges).all():
        raise ReferenceError(
            f"edges: shape {edges.shape}, want ({len(components) + 1}, B-1) of finite numbers"
        )
    if (np.diff(edges, axis=1) < 0).any():
        raise ReferenceError("edges: not sorted")
    if counts.shape != (len(edges), edges.shape[1] + 1) or (counts < 0).any():
        raise ReferenceError(
            f"counts: shape {counts.shape}, want {(len(edges), edges.shape[1] + 1)}, none negative"
        )
    if confidence_counts.shape != (CONFIDENCE_BINS,) or (confidence_counts < 0).any():
        raise ReferenceError(f"confidence_counts: shape {confidence_counts.shape}, want ({CONFIDENCE_BINS},)")
