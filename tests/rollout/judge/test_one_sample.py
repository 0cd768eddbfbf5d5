from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.judge import EvidenceError
from rollout.judge.one_sample import log_e

RATES = np.array([0.0005, 0.002, 0.01, 0.1, 0.5, 0.97])


def _mean(n, rate, line, harm):
    """E e, exactly."""
    return sum(
        math.comb(n, x)
        * rate**x
        * (1 - rate) ** (n - x)
        * np.exp(log_e(n=n, x=x, line=line, alternatives=RATES, harm=harm))
        for x in range(n + 1)
    )


@pytest.mark.parametrize("line", [0.001, 0.02, 0.3])
@pytest.mark.parametrize("n", [1, 5, 40])
def test_expectation_is_at_most_one_on_the_whole_null(n, line):
    for rate in (0.0, line / 2, line):
        assert np.all(_mean(n, rate, line, harm=True) <= 1 + 1e-9)
    for rate in (line, (1 + line) / 2, 1.0):
        assert np.all(_mean(n, rate, line, harm=False) <= 1 + 1e-9)


def test_it_is_exactly_one_on_the_line():
    assert _mean(25, 0.02, 0.02, harm=True) == pytest.approx(1)


def test_an_alternative_within_the_null_says_nothing():
    found = log_e(n=100, x=90, line=0.3, alternatives=RATES, harm=True)
    assert not found[RATES <= 0.3].any()
    assert (found[RATES > 0.3] > 0).all()


def test_three_thousand_pairs_without_a_difference_show_one_in_a_thousand():
    nearly_never = log_e(n=3_000, x=0, line=0.001, alternatives=[1e-6], harm=False)
    assert nearly_never >= math.log(20) - 0.01


def test_no_trial_is_no_evidence():
    assert not log_e(n=0, x=0, line=0.1, alternatives=RATES, harm=True).any()


@pytest.mark.parametrize(
    ("n", "x", "line"), [(1, 2, 0.1), (1, -1, 0.1), (math.nan, 0, 0.1), (5, 1, 0.0), (5, 1, 1.0)]
)
def test_what_cannot_be_is_refused(n, x, line):
    with pytest.raises(EvidenceError):
        log_e(n=n, x=x, line=line, alternatives=RATES, harm=True)
