"""Labels sampled with known probability: how much do they speak for "the canary is wrong more often"?"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.gates.base import Labelled, LabelledStratum
from rollout.judge.counts import EvidenceError, check_events
from rollout.judge.half_plane import HARM

_CLIP = 0.999  # share of the bound on a stake at which a factor would turn negative
_WEIGHT_SLACK = 1 + 1e-9  # a weight is 1/probability in floating point

Array = NDArray[np.float64]


def log_e(
    stratum: LabelledStratum,
    *,
    side: float,
    stake: ArrayLike,
    centre: float,
    theta0: float,
    delta: float,
    max_weight: float,
) -> Array:
    """Log e-value of one stratum's labels against H0: wrong_c ≤ θ0·wrong_b + δ, or ≥.

    stratum     both arms' matured requests, each in exactly one stratum of one interval, labelled or not
    side        half_plane.HARM (H0: ≤) or NON_INFERIORITY (H0: ≥); θ0 > 0, δ ≥ 0
    stake       (k,) u ≥ 0, chosen without these labels (see stake); clipped so that all factors stay positive
    centre      μ in [0, 1], stable's expected share of wrong answers, from past labels
    max_weight  1/least inclusion probability, known before: bounding u by the weights that were *seen* would
                let the labels choose their own stake. A label with a greater weight is refused.
    Returns (k,): add up over strata and intervals per alternative, mix last; an arm without requests gives 0.
    Raises EvidenceError.

    A drawn request whose label never came counts as right. Where that is as likely in both arms, E e ≤ 1 still holds
    for harm, but not for non-inferiority (centred_labels then).

    A request scores Y = w where labelled (with probability 1/w) and wrong, else 0, so E Y = its arm's share
    of wrong answers. Canary's factor 1 + s·u·(Y − μ_c), μ_c = θ0·μ + δ; stable's 1 − s·v·(Y − μ),
    v = u·θ0·n_c/n_b; s = ±1 the side. As 1 + x ≤ exp(x), E e ≤ exp(s·u·n_c·(wrong_c − μ_c) − s·v·n_b·(wrong_b − μ))
    = exp(s·u·n_c·(wrong_c − θ0·wrong_b − δ)) ≤ 1 on the null. Waudby-Smith & Ramdas (JRSS-B 2024).
    """
    if not (math.isfinite(max_weight) and max_weight >= 1):
        raise EvidenceError(f"{stratum.stratum}: {max_weight} is not a greatest weight")
    greatest = max_weight * _WEIGHT_SLACK
    arms = (("canary", stratum.canary), ("stable", stratum.stable))
    (w_c, x_c), (w_b, x_b) = (_checked(f"{stratum.stratum}: {name}", arm, greatest) for name, arm in arms)
    stakes = np.asarray(stake, dtype=float)
    n_c, n_b = stratum.canary.n, stratum.stable.n
    if n_c == 0 or n_b == 0:
        return np.zeros(stakes.shape)
    k = theta0 * n_c / n_b
    centre_c = theta0 * centre + delta
    u = side * np.clip(stakes, 0.0, _bound(side, k, centre_c, centre, greatest))[..., None]
    v = u * k
    return np.asarray(
        np.log1p(u * (w_c - centre_c)) @ x_c
        + (n_c - x_c.sum()) * np.log1p(-u * centre_c)[..., 0]
        + np.log1p(-v * (w_b - centre)) @ x_b
        + (n_b - x_b.sum()) * np.log1p(v * centre)[..., 0]
    )


def stake(
    *,
    excess: ArrayLike,
    wrong_c: ArrayLike,
    wrong_b: float,
    mean_weight: float,
    n_c: float,
    n_b: float,
    theta0: float = 1.0,
) -> Array:
    """(k,) u for alternatives: the growth-optimal bet to second order, (mean score)/(its variance).

    excess       (k,) > 0: how far beyond the boundary the alternative lies, |wrong_c − θ0·wrong_b − δ|
    wrong_c, wrong_b  the arms' expected shares of wrong answers; mean_weight  of a wrong label, from the past
    n_c, n_b     matured requests: how many there are may steer the stake, what their labels say may not
    """
    rates = np.asarray(wrong_c, dtype=float)
    variance_c = mean_weight * rates - rates**2
    variance_b = mean_weight * wrong_b - wrong_b**2
    variance = variance_c + theta0**2 * (n_c / n_b if n_b else 0.0) * variance_b
    return np.asarray(np.asarray(excess, dtype=float) / np.maximum(variance, 1e-9))


def _checked(arm_name: str, arm: Labelled, greatest: float) -> tuple[Array, Array]:
    """(classes,) weights and wrong labels of an arm, fit to be evidence."""
    for weight, wrong in arm.classes:
        if not 1 / _WEIGHT_SLACK <= weight <= greatest:
            raise EvidenceError(f"{arm_name}: a label of weight {weight}, not 1 to {greatest:g}")
        check_events(arm_name, wrong, arm.n)
    check_events(arm_name, sum(wrong for _, wrong in arm.classes), arm.n)
    weights = np.array([weight for weight, _ in arm.classes], dtype=float)
    return weights, np.array([wrong for _, wrong in arm.classes], dtype=float)


def _bound(side: float, k: float, centre_c: float, centre: float, greatest: float) -> float:
    """The u up to which all factors stay positive, for labels of any weight up to the greatest.

    Harm: 1 − u·μ_c and 1 − v·(w − μ) > 0; non-inferiority: 1 − u·(w − μ_c) and 1 − v·μ > 0; v = k·u. The
    design's max(u, v) < 1/max w implies it, and is up to that factor more timid on the canary's side.
    """
    if side == HARM:
        most = max(centre_c, k * (greatest - centre))
    else:
        most = max(greatest - centre_c, k * centre)
    return _CLIP / most if most > 0 else math.inf
