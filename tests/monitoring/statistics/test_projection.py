from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from monitoring import references
from monitoring.detectors.base import Live
from monitoring.detectors.embedding_drift import measure
from monitoring.statistics import projection


def sample(n, d, seed=0, decay=1.0):
    """Rows whose variance falls from dimension to dimension; decay 0: the same in all."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.arange(1, d + 1) ** (-decay / 2) + 5).astype("f4")


def test_with_rows_enough_it_spans_the_directions_of_sklearns_pca():
    rows = sample(20_000, 20, decay=3)
    mean, components = projection.fit(rows, 5)
    wanted = PCA(5, svd_solver="full").fit(rows.astype(float))
    assert np.allclose(mean, wanted.mean_, atol=1e-5)
    assert np.allclose(np.abs(components @ wanted.components_.T), np.eye(5), atol=1e-3)


@pytest.mark.parametrize(("n", "d"), [(20_000, 20), (9000, 3), (300, 40)])
def test_rows_beyond_memory_give_the_same_directions_block_by_block(n, d):
    rows = sample(n, d, decay=3)
    mean, components = projection.fit(rows, 5)
    blockwise_mean, blockwise = projection.fit(rows, 5, memory_bytes=0)
    assert (mean == blockwise_mean).all()
    assert np.allclose(components, blockwise, atol=1e-5)


def test_the_sign_does_not_depend_on_the_order_of_rows():
    rows = sample(5000, 20, decay=3)
    _, one = projection.fit(rows, 5)
    _, other = projection.fit(rows[::-1].copy(), 5)
    assert np.allclose(one, other, atol=1e-4)
    assert (one[np.arange(5), np.abs(one).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize(("n", "d", "k"), [(500, 64, 32), (500, 8, 8), (10, 64, 9), (2, 1, 1)])
@pytest.mark.parametrize("decay", [0, 3])
def test_there_are_as_many_directions_as_rows_and_dimensions_allow(n, d, k, decay):
    mean, components = projection.fit(sample(n, d, decay=decay))
    assert (mean.shape, components.shape) == ((d,), (k, d))
    assert np.allclose(components @ components.T, np.eye(k), atol=1e-5)


@pytest.mark.parametrize(
    "rows", [np.zeros((300, 8), "f4"), np.eye(300, 8, dtype="f4"), np.full((200, 40), 7, "f2")]
)
def test_degenerate_rows_still_have_directions(rows):
    _, components = projection.fit(rows)
    assert np.allclose(components @ components.T, np.eye(len(components)), atol=1e-5)


@pytest.mark.parametrize("d", [64, 512])
@pytest.mark.parametrize("decay", [0, 1])
@pytest.mark.parametrize("n", [500, 2000])
def test_new_rows_of_the_same_kind_do_not_look_drifted(n, d, decay):
    reference = references.measure(sample(n, d, 1, decay), np.ones(n))
    live = sample(3000, d, 2, decay)
    result = measure(Live(None, None, len(live), np.zeros(100, int), reference.count(live)), reference)
    assert result["d"] < 0.2


def test_the_reference_rows_themselves_do_not_look_drifted():
    rows = sample(2000, 64, decay=0)
    reference = references.measure(rows, np.ones(2000))
    assert measure(Live(None, None, 2000, np.zeros(100, int), reference.count(rows)), reference)["d"] < 0.002


def test_half_precision_rows_are_summed_in_double_precision():
    rows = sample(20_000, 8).astype("f2")
    mean, _ = projection.fit(rows)
    assert np.allclose(mean, rows.astype(float).mean(axis=0), atol=1e-5)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="two rows"):
        projection.fit(sample(1, 4))
