from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.judge import EvidenceError, mixture


def test_the_running_mass_is_the_sum_over_start_times_of_suffix_sums():
    rng = np.random.default_rng(1)
    steps = rng.normal(size=(40, 3))
    times = 50.0 + 37.0 * np.arange(40)
    process = mixture.fresh(3)
    for log_e, at in zip(steps, times, strict=True):
        process = mixture.absorb(process, log_e, at)

    epochs = np.floor((times - times[0]) / 300).astype(int)
    begun = {0: 0.75, **{i: 0.25 / (i * (i + 1)) for i in range(1, epochs[-1] + 1)}}
    suffixes = sum(share * np.exp(steps[epochs >= i].sum(axis=0)) for i, share in begun.items())
    whole = suffixes.mean() + 1 - sum(begun.values())
    assert mixture.log_e(process) == pytest.approx(math.log(whole))


def test_gaps_of_many_epochs_begin_every_start_between():
    process = mixture.absorb(mixture.fresh(1), np.zeros(1), 0.0)
    process = mixture.absorb(process, np.zeros(1), 86_400.0)
    assert mixture.log_e(process) == pytest.approx(0.0)


def test_alternatives_are_mixed_last():
    process = mixture.fresh(2)
    for at in range(10):
        process = mixture.absorb(process, np.array([1.0, -1.0]), float(at))
    assert mixture.log_e(process) > 10 - math.log(2) + math.log(0.75) - 0.01


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad):
    with pytest.raises(EvidenceError, match="not finite"):
        mixture.absorb(mixture.fresh(1), np.array([bad]), 0.0)
