"""How much do scores between 0 and 1 speak for "the canary's mean lies beyond a line through stable's"?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.judge.counts import EvidenceError
from rollout.judge.half_plane import HARM

_CLIP = 0.999  # share of the bound on a stake at which a factor would turn negative

Array = NDArray[np.float64]


def log_e(
    *,
    side: float,
    scores: ArrayLike,
    canary: ArrayLike,
    stable: ArrayLike,
    stake: ArrayLike,
    centre: float,
    theta0: float,
    delta: float,
) -> Array:
    """Log e-value of one interval against H0: mean_c ≤ θ0·mean_b + δ, or ≥.

    side     half_plane.HARM (H0: ≤) or NON_INFERIORITY (H0: ≥); θ0 > 0, δ ≥ 0
    scores   (bins,) in [0, 1]; canary, stable  (bins,) how many requests of either arm have each score
    stake    (k,) ≥ 0, known before the interval; clipped so that every factor stays positive
    centre   μ in [0, 1], stable's expected mean, from the past
    Returns (k,): add up over intervals per alternative, mix last; an arm without requests gives 0.

    Canary's factor is 1 + s·u·(X − θ0·μ − δ), stable's 1 − s·v·(X − μ), v = u·θ0·n_c/n_b, s = ±1 the side. As
    1 + x ≤ exp(x), E e ≤ exp(s·u·n_c·(mean_c − θ0·mean_b − δ)) ≤ 1 on the null, however the scores are distributed.
    Waudby-Smith & Ramdas (JRSS-B 2024).
    """
    values, x_c, x_b = (np.asarray(given, dtype=float) for given in (scores, canary, stable))
    if not (values.shape == x_c.shape == x_b.shape and ((values >= 0) & (values <= 1)).all()):
        raise EvidenceError("scores between 0 and 1 are needed, and both arms' counts of each")
    stakes = np.asarray(stake, dtype=float)
    n_c, n_b = x_c.sum(), x_b.sum()
    if n_c == 0 or n_b == 0:
        return np.zeros(stakes.shape)
    k = theta0 * n_c / n_b
    centre_c = theta0 * centre + delta
    if side == HARM:  # the lowest factors: the canary's at score 0, stable's at 1
        most = max(centre_c, k * (1 - centre))
    else:  # the canary's at 1, stable's at 0
        most = max(1 - centre_c, k * centre)
    u = side * np.clip(stakes, 0.0, _CLIP / most if most > 0 else np.inf)[..., None]
    return np.asarray(np.log1p(u * (values - centre_c)) @ x_c + np.log1p(-u * k * (values - centre)) @ x_b)
