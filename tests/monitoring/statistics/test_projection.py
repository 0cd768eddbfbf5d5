from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA

from monitoring.statistics import projection


def sample(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * np.linspace(3, 0.1, d) + 5).astype("f4")


def test_it_spans_the_directions_of_sklearns_pca():
    rows = sample(500, 20)
    mean, components = projection.fit(rows, 5)
    wanted = PCA(5, svd_solver="full").fit(rows.astype(float))
    assert np.allclose(mean, wanted.mean_, atol=1e-5)
    assert np.allclose(np.abs(components @ wanted.components_.T), np.eye(5), atol=1e-3)


def test_the_sign_does_not_depend_on_the_order_of_rows():
    rows = sample(500, 20)
    _, one = projection.fit(rows, 5)
    _, other = projection.fit(rows[::-1].copy(), 5)
    assert np.allclose(one, other, atol=1e-4)
    assert (one[np.arange(5), np.abs(one).argmax(axis=1)] > 0).all()


@pytest.mark.parametrize(("n", "d", "k"), [(500, 64, 32), (500, 8, 8), (10, 64, 9), (2, 1, 1)])
def test_there_are_as_many_components_as_rows_and_dimensions_allow(n, d, k):
    mean, components = projection.fit(sample(n, d))
    assert (mean.shape, components.shape) == ((d,), (k, d))
    assert np.allclose(components @ components.T, np.eye(k), atol=1e-5)


def test_half_precision_rows_are_summed_in_double_precision():
    rows = sample(20_000, 8).astype("f2")
    mean, _ = projection.fit(rows)
    assert np.allclose(mean, rows.astype(float).mean(axis=0), atol=1e-5)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="two rows"):
        projection.fit(sample(1, 4))
