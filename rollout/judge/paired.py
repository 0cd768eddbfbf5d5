"""Paired labels: how much do requests that both versions answered speak for "the canary is wrong more often"?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rollout.judge.counts import check_number
from rollout.judge.half_plane import NON_INFERIORITY

#: Shares of "only the canary wrong" among disagreements on which the alternatives bet (design: judge.md, labels).
GS = np.array([0.52, 0.55, 0.6, 0.7, 0.8, 0.9, 0.97])
#: Pairs with only stable wrong before any are known: PRIOR_ONE_SIDED in PRIOR_PAIRS.
PRIOR_ONE_SIDED, PRIOR_PAIRS = 1.0, 100.0

_CLIP = 0.999  # share of the bound on a stake at which a factor would turn negative

Array = NDArray[np.float64]


def harm_log_e(*, only_canary_wrong: float, only_stable_wrong: float, g: ArrayLike = GS) -> Array:
    """Log e-value of one interval's pairs against H0: the canary is not wrong more often. No margin.

    only_canary_wrong, only_stable_wrong  pairs of which one answer was wrong; the others say nothing
    g  (k,) in [.5, 1): the alternatives' share of the first kind among both
    Returns (k,): add up over intervals per alternative, mix last. Raises EvidenceError.

    Given a disagreement, under H0 the canary is the wrong one with π ≤ 1/2, and then
    π·2g + (1 − π)·2(1 − g) ≤ 1: the sequential McNemar test.
    """
    check_number("only canary wrong", only_canary_wrong)
    check_number("only stable wrong", only_stable_wrong)
    shares = np.asarray(g, dtype=float)
    return np.asarray(only_canary_wrong * np.log(2 * shares) + only_stable_wrong * np.log(2 * (1 - shares)))


def line_log_e(
    *,
    side: float,
    both_right: float,
    only_canary_wrong: float,
    only_stable_wrong: float,
    both_wrong: float,
    stake: ArrayLike,
    theta0: float = 1.0,
    delta: float = 0.0,
) -> Array:
    """Log e-value of one interval's pairs against wrong_c ≤ θ0·wrong_b + δ, or ≥.

    side    half_plane.HARM (H0: ≤) or NON_INFERIORITY (H0: ≥); 0 < θ0, 0 ≤ δ < 1
    stake   (k,) ≥ 0, known before the interval (see stake); clipped so that every factor stays positive
    θ0 = .999, δ = .001 is the 99.9 %-of-baseline rule. Returns (k,). Raises EvidenceError.

    A pair scores s = W_c − θ0·W_b − δ with W = 1 for wrong, so that E s = wrong_c − θ0·wrong_b − δ, and its
    factor 1 + side·stake·s has mean ≤ 1 under H0. Waudby-Smith & Ramdas (JRSS-B 2024).
    """
    pairs = np.array([both_right, only_canary_wrong, only_stable_wrong, both_wrong], dtype=float)
    for name, count in zip(
        ("both right", "only canary wrong", "only stable wrong", "both wrong"), pairs, strict=True
    ):
        check_number(name, float(count))
    scores = side * np.array([-delta, 1 - delta, -theta0 - delta, 1 - theta0 - delta])
    stakes = np.clip(np.asarray(stake, dtype=float), 0.0, _CLIP / -scores.min())
    return np.asarray(np.log1p(stakes[..., None] * scores) @ pairs)


def non_inferiority_log_e(
    *, only_canary_wrong: float, only_stable_wrong: float, rest: float, margin: float, one_sided: ArrayLike
) -> Array:
    """Log e-value of one interval's pairs against H0: the canary is wrong more often by `margin` or more.

    rest       pairs with both right or both wrong
    margin     d in (0, 1), a share (.005 is half a point)
    one_sided  (k,) or a number: c0, the expected share of pairs with only stable wrong (see expected_one_sided)
    Returns (k,) or (). Raises EvidenceError.
    """
    return line_log_e(
        side=NON_INFERIORITY,
        both_right=rest,
        only_canary_wrong=only_canary_wrong,
        only_stable_wrong=only_stable_wrong,
        both_wrong=0,
        stake=stake(margin, one_sided),
        delta=margin,
    )


def stake(excess: ArrayLike, one_sided: ArrayLike) -> Array:
    """l = d/(2·c0 + d²): what to bet on a mean score of `excess` > 0 when c0 of the pairs disagree either way.

    The mean of a score over its mean square, which maximises the expected log to second order (Kelly). For
    non-inferiority an equal canary's excess is the margin; for harm it is the loss that one wants to see.
    """
    d = np.asarray(excess, dtype=float)
    return np.asarray(d / (2 * np.asarray(one_sided, dtype=float) + d * d))


def expected_one_sided(past_disagreements: float, past_pairs: float) -> float:
    """c0: half of the share of past pairs in which exactly one was wrong, with a prior. Of past intervals only."""
    return (0.5 * past_disagreements + PRIOR_ONE_SIDED) / (past_pairs + PRIOR_PAIRS)
