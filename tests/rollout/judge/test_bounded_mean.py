from __future__ import annotations

import numpy as np
import pytest

from rollout.judge import EvidenceError
from rollout.judge.bounded_mean import log_e
from rollout.judge.half_plane import HARM, NON_INFERIORITY
from tests.rollout.judge.enumeration import outcomes

SCORES = np.array([0.05, 0.4, 1.0])
STAKES = np.array([0.01, 0.3, 2.0, 1e6])


def _mean(side, canary, stable, theta0, delta, *, centre, n_c=3, n_b=4):
    """E e, exactly: every outcome of both arms; canary, stable: probabilities of the scores."""
    return sum(
        p
        * q
        * np.exp(
            log_e(
                side=side,
                scores=SCORES,
                canary=x,
                stable=y,
                stake=STAKES,
                centre=centre,
                theta0=theta0,
                delta=delta,
            )
        )
        for x, p in outcomes(n_c, canary)
        for y, q in outcomes(n_b, stable)
    )


@pytest.mark.parametrize("centre", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("stable", [(1.0, 0.0, 0.0), (0.7, 0.2, 0.1), (0.1, 0.3, 0.6)])
def test_expectation_is_at_most_one_where_the_canary_is_within_the_line(stable, centre):
    mean_b = SCORES @ np.array(stable)
    assert np.all(_mean(HARM, stable, stable, 1.0, 0.0, centre=centre) <= 1 + 1e-9)
    within = 1.25 * mean_b + 0.02
    for share in np.linspace(0, 1, 5):  # of the highest score, the rest at the lowest
        canary = (1 - share, 0.0, share)
        if SCORES @ np.array(canary) <= within:
            assert np.all(_mean(HARM, canary, stable, 1.25, 0.02, centre=centre) <= 1 + 1e-9)


@pytest.mark.parametrize("centre", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("stable", [(1.0, 0.0, 0.0), (0.7, 0.2, 0.1)])
def test_expectation_is_at_most_one_where_the_loss_is_the_margin_or_more(stable, centre):
    margin = 0.1
    for share in np.linspace(0, 1, 21):
        canary = (1 - share, 0.0, share)
        if SCORES @ np.array(canary) >= SCORES @ np.array(stable) + margin:
            assert np.all(_mean(NON_INFERIORITY, canary, stable, 1.0, margin, centre=centre) <= 1 + 1e-9)


def test_a_canary_beyond_the_line_gains():
    assert _mean(HARM, (0.1, 0.1, 0.8), (0.8, 0.1, 0.1), 1.0, 0.0, centre=0.2)[1] > 1


@pytest.mark.parametrize(("canary", "stable"), [((0, 0, 0), (1, 2, 3)), ((1, 2, 3), (0, 0, 0))])
def test_an_arm_without_requests_is_no_evidence(canary, stable):
    found = log_e(
        side=HARM,
        scores=SCORES,
        canary=canary,
        stable=stable,
        stake=STAKES,
        centre=0.3,
        theta0=1.0,
        delta=0.0,
    )
    assert not found.any()


def test_scores_beyond_0_and_1_are_refused():
    with pytest.raises(EvidenceError):
        log_e(
            side=HARM,
            scores=[0.1, 1.1],
            canary=[1, 1],
            stable=[1, 1],
            stake=STAKES,
            centre=0.3,
            theta0=1.0,
            delta=0.0,
        )
