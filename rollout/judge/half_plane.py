"""Form H: how much does one interval speak for "the canary's rate lies beyond a line"?"""

from __future__ import annotations

from math import log1p

import numpy as np
from numpy.typing import ArrayLike, NDArray

HARM = 1.0  # H0: p_c ≤ θ0·p_b + δ; evidence that the canary is worse
NON_INFERIORITY = -1.0  # H0: p_c ≥ θ0·p_b + δ; evidence that it is not

_RATE_FLOOR = 1e-6  # rates are kept within [1e-6, 1 − 1e-6]
_CLIP = 0.999  # share of the bound on u at which a factor would turn negative
_PRECISION = 1e-13  # of a rate: the last step; what is left after a Newton step is far smaller
_STEPS = 40  # enough for halvings alone

Array = NDArray[np.float64]


def log_e(
    *,
    side: ArrayLike,
    n_c: float,
    x_c: ArrayLike,
    n_b: float,
    x_b: ArrayLike,
    p_c1: ArrayLike,
    p_b1: ArrayLike,
    theta0: ArrayLike,
    delta: ArrayLike,
) -> Array:
    """Log e-value of one interval against a half-plane null, for k alternatives at once.

    side        HARM or NON_INFERIORITY
    n_c, n_b    requests of canary and stable; an arm without requests gives 0
    x_c, x_b    events; p_c1, p_b1  the alternative, known before the interval; all broadcast to (k,)
    theta0 > 0, delta  the boundary p_c = θ0·p_b + δ
    Returns (k,): add up over intervals per alternative, mix last. An alternative within the null gives 0.

    E e ≤ exp(n_c·u·(p_c − θ0·p_b − δ)) ≤ 1 for every u of the null's sign, so neither the projection
    nor the clipping can break validity. θ0 = 1, δ = 0 is Turner, Ly, Grünwald (JSPI 2024).
    """
    given = [np.asarray(value, dtype=float) for value in (side, x_c, x_b, p_c1, p_b1, theta0, delta)]
    whole = np.broadcast(*given)
    if n_c == 0 or n_b == 0:
        return np.zeros(whole.shape)
    columns = [
        value.tolist() if value.size == whole.size > 1 else [value.item()] * whole.size for value in given
    ]
    n_c, n_b = float(n_c), float(n_b)
    return np.array([_log_e(n_c, n_b, *row) for row in zip(*columns, strict=True)]).reshape(whole.shape)


def _log_e(
    n_c: float,
    n_b: float,
    side: float,
    x_c: float,
    x_b: float,
    p_c1: float,
    p_b1: float,
    theta0: float,
    delta: float,
) -> float:
    """One alternative. Plain floats: for a handful of alternatives they are several times faster than arrays."""
    p_c1, p_b1 = _between(p_c1, _RATE_FLOOR, 1 - _RATE_FLOOR), _between(p_b1, _RATE_FLOOR, 1 - _RATE_FLOOR)
    k = theta0 * n_c / n_b
    p_b0 = _project(k, p_c1, p_b1, theta0, delta)
    p_c0 = theta0 * p_b0 + delta
    u = _stake(side, k, p_c1, p_c0, p_b0)
    v = u * k
    return (
        x_c * log1p(u * (1 - p_c0))
        + (n_c - x_c) * log1p(-u * p_c0)
        + x_b * log1p(-v * (1 - p_b0))
        + (n_b - x_b) * log1p(v * p_b0)
    )


def _project(k: float, p_c1: float, p_b1: float, theta0: float, delta: float) -> float:
    """Stable's rate at the boundary point nearest to the alternative in Kullback–Leibler divergence.

    The divergence is convex along the boundary, so its derivative changes sign once, between stable's own
    rate and the rate whose boundary point has the canary's. Times p_c0·q_c0·p_b0·q_b0 > 0 it is the cubic
    k·(p_c0 − p_c1)·p_b0·q_b0 + (p_b0 − p_b1)·p_c0·q_c0 in p_b0 (k = θ0·n_c/n_b). Solved by Newton steps, which
    become halvings where they would leave the bracket, from the projection with the alternative's variances.
    """
    gap = delta - p_c1
    flat = 1 - 2 * delta
    cubic = -k * theta0 - theta0 * theta0
    square = k * (theta0 - gap) + theta0 * (flat + p_b1 * theta0)
    linear = k * gap + delta * (1 - delta) - p_b1 * theta0 * flat
    constant = -p_b1 * delta * (1 - delta)
    # Both p_b0 and p_c0 stay inside (0, 1).
    lowest, highest = max(0.0, -delta / theta0) + 1e-9, min(1.0, (1 - delta) / theta0) - 1e-9
    at_canary = -gap / theta0
    low = _between(min(p_b1, at_canary), lowest, highest)
    high = _between(max(p_b1, at_canary), lowest, highest)
    weight_c, weight_b = k * p_b1 * (1 - p_b1), p_c1 * (1 - p_c1)
    point = _between((weight_b * p_b1 - weight_c * gap) / (weight_b + weight_c * theta0), low, high)
    for _ in range(_STEPS):
        value = ((cubic * point + square) * point + linear) * point + constant
        rise = (3 * cubic * point + 2 * square) * point + linear
        if value > 0:
            high = point
        else:
            low = point
        last, point = point, point - value / rise if rise > 0 else high + 1
        if not low <= point <= high:
            point = 0.5 * (low + high)
        if abs(point - last) < _PRECISION:
            break
    return point


def _stake(side: float, k: float, p_c1: float, p_c0: float, p_b0: float) -> float:
    """u of the growth-optimal bet, 0 on the null's side, clipped so that all four factors stay positive."""
    size = max(side * (p_c1 - p_c0) / (p_c0 * (1 - p_c0)), 0.0)  # in this order a nan stays one
    harm = side > 0
    canary_bound = 1 / (p_c0 if harm else 1 - p_c0)
    stable_bound = 1 / (k * (1 - p_b0 if harm else p_b0))
    return side * min(size, _CLIP * min(canary_bound, stable_bound))


def _between(value: float, low: float, high: float) -> float:
    return min(max(value, low), high)
