"""Form P: how much does one interval speak for "rare events are more frequent in the canary"?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Rate ratios of the alternatives (design: judge.md, form P).
RHOS = np.array([1.3, 1.7, 2.2, 3.0, 5.0, 10.0, 30.0, 100.0, 1e3, 3e4])


def log_e(
    *,
    n_c: float,
    x_c: float,
    n_b: float,
    x_b: float,
    rho: ArrayLike = RHOS,
    theta0: float = 1.0,
    delta: float = 0.0,
) -> NDArray[np.float64]:
    """Log e-value of one interval against H0: p_c ≤ θ0·p_b + δ, with p_b unknown and free to change.

    n_c, n_b  requests of canary and stable; x_c, x_b  events among them (x ≤ n, checked by the caller)
    rho       (k,) > 1, the alternatives' rate ratios; theta0 ≥ 0 and delta ≥ 0 describe the null
    Returns (k,). Add up over intervals per alternative and mix last; an arm without requests gives 0.

    E e ≤ 1 on the whole null since n_b·(1 − 1/A) = n_c·θ0·(r − 1): the conditional-binomial ("safe
    log-rank") form, ter Schure et al.
    """
    ratios = np.asarray(rho, dtype=float)
    if n_c == 0 or n_b == 0:
        return np.zeros(ratios.shape)
    q = n_c * theta0 / (n_c * theta0 + n_b)
    a = 1 - q + q * ratios
    r = ratios / a
    return np.asarray(x_c * np.log(r) - x_b * np.log(a) - n_c * delta * (r - 1))
