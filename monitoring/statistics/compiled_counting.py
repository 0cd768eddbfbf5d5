"""In which bins of a reference are many embeddings, counted by compiled loops? PURE.

Equal counts to `davy.reference.Reference.count` on the same rows: the projection is the same numpy code, only the
search for the bins and the widening of half precision are compiled (numba; LLVM without fast-math, so float32 stays
float32). Three passes without a branch over a row of a block: a `while` along the edges takes three times as long,
since a processor cannot predict where it ends.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from davy.bin_table import CELLS, MOST_STEPS
from davy.reference import BLOCK_ROWS, Reference, finite_rows
from numpy.typing import ArrayLike, NDArray

log = logging.getLogger(__name__)

Counts = NDArray[np.int64]
Float32 = NDArray[np.float32]


class CompiledCounter:
    """Counts embeddings with one reference; may be shared by threads.

    The first use in a process compiles, which takes a second, or reads what another kept in numba's cache folder
    (NUMBA_CACHE_DIR). Where none can be written every process compiles.
    """

    def __init__(self, reference: Reference) -> None:
        self.reference = reference

    def count(self, embeddings: ArrayLike) -> Counts:
        """(k+1, B) counts of embeddings (n, d), any float type; rows with a NaN or an infinity are left out.

        Memory does not grow with n. ValueError when d differs.
        """
        array = np.asarray(embeddings)
        counts = np.zeros(self.reference.counts.shape, np.int64)
        room = np.empty((min(len(array), BLOCK_ROWS), self.reference.dimensions), np.float32)
        for start in range(0, max(len(array), 1), BLOCK_ROWS):
            values = finite_rows(self._project(array[start : start + BLOCK_ROWS], room))
            self._count_projected(np.ascontiguousarray(values), counts)
        return counts

    def _project(self, block: NDArray[Any], room: Float32) -> Float32:
        """`Reference.project`; half precision is widened by a table, numpy does it value by value."""
        mean, centred = self.reference.mean, room[: len(block)]
        if block.shape != centred.shape or block.dtype not in (np.float16, np.float32):
            return self.reference.project(block)
        if block.dtype == np.float16:
            bits = np.ascontiguousarray(block).view(np.uint16)
            _compiled(_centre_halves)(bits, _halves(), mean, centred)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                np.subtract(block, mean, out=centred)
        return self.reference.project_centred(centred)

    def _count_projected(self, values: Float32, counts: Counts) -> None:
        table = self.reference.table
        if table.steps > MOST_STEPS:
            self.reference.count_projected(values, counts)
            return
        places = np.empty(values.shape[1], np.int32)
        _compiled(_count)(
            values,
            table.low[:, 0],
            table.scale[:, 0],
            table.starts,
            table.edges,
            table.steps,
            places,
            counts.reshape(-1),
        )


def _count(
    values: Float32,
    low: Float32,
    scale: Float32,
    starts: NDArray[np.int32],
    edges: Float32,
    steps: int,
    places: NDArray[np.int32],
    counts: Counts,
) -> None:
    """Add finite values (rows, n) to flattened counts (rows·B,). places (n,) is room; the rest is BinTable's."""
    first, last = np.float32(0), np.float32(CELLS - 1)
    for row in range(len(values)):
        x = values[row]
        for i in range(len(x)):
            cell = (x[i] - low[row]) * scale[row]
            cell = cell if cell > first else first  # a NaN, of infinity times 0, too, as np.fmax does
            cell = cell if cell < last else last
            places[i] = starts[row * CELLS + np.int32(cell)]
        for _ in range(steps):
            for i in range(len(x)):
                places[i] += x[i] >= edges[places[i]]
        for i in range(len(x)):
            counts[places[i]] += 1


def _centre_halves(bits: NDArray[np.uint16], widened: Float32, mean: Float32, out: Float32) -> None:
    """out (n, d) = the half-precision numbers with these bits (n, d), less the mean (d,)."""
    for i in range(bits.shape[0]):
        for j in range(bits.shape[1]):
            out[i, j] = widened[bits[i, j]] - mean[j]


@cache
def _halves() -> Float32:
    """(65536,) every half-precision number, by its bits."""
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


@cache
def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """The function compiled, from the cache folder where there is one."""
    import numba  # takes half a second to import: not at every start

    try:
        compiled: Callable[..., None] = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError as err:  # "cannot cache function …: no locator available"
        log.warning("compiled code is not kept: %s", err)
        compiled = numba.njit(nogil=True)(function)
    return compiled
