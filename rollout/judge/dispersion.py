"""Do errors come in clusters, so that counting them one by one would overstate the evidence?

One bad client or a retry storm falls into one arm as a whole where the router assigns by key: every test that
takes requests as independent then breaks. Dividing log e by D ≥ 1 keeps E e ≤ 1 (Jensen) and makes up for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from davy.counting import KEY_BUCKETS
from numpy.typing import NDArray

from rollout.judge.counts import EvidenceError, check_histogram, check_number

DISPERSED_ABOVE = 1.15  # φ up to here is taken for 1
SAFETY = 1.3  # on a φ above it
ASSUMED_CLUSTER = 5.0  # φ where it is not known and requests are not assigned one by one
LEAST_SECONDS = 3600.0  # history before φ counts as known
LEAST_ERRORS = 100.0  # errors with a key before φ counts as known: an hour without errors tells nothing
#: An interval weighs by its errors up to this many: beyond, its 16 buckets say little more.
MOST_WEIGHT = 100.0
#: Where more than this share of requests fails and requests by bucket are unknown, the buckets show the traffic
#: of the keys, not clusters of errors.
MOST_ERROR_SHARE = 0.1

State = dict[str, Any]
Array = NDArray[np.float64]


class Assignment(StrEnum):
    """The unit that the router assigns to an arm."""

    REQUEST = "request"
    CONNECTION = "connection"
    KEY = "key"


@dataclass(frozen=True)
class Dispersion:
    """φ, what log e is to be divided by, and whether φ is a guess (the page then says "assumed")."""

    phi: float
    divisor: float
    assumed: bool


def fresh() -> State:
    """Nothing seen yet."""
    return {"seconds": 0.0, "errors": 0.0, "weight": 0.0, "weighted_phi": 0.0}


def absorb(
    state: State,
    errors_by_bucket: Sequence[float] | None,
    *,
    n: float,
    seconds: float,
    n_by_bucket: Sequence[float] | None = None,
) -> State:
    """Add one past interval of the stable arm, `seconds` long.

    errors_by_bucket  (16,) errors by hash bucket of their key; None: not counted, and nothing changes
    n, n_by_bucket    its requests, and (16,) how they spread over the buckets; None: taken as evenly
    Raises EvidenceError.

    The interval's φ is Σ_k (x_k − N·q_k)² / (N·Σ q_k·(1 − q_k)) for N errors and the buckets' shares q of the
    traffic: Pearson's χ²/df where q is even. Its mean is Σ c²/Σ c over the clusters' sizes c, whatever N ≥ 1:
    exactly 1 for independent errors, so sparse intervals need no merging; pooled variances keep a bucket with
    little traffic from ruling it. Intervals weigh by their errors, else single errors would hide the clusters.
    """
    if errors_by_bucket is None:
        return state
    check_histogram("errors by key bucket", errors_by_bucket, KEY_BUCKETS)
    check_number("stable requests", n)
    check_number("seconds", seconds)
    counts = np.asarray(errors_by_bucket, dtype=float)
    errors = float(counts.sum())
    if errors > n:
        raise EvidenceError(f"stable: {errors:,} errors with a key of {n:,} requests")
    shares = _shares(counts, n_by_bucket)
    unmixed = float(shares @ (1 - shares))  # 0 where all traffic has one key
    outage = n_by_bucket is None and errors > MOST_ERROR_SHARE * n
    new = {**state, "seconds": state["seconds"] + seconds}
    if errors == 0 or unmixed <= 0 or outage:
        return new
    deviation = counts - errors * shares
    phi = float(deviation @ deviation) / (errors * unmixed)
    weight = min(errors, MOST_WEIGHT)
    return {
        "seconds": new["seconds"],
        "errors": state["errors"] + errors,
        "weight": state["weight"] + weight,
        "weighted_phi": state["weighted_phi"] + weight * phi,
    }


def estimate(state: State, assignment: Assignment) -> Dispersion:
    """φ from the intervals absorbed so far, to be used on later ones only.

    With an hour of history and LEAST_ERRORS it is measured; else assumed: 1 where requests are assigned one by
    one, ASSUMED_CLUSTER otherwise.
    """
    known = state["seconds"] >= LEAST_SECONDS and state["errors"] >= LEAST_ERRORS
    phi = state["weighted_phi"] / state["weight"] if known else None
    return Dispersion(
        assumed_phi(assignment) if phi is None else phi, divisor(phi, assignment), assumed=phi is None
    )


def divisor(phi: float | None, assignment: Assignment) -> float:
    """What log e is to be divided by: 1 up to φ = 1.15, else 1.3·φ. None: φ is not known, and is assumed."""
    if phi is None:
        phi = assumed_phi(assignment)
    if not math.isfinite(phi) or phi < 0:
        raise EvidenceError(f"φ: {phi} is not a dispersion")
    return SAFETY * phi if phi > DISPERSED_ABOVE else 1.0


def assumed_phi(assignment: Assignment) -> float:
    """φ before it is known."""
    return 1.0 if assignment is Assignment.REQUEST else ASSUMED_CLUSTER


def _shares(errors: Array, n_by_bucket: Sequence[float] | None) -> Array:
    """(16,) the buckets' shares of the traffic."""
    if n_by_bucket is None:
        return np.full(KEY_BUCKETS, 1 / KEY_BUCKETS)
    check_histogram("requests by key bucket", n_by_bucket, KEY_BUCKETS)
    requests = np.asarray(n_by_bucket, dtype=float)
    if (errors > requests).any():
        raise EvidenceError("stable: a key bucket with more errors than requests")
    return np.asarray(requests / max(1.0, float(requests.sum())))
