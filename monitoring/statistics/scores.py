"""In which direction, and how far, do counts lie from normal? One number per feature and hour. PURE.

Sources: normal scores: Blom, Statistical Estimates and Transformed Beta-Variables, 1958 (here the exact mean of a
normal variable within a bin); entropy's correction: Miller 1955, Information Theory in Psychology.

Scores of embeddings are linear in the counts: sums over hours and segments add up exactly, as the counts do.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Counts = NDArray[np.int64]
Numbers = NDArray[np.float64]
Family = Literal["embedding", "confidence", "detections"]

CONFIDENCE_SCORES = ("share below .3", "share from .3 to .6", "share from .6", "mean confidence", "entropy")
DETECTION_SCORES = ("share without detections", "mean detections", "log(1 + variance)", "entropy")


def score_table(counts: ArrayLike) -> Numbers:
    """(2, k+1, B) what a row in each bin counts: the mean of z, and of (z² − 1)/√2, over that bin of a standard
    normal.

    counts  (k+1, B) of the reference in its own bins; every row has some.
    The reference's own sums are 0, and both scores of a continuous row have variance 1 but for the bins' width. A bin
    in which the reference has nothing takes the scores of its place in the order, and beyond the outermost filled bin
    those of that bin. ValueError for a row without counts.
    """
    reference = np.asarray(counts, np.int64)
    totals = reference.sum(axis=1, keepdims=True)
    if (totals == 0).any():
        raise ValueError("a reference row has no counts")
    below = np.cumsum(reference, axis=1)
    low, high = ndtri((below - reference) / totals), ndtri(below / totals)
    (p_low, z_low), (p_high, z_high) = _density(low), _density(high)
    share = np.maximum(reference, 1) / totals
    filled = reference > 0
    place = np.where(np.isfinite(low), low, 0.0)  # of an empty bin: low = high
    mean = np.where(filled, (p_low - p_high) / share, place)
    spread = np.where(filled, (z_low - z_high) / share, place**2 - 1) / np.sqrt(2)
    nearest = np.clip(
        np.arange(reference.shape[1]), filled.argmax(1)[:, None], _last(filled)[:, None]
    )  # beyond the outermost filled bin: that bin
    return np.stack([np.take_along_axis(table, nearest, axis=1) for table in (mean, spread)])


def _density(z: Numbers) -> tuple[Numbers, Numbers]:
    """The standard normal density φ(z), and z·φ(z); both 0 at ±∞."""
    finite = np.where(np.isfinite(z), z, 0.0)
    density = np.where(np.isfinite(z), np.exp(-(finite**2) / 2) / np.sqrt(2 * np.pi), 0.0)
    return density, finite * density


def _last(filled: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.asarray(filled.shape[1] - 1 - filled[:, ::-1].argmax(axis=1), np.int64)


def score_sums(table: Numbers, counts: ArrayLike) -> Numbers:
    """(…, 2(k+1)) sums of the scores of counts (…, k+1, B): first every row's z, then every row's (z² − 1)/√2."""
    sums: Numbers = np.einsum("skb,...kb->...sk", table, np.asarray(counts, np.float64))
    return np.reshape(sums, (*sums.shape[:-2], -1))


def embedding_scores(table: Numbers, counts: ArrayLike) -> Numbers:
    """(m, 2(k+1)) mean scores of counts (m, k+1, B), in standard deviations of the reference; NaN where n is 0."""
    array = np.asarray(counts, np.int64)
    n = array.sum(axis=-1, dtype=np.float64)
    rows = np.where(n > 0, n, np.nan)
    return np.asarray(score_sums(table, array) / np.concatenate([rows, rows], axis=-1))


def confidence_scores(counts: ArrayLike) -> Numbers:
    """(m, 5) of histograms (m, 100) of confidences in bins of .01, as CONFIDENCE_SCORES names them; NaN where n is 0.

    The mean is that of the bins' middles; entropy in nats, with Miller's correction.
    """
    array = np.asarray(counts, np.int64)
    n = _rows(array)
    edges = [array[:, part].sum(axis=1) / n for part in (slice(0, 30), slice(30, 60), slice(60, None))]
    middles = (np.arange(array.shape[1]) + 0.5) / array.shape[1]
    return np.column_stack([*edges, array @ middles / n, _entropy(array, n)])


def detection_scores(counts: ArrayLike) -> Numbers:
    """(m, 4) of histograms (m, 64) of detections per image (the last bin is "63+"), as DETECTION_SCORES names them.

    NaN where n is 0.
    """
    array = np.asarray(counts, np.int64)
    n = _rows(array)
    values = np.arange(array.shape[1], dtype=np.float64)
    mean = array @ values / n
    variance = np.maximum(array @ values**2 / n - mean**2, 0.0)
    return np.column_stack([array[:, 0] / n, mean, np.log1p(variance), _entropy(array, n)])


def _rows(counts: Counts) -> Numbers:
    n = counts.sum(axis=1, dtype=np.float64)
    return np.where(n > 0, n, np.nan)


def _entropy(counts: Counts, n: Numbers) -> Numbers:
    """(m,) −Σ p ln p + (filled bins − 1) / 2n."""
    p = counts / n[:, None]
    plain = -(p * np.log(np.where(counts > 0, p, 1.0))).sum(axis=1)
    return np.asarray(plain + ((counts > 0).sum(axis=1) - 1) / (2 * n))


def names(family: Family, scores: int) -> tuple[str, ...]:
    """What each of a family's scores is called, in their order; an embedding has 2(k+1) of them."""
    if family == "confidence":
        return CONFIDENCE_SCORES
    if family == "detections":
        return DETECTION_SCORES
    rows = scores // 2 - 1
    parts = [*(f"component {index}" for index in range(rows)), "residual"]
    return (*(f"{part} mean" for part in parts), *(f"{part} spread" for part in parts))
