"""Form H: how much does one interval speak for "the canary's rate lies beyond a line"?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

HARM = 1.0  # H0: p_c ≤ θ0·p_b + δ; evidence that the canary is worse
NON_INFERIORITY = -1.0  # H0: p_c ≥ θ0·p_b + δ; evidence that it is not

_RATE_FLOOR = 1e-6  # rates are kept within [1e-6, 1 − 1e-6]
_CLIP = 0.999  # share of the bound on u at which a factor would turn negative
_HALVINGS = 36  # of the bracket: below 1e-10 of a rate

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
    given = (np.asarray(value, dtype=float) for value in (side, x_c, x_b, p_c1, p_b1, theta0, delta))
    sign, events_c, events_b, rate_c, rate_b, slope, lift = np.broadcast_arrays(*given)
    if n_c == 0 or n_b == 0:
        return np.zeros(sign.shape)
    rate_c = np.clip(rate_c, _RATE_FLOOR, 1 - _RATE_FLOOR)
    rate_b = np.clip(rate_b, _RATE_FLOOR, 1 - _RATE_FLOOR)
    k = slope * (n_c / n_b)
    p_b0 = _project(k, rate_c, rate_b, slope, lift)
    p_c0 = slope * p_b0 + lift
    u = _stake(sign, k, rate_c, p_c0, p_b0)
    v = u * k
    return np.asarray(
        events_c * np.log1p(u * (1 - p_c0))
        + (n_c - events_c) * np.log1p(-u * p_c0)
        + events_b * np.log1p(-v * (1 - p_b0))
        + (n_b - events_b) * np.log1p(v * p_b0)
    )


def _project(k: Array, p_c1: Array, p_b1: Array, theta0: Array, delta: Array) -> Array:
    """Stable's rate at the boundary point nearest to the alternative in Kullback–Leibler divergence.

    The divergence is convex along the boundary, so its derivative changes sign once, between stable's own
    rate and the rate whose boundary point has the canary's. Times p_c0·q_c0·p_b0·q_b0 > 0 it is the cubic
    k·(p_c0 − p_c1)·p_b0·q_b0 + (p_b0 − p_b1)·p_c0·q_c0 in p_b0 (k = θ0·n_c/n_b), solved by bisection.
    """
    gap = delta - p_c1
    flat = 1 - 2 * delta
    cubic = -k * theta0 - theta0 * theta0
    square = k * (theta0 - gap) + theta0 * (flat + p_b1 * theta0)
    linear = k * gap + delta * (1 - delta) - p_b1 * theta0 * flat
    constant = -p_b1 * delta * (1 - delta)
    # Both p_b0 and p_c0 stay inside (0, 1).
    lowest = np.maximum(0.0, -delta / theta0) + 1e-9
    highest = np.minimum(1.0, (1 - delta) / theta0) - 1e-9
    at_canary = (p_c1 - delta) / theta0
    low = np.clip(np.minimum(p_b1, at_canary), lowest, highest)
    width = np.clip(np.maximum(p_b1, at_canary), lowest, highest) - low
    for _ in range(_HALVINGS):
        width = 0.5 * width
        middle = low + width
        slope = ((cubic * middle + square) * middle + linear) * middle + constant
        low = np.where(slope > 0, low, middle)
    return np.asarray(low + 0.5 * width)


def _stake(side: Array, k: Array, p_c1: Array, p_c0: Array, p_b0: Array) -> Array:
    """u of the growth-optimal bet, 0 on the null's side, clipped so that all four factors stay positive."""
    size = np.maximum(0.0, side * (p_c1 - p_c0) / (p_c0 * (1 - p_c0)))
    harm = side > 0
    canary_bound = 1 / np.where(harm, p_c0, 1 - p_c0)
    stable_bound = 1 / (k * np.where(harm, 1 - p_b0, p_b0))
    return np.asarray(side * np.minimum(size, _CLIP * np.minimum(canary_bound, stable_bound)))
