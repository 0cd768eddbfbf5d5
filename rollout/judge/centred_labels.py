"""Labels sampled with known probability: how much do they speak for "the loss is smaller than the margin"?

weighted_labels counts a request without a label as right. Against a rollback that is cautious; for a promotion it
would make silence speak for the canary. Here a request without a label says nothing, in either arm.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.gates.base import Labelled, LabelledStratum
from rollout.judge.counts import EvidenceError, check_events

_CLIP = 0.999  # share of the bound on a stake at which a factor would turn negative
_WEIGHT_SLACK = 1 + 1e-9  # a weight is 1/probability in floating point

Array = NDArray[np.float64]


def non_inferiority_log_e(
    stratum: LabelledStratum, *, stake: ArrayLike, centre: float, margin: float, max_weight: float
) -> Array:
    """Log e-value of one stratum's labels against H0: wrong_c ≥ wrong_b + margin.

    stratum     both arms' matured requests, each in exactly one stratum of one interval
    stake       (k,) u ≥ 0, chosen without these labels; clipped so that all factors stay positive
    centre      μ in [0, 1], stable's expected share of wrong answers, from past labels
    margin      a share (.01 is one point);  max_weight  1/least inclusion probability, known before
    Returns (k,): add up over strata and intervals per alternative, mix last; an arm without requests gives 0.
    Raises EvidenceError.

    A labelled request scores Z = w·(wrong − centre of its arm), any other 0. A request is labelled with probability
    ρ/w: drawn (1/w) and answered by the time it matures (ρ, the same in both arms and whatever the answer says; it
    need not be known). So E Z = ρ·(its arm's share of wrong answers − centre). Canary's factor is 1 − u·Z, centre
    μ + margin; stable's 1 + v·Z, centre μ, v = u·n_c/n_b. As 1 + x ≤ exp(x),
    E e ≤ exp(−ρ·u·n_c·(wrong_c − μ − margin) + ρ·v·n_b·(wrong_b − μ)) = exp(−ρ·u·n_c·(wrong_c − wrong_b − margin)) ≤ 1
    on the null. Waudby-Smith & Ramdas (JRSS-B 2024); Horvitz & Thompson (1952).
    """
    if not (math.isfinite(max_weight) and max_weight >= 1):
        raise EvidenceError(f"{stratum.stratum}: {max_weight} is not a greatest weight")
    greatest = max_weight * _WEIGHT_SLACK
    w_c, wrong_c, right_c = _checked(f"{stratum.stratum}: canary", stratum.canary, greatest)
    w_b, wrong_b, right_b = _checked(f"{stratum.stratum}: stable", stratum.stable, greatest)
    stakes = np.asarray(stake, dtype=float)
    n_c, n_b = stratum.canary.n, stratum.stable.n
    if n_c == 0 or n_b == 0:
        return np.zeros(stakes.shape)
    k = n_c / n_b
    centre_c = centre + margin
    most = greatest * max(1 - centre_c, k * centre)  # the lowest factors: the canary wrong, stable right
    u = np.clip(stakes, 0.0, _CLIP / most if most > 0 else math.inf)[..., None]
    return np.asarray(
        np.log1p(-u * w_c * (1 - centre_c)) @ wrong_c
        + np.log1p(u * w_c * centre_c) @ right_c
        + np.log1p(u * k * w_b * (1 - centre)) @ wrong_b
        + np.log1p(-u * k * w_b * centre) @ right_b
    )


def _checked(arm_name: str, arm: Labelled, greatest: float) -> tuple[Array, Array, Array]:
    """(classes,) weights, wrong and right labels of an arm, fit to be evidence."""
    wrong = dict(arm.classes)
    labelled = dict(arm.labelled)
    if len(wrong) < len(arm.classes) or not wrong.keys() <= labelled.keys():
        raise EvidenceError(f"{arm_name}: wrong labels of weights that were not labelled")
    for weight, n in labelled.items():
        if not 1 / _WEIGHT_SLACK <= weight <= greatest:
            raise EvidenceError(f"{arm_name}: a label of weight {weight}, not 1 to {greatest:g}")
        check_events(arm_name, wrong.get(weight, 0), n)
    check_events(arm_name, sum(labelled.values()), arm.n)
    weights = np.array(list(labelled), dtype=float)
    x = np.array([wrong.get(weight, 0) for weight in labelled], dtype=float)
    return weights, x, np.array(list(labelled.values()), dtype=float) - x
