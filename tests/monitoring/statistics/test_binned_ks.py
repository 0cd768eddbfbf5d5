from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from monitoring.statistics import binning
from monitoring.statistics.binned_ks import binned_ks, p_value

SAMPLES = {
    "no difference": lambda r, n: r.normal(size=n),
    "tiny shift": lambda r, n: r.normal(size=n) + 0.02,
    "shift": lambda r, n: r.normal(size=n) + 0.5,
    "scale": lambda r, n: 2 * r.normal(size=n),
    "all beyond the range": lambda r, n: r.normal(size=n) + 50,
    "one value": lambda r, n: np.zeros(n),
}
REFERENCES = {
    "continuous": lambda r: r.normal(size=3000),
    "tied": lambda r: r.normal(size=3000).round(1),
    "atom": lambda r: np.maximum(r.normal(size=3000), 0),
    "few rows": lambda r: r.normal(size=40),
    "one value": lambda r: np.full(500, 0.25),
}


def compare(reference, live):
    reference, live = reference.astype("f4"), live.astype("f4")
    edges = binning.edges(reference)
    bound = binned_ks(binning.count(reference, edges)[None], binning.count(live, edges)[None])
    return bound, stats.ks_2samp(reference, live, method="asymp")


@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("live", SAMPLES)
@pytest.mark.parametrize("n", [1, 7, 800])
def test_the_exact_distance_and_its_p_value_lie_between_the_bounds(reference, live, n):
    rng = np.random.default_rng(n)
    before = REFERENCES[reference](rng)
    bound, exact = compare(before, SAMPLES[live](rng, n))
    assert bound.lower[0] <= exact.statistic + 1e-12
    assert exact.statistic <= bound.upper[0] + 1e-12
    lowest = p_value(bound.upper, bound.n, bound.reference_n)[0]
    assert lowest - 1e-9 <= exact.pvalue <= bound.p[0] + 1e-9


def test_without_ties_the_bounds_are_one_bin_of_the_reference_apart():
    rng = np.random.default_rng(1)
    reference, live = rng.normal(size=5000), rng.normal(size=2000) + 0.1
    bound, exact = compare(reference, live)
    assert bound.upper[0] - bound.lower[0] <= 20 / 5000 + 1e-12
    assert exact.statistic - bound.lower[0] < 0.004


@pytest.mark.parametrize("reference", REFERENCES)
def test_the_bounds_are_never_further_apart_than_the_heaviest_reference_bin(reference):
    rng = np.random.default_rng(2)
    before = REFERENCES[reference](rng).astype("f4")
    mass = binning.count(before, binning.edges(before)).max() / len(before)
    for live in SAMPLES.values():
        bound, _ = compare(before, live(rng, 300))
        assert bound.upper[0] - bound.lower[0] <= mass + 1e-12


def test_merged_counts_give_what_all_rows_together_give():
    rng = np.random.default_rng(3)
    reference = rng.normal(size=4000).astype("f4")
    parts = [rng.normal(size=size).astype("f4") + 0.1 for size in (1, 10, 333)]
    edges = binning.edges(reference)
    merged = sum(binning.count(part, edges) for part in parts)
    assert np.array_equal(merged, binning.count(np.concatenate(parts), edges))


def test_the_p_value_is_uniform_when_nothing_changed():
    rng = np.random.default_rng(4)
    reference = rng.normal(size=200_000).astype("f4")
    edges = binning.edges(reference)
    counts = np.stack([binning.count(rng.normal(size=500).astype("f4"), edges) for _ in range(2000)])
    same = np.tile(binning.count(reference, edges), (2000, 1))
    share = (binned_ks(same, counts).p < 0.05).mean()
    assert share < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 2000)
    assert share > 0.02  # conservative by the bins, not useless


@pytest.mark.parametrize("rows", [4100, 20_000, 200_000])
def test_large_samples_have_scipys_p_value_too(rows):
    sizes = np.full(8, 2 * rows)  # an effective size of `rows`
    distance = np.linspace(0.1, 5, 8) / np.sqrt(rows)
    exact = stats.kstwo.sf(distance, rows)
    found = p_value(distance, sizes, sizes)
    assert np.abs(found - exact).max() < 1e-5
    likely = exact > 1e-6
    assert np.allclose(found[likely], exact[likely], rtol=0.006)


def test_q_controls_the_false_discoveries_of_all_rows():
    p = binned_ks(np.full((3, 4), 25), np.array([[25] * 4, [40, 20, 20, 20], [97, 1, 1, 1]]))
    assert np.allclose(p.q, stats.false_discovery_control(p.p))
    assert p.q[2] < 1e-6 < p.q[1]


def test_an_empty_window_says_nothing():
    bound = binned_ks(np.full((2, 4), 5), np.zeros((2, 4), int))
    assert bound.lower.tolist() == [0, 0]
    assert bound.upper.tolist() == bound.p.tolist() == bound.q.tolist() == [1, 1]


def test_counts_in_other_bins_and_empty_references_are_refused():
    with pytest.raises(ValueError, match="same bins"):
        binned_ks(np.ones((2, 4), int), np.ones((2, 5), int))
    with pytest.raises(ValueError, match="no counts"):
        binned_ks(np.zeros((1, 4), int), np.ones((1, 4), int))
