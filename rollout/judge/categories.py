"""Form C: how much does one interval speak for "the canary's histogram differs from stable's"?"""

from __future__ import annotations

import math

import numpy as np
from davy.counting import CONFIDENCE_EDGES, LATENCY_EDGES_SECONDS
from numpy.typing import ArrayLike, NDArray

from rollout.judge.counts import EvidenceError, check_histogram

#: Prior over the alternatives: templates, bucket-edge thresholds (form H), plug-in (design: judge.md, form C).
TEMPLATE_SHARE, THRESHOLD_SHARE, PLUG_IN_SHARE = 0.5, 0.35, 0.15
#: Everything slower by these shares; the ends are the design's.
LATENCY_SCALES = (0.07, 0.15, 0.3, 0.6, 1.2, 3.0)
#: Only what is slower than stable's p95, slower by these shares.
TAIL_SCALES = (0.25, 1.0, 3.0)
TAIL_FROM = 0.95
#: Exponential tilts towards lower confidence, per standard deviation of stable's confidence.
TILTS = (0.1, 0.2, 0.4, 0.8)
#: Shares of predictions replaced by unsure ones, spread evenly below UNSURE_BELOW.
CONTAMINATIONS = (0.03, 0.1, 0.3)
UNSURE_BELOW, SURE_FROM = 0.6, 0.9
#: Share of requests that a latency template leaves as they were, so that one request costs at most about ln(1/.05).
UNMOVED = 0.05
#: Canary requests of the past at which the plug-in believes them as much as stable's histogram.
PLUG_IN_REQUESTS = 1000.0
#: Requests' worth of an even histogram in the reference, so that no bin is impossible.
PRIOR_REQUESTS = 1.0

_SHARE_FLOOR = 1e-6  # shares are kept within [1e-6, 1 − 1e-6]

Array = NDArray[np.float64]


def log_e(*, x_c: ArrayLike, x_b: ArrayLike, p_ref: ArrayLike, ratio: ArrayLike) -> Array:
    """Log e-value of one interval against "both arms have the same histogram", unknown and free to change.

    x_c, x_b  (K,) counts of canary and stable; an arm without requests gives 0
    p_ref     (K,) what stable looked like in the past (see reference)
    ratio     (m, K) or (K,) > 0: the alternatives' likelihood ratios, canary's histogram ∝ p_ref·ratio
    Returns (m,) or (): add up over intervals per alternative, mix last. Raises EvidenceError.

    With p the interval's true histogram, E e = A^n_c·B^n_b where n_c·A + n_b·B = Σ p_k·(n_c·p_ck + n_b·p_refk)/p0_k
    = n_c + n_b; so E e ≤ 1 for any p_ref and ratio, by the inequality of the means. A strict null: at scale a
    harmless change is a difference too. Turner, Ly, Grünwald (JSPI 2024) for K categories.
    Where the ratio only rises over the bins, E e ≤ 1 holds as well for a canary that lies stochastically below
    stable (p_c/p0 rises with the ratio, so every factor has a smaller mean); where it only falls, above.
    """
    canary, stable = np.asarray(x_c, dtype=float), np.asarray(x_b, dtype=float)
    past, ratios = np.asarray(p_ref, dtype=float), np.asarray(ratio, dtype=float)
    bins = ratios.shape[-1]
    for name, histogram in (("canary", canary), ("stable", stable), ("p_ref", past)):
        check_histogram(name, histogram.tolist(), bins)
    if not (np.isfinite(ratios).all() and (ratios > 0).all()):
        raise EvidenceError("ratio: an alternative that is not a positive number")
    if not past.any():
        raise EvidenceError("p_ref: no past to refer to")
    n_c, n_b = canary.sum(), stable.sum()
    if n_c == 0 or n_b == 0:
        return np.zeros(ratios.shape[:-1])
    p_b = _shares(past)
    p_c = p_b * ratios  # not floored: p_c/p_b must rise where the ratio does
    p_c /= p_c.sum(axis=-1, keepdims=True)
    p_0 = (n_c * p_c + n_b * p_b) / (n_c + n_b)
    return np.asarray(np.log(p_c / p_0) @ canary + np.log(p_b / p_0) @ stable)


def reference(past_counts: ArrayLike) -> Array:
    """(K,) shares from stable's past counts (K,), faded as `past` does it, plus a small even prior."""
    counts = np.asarray(past_counts, dtype=float)
    return np.asarray((counts + PRIOR_REQUESTS / counts.size) / (counts.sum() + PRIOR_REQUESTS))


def latency_ratios(p_ref: ArrayLike) -> Array:
    """(9, 96) alternatives for log latency bins: everything slower, or only the tail from p95.

    The ratios only rise, so a faster canary is no evidence (see log_e). They may serve several intervals: all
    that matters is that p_ref is of the past.
    """
    p = _shares(np.asarray(p_ref, dtype=float))
    below = np.append(0.0, np.cumsum(p))
    body, tail = np.minimum(below, TAIL_FROM), np.maximum(below - TAIL_FROM, 0.0)
    moved = [_slower(below, scale) for scale in LATENCY_SCALES]
    moved += [body + _slower(tail, scale) for scale in TAIL_SCALES]
    return UNMOVED + (1 - UNMOVED) * _rising(np.diff(np.array(moved), axis=1) / p, p)


def confidence_ratios(p_ref: ArrayLike, *, two_sided: bool = False) -> Array:
    """(7, 100) alternatives for confidence bins of .01: tilted down, or contaminated with unsure predictions.

    The ratios only fall, so a surer canary is no evidence (see log_e).
    two_sided  (14, 100): tilted up and contaminated with sure ones too. Only for a variant of the stable version:
               between different weights a rise is no harm, and a better model must not be rolled back.
    """
    p = _shares(np.asarray(p_ref, dtype=float))
    middle = 0.5 * (CONFIDENCE_EDGES[:-1] + CONFIDENCE_EDGES[1:])
    mean = float(p @ middle)
    spread = max(math.sqrt(float(p @ (middle - mean) ** 2)), float(CONFIDENCE_EDGES[1]))
    z = (middle - mean) / spread
    backwards = slice(None, None, -1)
    down = _confidence_side(p[backwards], -z[backwards], (middle < UNSURE_BELOW)[backwards])[:, backwards]
    if not two_sided:
        return down
    return np.concatenate([down, _confidence_side(p, z, middle > SURE_FROM)])


def plug_in_ratio(past_canary: ArrayLike, p_ref: ArrayLike) -> Array:
    """(K,) the canary's own past counts (K,), shrunken to p_ref: 1 everywhere before there are any.

    It bets on whatever the canary does, better or worse: only where either is a failure.
    """
    p = _shares(np.asarray(p_ref, dtype=float))
    seen = np.asarray(past_canary, dtype=float)
    return np.asarray((seen / p + PLUG_IN_REQUESTS) / (seen.sum() + PLUG_IN_REQUESTS))


def log_mixture(templates: ArrayLike, thresholds: ArrayLike, plug_in: ArrayLike) -> float:
    """Log of the design's mixture of log e-values summed over intervals: (m,) templates, (k,) of form H, plug-in.

    A kind without alternatives leaves its share to the others.
    """
    kinds = [np.ravel(np.asarray(kind, dtype=float)) for kind in (templates, thresholds, plug_in)]
    shares = (TEMPLATE_SHARE, THRESHOLD_SHARE, PLUG_IN_SHARE)
    present = [(share, kind) for share, kind in zip(shares, kinds, strict=True) if kind.size]
    if not present:
        return 0.0
    whole = sum(share for share, _ in present)
    parts = [math.log(share / whole / kind.size) + np.logaddexp.reduce(kind) for share, kind in present]
    return float(np.logaddexp.reduce(parts))


def _shares(counts: Array) -> Array:
    """Positive shares that sum to 1 over the last axis, but for the floor."""
    shares = counts / counts.sum(axis=-1, keepdims=True)
    return np.asarray(np.clip(shares, _SHARE_FLOOR, 1 - _SHARE_FLOOR))


def _slower(below: Array, scale: float) -> Array:
    """(97,) cumulative shares at the bin edges after all latencies grew by `scale`; the last bin keeps the rest.

    Bins are evenly spaced in log latency, so growing is a shift; within a bin the shares are spread evenly.
    """
    log_edges = np.log(LATENCY_EDGES_SECONDS)
    moved = np.interp(log_edges - math.log1p(scale), log_edges, below)
    moved[-1] = below[-1]
    return np.asarray(moved)


def _confidence_side(p: Array, z: Array, chosen: NDArray[np.bool_]) -> Array:
    """(7, 100) ratios rising with z over the bins: tilts, and contaminations spread evenly over the chosen bins."""
    tilts = np.exp(np.array(TILTS)[:, None] * z)
    even = chosen / chosen.sum()
    share = np.array(CONTAMINATIONS)[:, None]
    return np.concatenate([tilts, _rising(1 - share + share * even / p, p)])


def _rising(ratios: Array, p: Array) -> Array:
    """(m, K) the isotonic regression, weighted by p (K,), of each of the ratios (m, K); Σ p·ratio stays.

    Neighbours that fall are pooled to their mean; plain floats, as numpy would need K² means.
    """
    weights = p.tolist()
    rising = np.empty_like(ratios)
    for row, values in enumerate(ratios.tolist()):
        pools: list[tuple[float, float, int]] = []  # (mean, weight, bins)
        for mean, weight in zip(values, weights, strict=True):
            pool = (mean, weight, 1)
            while pools and pools[-1][0] >= pool[0]:
                before, whole = pools.pop(), pool
                share = before[1] / (before[1] + whole[1])
                mixed = share * before[0] + (1 - share) * whole[0]
                pool = (mixed, before[1] + whole[1], before[2] + whole[2])
            pools.append(pool)
        rising[row] = np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools])
    return rising
