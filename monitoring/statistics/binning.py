"""Where are the bins of equal reference probability, when values may be tied? PURE."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

BINS = 256


def edges(values: NDArray[np.float32], bins: int = BINS) -> NDArray[np.float32]:
    """Inner edges (bins - 1,), sorted, of at most `bins` bins of about equal counts of `values` (n,), finite.

    Bin of x = number of edges ≤ x. An atom (a value held by more than n / bins of the rows) gets a bin of
    its own: the edges v and nextafter(v). The other edges are quantiles of what is not an atom. Spare edges
    repeat the last one, so that their bins stay empty. O(n log n).
    """
    distinct, counts = np.unique(values.astype(np.float32), return_counts=True)
    if len(distinct) <= (bins - 1) // 2:
        found = _around(distinct)  # few values: every one gets its own bin
    else:
        atoms = _atoms(counts, bins)
        fences = np.unique(_around(distinct[atoms]))
        room = bins - 1 - len(fences)
        found = np.unique(np.concatenate([fences, _quantiles(distinct[~atoms], counts[~atoms], room)]))
    out = np.full(bins - 1, found[-1], np.float32)
    out[: len(found)] = found
    return out


def _around(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The edges that give each of the values a bin of its own."""
    below_largest = np.nextafter(np.finfo(np.float32).max, np.float32(0))
    after = np.nextafter(np.minimum(values, below_largest), np.float32(np.inf))
    return np.unique(np.concatenate([values, after]))


def _atoms(counts: NDArray[np.int64], bins: int) -> NDArray[np.bool_]:
    """(m,) which values hold more than one row and 1 / bins of all; at most bins / 3, the heaviest."""
    heavy: NDArray[np.bool_] = counts > max(1, counts.sum() / bins)
    heaviest = np.argsort(-counts, kind="stable")[: bins // 3]
    kept = np.zeros(len(counts), np.bool_)
    kept[heaviest] = heavy[heaviest]
    return kept


def _quantiles(distinct: NDArray[np.float32], counts: NDArray[np.int64], cuts: int) -> NDArray[np.float32]:
    """At most `cuts` values that cut what is not an atom into cuts + 1 parts of about equal counts."""
    if not len(distinct) or cuts <= 0:
        return np.empty(0, np.float32)
    before = np.cumsum(counts) - counts  # rows below each value
    targets = counts.sum() * np.arange(1, cuts + 1) / (cuts + 1)
    places = np.searchsorted(before, targets, side="left")
    return np.unique(distinct[places[places < len(distinct)]])


def count(values: NDArray[np.float32], inner: NDArray[np.float32]) -> NDArray[np.int64]:
    """(B,) counts of values (n,) between inner edges (B - 1,); bin of x = number of edges ≤ x."""
    return np.bincount(np.searchsorted(inner, values, side="right"), minlength=len(inner) + 1)


def nearest_edges(counts: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """(rows, m) inner edges below which the part of each row's counts (rows, B) is nearest to the shares (m,)."""
    below = np.cumsum(counts, axis=1)[:, :-1] / np.maximum(counts.sum(axis=1), 1)[:, None]
    return np.asarray(np.abs(below[:, None, :] - shares[:, None]).argmin(axis=2))


def between(counts: NDArray[np.int64], edges: NDArray[np.int64]) -> NDArray[np.int64]:
    """(rows, m + 1) counts (rows, B) below the first of the inner edges (rows, m), between them, and above the last."""
    below = np.take_along_axis(np.cumsum(counts, axis=1), edges, axis=1)
    return np.diff(below, axis=1, prepend=0, append=counts.sum(axis=1)[:, None])
