from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics import binning
from monitoring.statistics.natural_variation import ENOUGH_HOURS, ENOUGH_ROWS, natural_variation


def hours_of(shifts, n=2000, seed=0):
    """Counts of a reference of 50,000 normal rows, and of hours whose mean is moved by `shifts`."""
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=50_000).astype("f4")
    edges = binning.edges(reference)
    hours = [binning.count(rng.normal(shift, size=n).astype("f4"), edges)[None] for shift in shifts]
    return binning.count(reference, edges)[None], np.stack(hours)


@pytest.mark.parametrize("sd", [0.05, 0.2])
def test_it_finds_how_far_the_hours_means_spread(sd):
    shifts = np.random.default_rng(1).normal(0, sd, 400)
    mean, _ = natural_variation(*hours_of(shifts))
    assert mean == pytest.approx(shifts.std(), rel=0.15)


def test_hours_that_differ_by_chance_alone_have_next_to_none():
    assert (natural_variation(*hours_of(np.zeros(400), n=500)) < 0.02).all()  # chance itself: .045


def test_of_a_few_hours_or_small_ones_nothing_is_said():
    assert np.isnan(natural_variation(*hours_of(np.zeros(ENOUGH_HOURS - 1)))).all()
    assert np.isnan(natural_variation(*hours_of(np.zeros(50), n=ENOUGH_ROWS - 1))).all()
    reference, _ = hours_of([0])
    assert np.isnan(natural_variation(reference, np.empty((0, *reference.shape), int))).all()
