"""A promotion by sampled labels: E e ≤ 1 whatever is drawn and answered, and silence never speaks for the canary."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.gates.base import Labelled, LabelledStratum
from rollout.judge import EvidenceError
from rollout.judge.centred_labels import non_inferiority_log_e
from tests.rollout.judge.enumeration import outcomes

STAKES = np.array([0.01, 0.1, 1.0, 1e6])
CLASSES = (0.7, 0.3)  # shares of two confidence strata among the requests
DRAWN = (0.2, 0.8)  # with these probabilities


def _arm(n, wrong, answered):
    """(Labelled, probability) of every outcome of n requests; wrong: shares per class."""
    shares = [
        share
        for of_class, drawn, rate in zip(CLASSES, DRAWN, wrong, strict=True)
        for share in (of_class * drawn * answered * rate, of_class * drawn * answered * (1 - rate))
    ]
    for (x0, r0, x1, r1, _), probability in outcomes(n, (*shares, 1 - sum(shares))):
        if probability:
            weights = [1 / drawn for drawn in DRAWN]
            yield (
                Labelled(
                    n,
                    tuple(zip(weights, (x0, x1), strict=True)),
                    tuple(zip(weights, (x0 + r0, x1 + r1), strict=True)),
                ),
                probability,
            )


def _mean(canary, stable, margin, *, answered=1.0, centre=0.1):
    """E e, exactly."""
    return sum(
        p
        * q
        * np.exp(
            non_inferiority_log_e(
                LabelledStratum("s", one, other), stake=STAKES, centre=centre, margin=margin, max_weight=5
            )
        )
        for one, p in _arm(2, canary, answered)
        for other, q in _arm(3, stable, answered)
    )


@pytest.mark.parametrize("answered", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("centre", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("stable", [(0.0, 0.0), (0.05, 0.3), (0.5, 0.9)])
def test_expectation_is_at_most_one_on_the_null_however_many_are_answered(stable, centre, answered):
    for margin in (0.01, 0.1):
        at_the_line = tuple(rate + margin for rate in stable)
        worse = tuple((1 + rate) / 2 for rate in at_the_line)
        for canary in (at_the_line, worse):
            assert np.all(_mean(canary, stable, margin, answered=answered, centre=centre) <= 1 + 1e-9)


def test_the_loss_that_counts_is_that_of_all_requests_not_of_each_class():
    """Here the canary is better where few are drawn, and worse where many are."""
    stable, canary = (0.2, 0.3), (0.1, 0.3 + 0.7 / 3 + 0.1 / 0.3)
    assert np.dot(CLASSES, canary) == pytest.approx(np.dot(CLASSES, stable) + 0.1)
    assert np.all(_mean(canary, stable, 0.1) <= 1 + 1e-9)


def test_an_equal_canary_gains():
    assert _mean((0.05, 0.1), (0.05, 0.1), 0.2)[1] > 1


def test_requests_without_a_label_say_nothing():
    silent = LabelledStratum("s", Labelled(100_000), Labelled(1_000_000))
    assert not non_inferiority_log_e(silent, stake=STAKES, centre=0.1, margin=0.05, max_weight=100).any()


@pytest.mark.parametrize(
    "canary",
    [
        Labelled(10, ((2.0, 3),), ((2.0, 2),)),  # more wrong than labelled
        Labelled(10, ((2.0, 3),), ((2.0, 11),)),  # more labelled than requests
        Labelled(10, ((2.0, 1),), ((3.0, 1),)),  # wrong, but of no labelled weight
        Labelled(10, (), ((101.0, 1),)),  # a weight that nobody knew of
        Labelled(10, (), ((0.5, 1),)),
        Labelled(10, (), ((math.nan, 1),)),
    ],
)
def test_labels_that_cannot_be_are_refused(canary):
    stratum = LabelledStratum("s", canary, Labelled(10))
    with pytest.raises(EvidenceError):
        non_inferiority_log_e(stratum, stake=STAKES, centre=0.1, margin=0.05, max_weight=100)
