from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics import binning


def masses(values):
    values = np.asarray(values, "f4")
    edges = binning.edges(values)
    assert edges.shape == (binning.BINS - 1,)
    assert edges.dtype == np.float32
    assert np.isfinite(edges).all()
    assert (np.diff(edges) >= 0).all()
    counts = binning.count(values, edges)
    assert counts.shape == (binning.BINS,)
    assert counts.sum() == len(values)
    return counts, edges


@pytest.mark.parametrize("n", [256, 1000, 2560, 100_000])
def test_bins_of_continuous_values_hold_about_equal_shares(n):
    counts, _ = masses(np.random.default_rng(n).normal(size=n))
    assert counts.max() <= np.ceil(n / 256) + 1


def test_an_atom_has_a_bin_of_its_own():
    values = np.random.default_rng(1).normal(size=10_000)
    values[values < 0] = 0
    counts, edges = masses(values)
    zeros = (values.astype("f4") == 0).sum()
    place = np.searchsorted(edges, np.float32(0), side="right")
    assert counts[place] == zeros
    assert np.delete(counts, place).max() <= 0.005 * len(values)


def test_an_atom_at_the_largest_value_has_a_bin_of_its_own():
    values = np.minimum(np.random.default_rng(2).random(10_000) * 1.5, 1)
    counts, _ = masses(values)
    assert (counts == (values == 1).sum()).any()


def test_few_distinct_values_have_one_bin_each():
    counts, _ = masses(np.repeat(np.arange(100), np.arange(1, 101)))
    assert sorted(counts[counts > 0]) == list(range(1, 101))


def test_one_single_value_is_one_bin():
    counts, _ = masses(np.full(500, 3.5))
    assert sorted(counts)[-2:] == [0, 500]


def test_many_atoms_leave_room_for_the_rest():
    rng = np.random.default_rng(3)
    counts, _ = masses(np.concatenate([np.repeat(rng.normal(size=150), 100), rng.normal(size=15_000)]))
    assert counts.max() <= 0.02 * 30_000


def test_extreme_float32_values_keep_the_edges_finite():
    largest = np.finfo(np.float32).max
    masses(np.array([-largest, largest] * 50 + [0.0]))


def test_values_never_seen_before_fall_into_the_outer_bins():
    _, edges = masses(np.random.default_rng(4).normal(size=1000))
    counts = binning.count(np.array([-99, 99], "f4"), edges)
    assert counts[0] == 1
    assert counts[-1] == 1
