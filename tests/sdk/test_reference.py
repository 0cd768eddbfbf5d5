"""Does a reference count embeddings exactly, whatever the batch, and come back unharmed from its file?"""

from __future__ import annotations

import io

import numpy as np
import pytest
from davy.reference import BLOCK_ROWS, Reference, ReferenceError


def make_reference(d: int = 12, k: int = 3, bins: int = 8, seed: int = 0) -> Reference:
    rng = np.random.default_rng(seed)
    components = np.linalg.qr(rng.normal(size=(d, k)))[0].T
    edges = np.sort(rng.normal(size=(k + 1, bins - 1)), axis=1)
    edges[-1] = np.linspace(1, 4, bins - 1)
    counts = np.full((k + 1, bins), 5)
    return Reference.build(rng.normal(size=d), components, edges, counts, np.full(100, 1), rows=5 * bins)


def by_hand(reference: Reference, embeddings: np.ndarray) -> np.ndarray:
    """The definition, in plain loops."""
    counts = np.zeros_like(reference.counts)
    for row, (values, edges) in enumerate(zip(reference.project(embeddings), reference.edges, strict=True)):
        for value in values:
            counts[row, int((edges <= value).sum())] += 1
    return counts


@pytest.mark.parametrize("n", [1, 32, 1000])
def test_counts_follow_the_definition(n):
    reference = make_reference()
    embeddings = np.random.default_rng(1).normal(size=(n, 12)).astype(np.float32)
    assert (reference.count(embeddings) == by_hand(reference, embeddings)).all()


def with_edges(edges: np.ndarray) -> Reference:
    good = make_reference(bins=edges.shape[1] + 1)
    return Reference.build(good.mean, good.components, edges, good.counts, good.confidence_counts, 40)


def tricky_edges() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    tiny = np.float32(1e-45)
    return {
        "signed zeros and ties": np.sort(np.float32([[-1, -0.0, 0, 0, 1, 2, 3]] * 4), axis=1),
        "an atom": np.float32([[-2, -1, 1, np.nextafter(np.float32(1), np.float32(2)), 2, 3, 4]] * 4),
        "one edge": np.float32([[0.5]] * 4),
        "all equal": np.full((4, 7), 2.5, np.float32),
        "denormals": np.float32([[-2 * tiny, -tiny, 0, tiny, 2 * tiny, 3 * tiny, 4 * tiny]] * 4),
        "as far apart as float32 goes": np.float32([[-3e38, -1, 0, 1, 2, 3, 3e38]] * 4),
        "many in one cell": np.sort(np.c_[rng.normal(size=(4, 200)), np.full((4, 2), 1e9)], axis=1),
        "255 normal quantiles": np.sort(rng.normal(size=(4, 255)), axis=1),
    }


@pytest.mark.parametrize("case", tricky_edges())
def test_values_on_next_to_and_far_from_edges_fall_into_the_right_bin(case):
    reference = with_edges(tricky_edges()[case])
    edges = reference.edges
    near = [np.nextafter(edges, np.float32(to)) for to in (-np.inf, np.inf)]
    far = np.float32([[-3.4e38, -1e9, -0.0, 0.0, 1e9, 3.4e38]] * 4)
    values = np.concatenate([edges, *near, far, edges + np.float32(0.3)], axis=1)
    expected = np.stack(
        [
            np.bincount(np.searchsorted(e, v, side="right"), minlength=edges.shape[1] + 1)
            for e, v in zip(edges, values, strict=True)
        ]
    )
    counts = np.zeros_like(reference.counts)
    reference.count_projected(values, counts)
    assert (counts == expected).all()


def test_the_last_row_is_the_norm_of_what_the_projection_leaves_out():
    reference = make_reference()
    embeddings = np.random.default_rng(2).normal(size=(50, 12))
    centred = embeddings - reference.mean
    left = centred - centred @ reference.components.T @ reference.components
    np.testing.assert_allclose(reference.project(embeddings)[-1], np.linalg.norm(left, axis=1), rtol=1e-4)


def test_a_full_projection_leaves_exactly_nothing():
    reference = make_reference(d=3, k=3)
    embeddings = 100 * np.random.default_rng(3).normal(size=(500, 3))
    assert (reference.project(embeddings)[-1] == 0).all()


def test_rows_that_are_not_finite_are_left_out():
    reference = make_reference()
    embeddings = np.random.default_rng(4).normal(size=(6, 12)).astype(np.float32)
    clean = reference.count(embeddings[2:])
    embeddings[0, 3] = np.nan
    embeddings[1, 5] = np.inf
    assert (reference.count(embeddings) == clean).all()
    assert (reference.count(np.full((2, 12), 3e38)) == 0).all()


def test_half_precision_and_more_than_a_block_are_counted():
    reference = make_reference()
    embeddings = np.random.default_rng(5).normal(size=(BLOCK_ROWS + 10, 12)).astype(np.float16)
    assert (reference.count(embeddings).sum(axis=1) == BLOCK_ROWS + 10).all()


def test_no_rows_count_nothing_and_another_dimension_is_refused():
    reference = make_reference()
    assert reference.count(np.empty((0, 12))).sum() == 0
    with pytest.raises(ValueError, match=r"\(5, 11\)"):
        reference.count(np.zeros((5, 11)))


def test_a_reference_comes_back_from_its_file():
    reference = make_reference()
    again = Reference.from_npz(reference.to_npz())
    assert again.digest == reference.digest
    assert again.rows == reference.rows
    assert (again.edges == reference.edges).all()


def test_a_damaged_file_is_refused():
    reference = make_reference()
    arrays = dict(np.load(io.BytesIO(reference.to_npz())))
    arrays["mean"] = arrays["mean"] + 1
    file = io.BytesIO()
    np.savez(file, **arrays)
    with pytest.raises(ReferenceError, match="digest"):
        Reference.from_npz(file.getvalue())
    for data in (b"", b"PK\x03\x04 no", reference.to_npz()[:200]):
        with pytest.raises(ReferenceError):
            Reference.from_npz(data)


@pytest.mark.parametrize(
    ("array", "value"),
    [
        ("mean", np.full(12, np.nan)),
        ("components", np.ones((3, 12))),
        ("components", np.ones((3, 11))),
        ("edges", np.zeros((3, 7))),
        ("edges", np.tile(np.arange(7)[::-1], (4, 1))),
        ("counts", np.full((4, 8), -1)),
        ("confidence_counts", np.ones(99)),
    ],
)
def test_arrays_that_do_not_fit_are_named(array, value):
    good = make_reference()
    arrays = {
        name: getattr(good, name) for name in ("mean", "components", "edges", "counts", "confidence_counts")
    }
    with pytest.raises(ReferenceError, match=array):
        Reference.build(**{**arrays, array: value}, rows=40)
