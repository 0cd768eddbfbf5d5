"""Which number of an interval does a chart show? Shares, rates and values, from an interval's counts. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from davy import counting
from davy.reference import Reference
from numpy.typing import NDArray

from monitoring.statistics import binned_ks

Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Measure:
    """What is measured. A share is events of n, a rate may be more than one per n, a value is neither."""

    words: str
    form: Literal["share", "rate", "value"]
    column: str  # of the roll-up that holds it
    unit: str = ""


MEASURES: Mapping[str, Measure] = {
    "low_share": Measure("share of confidences below .6", "share", "confidence"),
    "unsure_share": Measure("share of confidences from .3 to .6", "share", "confidence"),
    "confidence_mean": Measure("mean confidence", "value", "confidence"),
    "detections_mean": Measure("detections per image", "rate", "detections"),
    "error_share": Measure("share of requests that failed", "share", "errors"),
    "latency_p50": Measure("median latency", "value", "latency", "ms"),
    "d_max": Measure("largest D of any component", "value", "embedding"),
}
SHARES = {"low_share": slice(0, 60), "unsure_share": slice(30, 60)}  # bins of .01


def amount(
    name: str, n: int, errors: int, counts: Counts | None, reference: Reference | None = None
) -> tuple[float, int] | None:
    """The measure of one interval as (amount, n): events or things counted of n, or for a value its n-fold.

    n, errors  requests, and those of them that failed
    counts     of the measure's column: a histogram as in davy.counting, or embeddings (k+1, B) in the reference's bins
    reference  what d_max is the distance from; without one there is no distance
    None where the interval holds nothing of it. Raises KeyError for a name that is not in MEASURES.
    """
    if MEASURES[name].column == "errors":
        return (errors, n) if n else None
    if counts is None or not counts.any():
        return None
    if name == "d_max":
        return _distance(counts, reference) if reference is not None else None
    counted = int(counts.sum())
    if name in SHARES:
        return float(counts[SHARES[name]].sum()), counted
    if name == "confidence_mean":
        return float(counts @ (np.arange(len(counts)) + 0.5)) / counting.CONFIDENCE_BINS, counted
    if name == "detections_mean":
        return float(counts @ np.arange(len(counts))), counted
    return _median_ms(counts) * counted, counted


def expected(name: str, reference: Reference) -> float | None:
    """The share that the reference says is normal; None for what a reference says nothing of."""
    if name not in SHARES or not reference.confidence_counts.any():
        return None
    return float(reference.confidence_counts[SHARES[name]].sum() / reference.confidence_counts.sum())


def _distance(embedding: Counts, reference: Reference) -> tuple[float, int]:
    n = int(embedding[-1].sum())
    return float(binned_ks.grid_distance(reference.counts, embedding).max()) * n, n


def _median_ms(latency: Counts) -> float:
    """The median in milliseconds, within its bin (16 a decade) as if logarithms were spread evenly."""
    below = np.cumsum(latency)
    half = below[-1] / 2
    place = int(np.searchsorted(below, half))
    low, high = counting.LATENCY_EDGES_SECONDS[place : place + 2]
    part = (half - (below[place] - latency[place])) / latency[place]
    return float(1000 * low * (high / low) ** part)
