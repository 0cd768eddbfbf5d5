"""Which bin does a confidence, a latency or a number of detections fall into?

The bins are the same for every model and version: counts of any two windows can be added and compared.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Counts = NDArray[np.int64]

CONFIDENCE_BINS = 100
LATENCY_BINS = 96
DETECTION_BINS = 64
KEY_BUCKETS = 16

CONFIDENCE_EDGES: NDArray[np.float64] = np.arange(CONFIDENCE_BINS + 1) / CONFIDENCE_BINS
"""(101,) edges of the confidence bins of .01; bin i holds edges[i] <= confidence < edges[i + 1]."""

LATENCY_EDGES_SECONDS: NDArray[np.float64] = 10.0 ** (-4 + np.arange(LATENCY_BINS + 1) / 16)
"""(97,) edges of the latency bins, 16 a decade from 0.1 ms to 100 s; bins as above."""


def _count(values: ArrayLike, edges: NDArray[np.float64]) -> Counts:
    """Counts of the finite `values` between `edges`; values outside go to the first or last bin."""
    array = np.asarray(values, np.float64).ravel()
    finite = np.isfinite(array)
    if not finite.all():
        array = array[finite]
    bins = np.searchsorted(edges[1:-1], array, side="right")
    return np.bincount(bins, minlength=len(edges) - 1)


def count_confidence(values: ArrayLike) -> Counts:
    """(100,) counts of confidences (n,) in bins of .01; 1.0 is in the last bin, non-finite values in none."""
    return _count(values, CONFIDENCE_EDGES)


def count_latency(seconds: ArrayLike) -> Counts:
    """(96,) counts of latencies (n,) in seconds; outside 0.1 ms – 100 s: first or last bin; NaN: none."""
    return _count(seconds, LATENCY_EDGES_SECONDS)


def count_detections(per_image: ArrayLike) -> Counts:
    """(64,) counts of images by number of detections, per_image (n,) integers; the last bin is "63+"."""
    clipped = np.clip(np.asarray(per_image, np.int64).ravel(), 0, DETECTION_BINS - 1)
    return np.bincount(clipped, minlength=DETECTION_BINS)
