"""What holds of counted distances whatever the rows are: ties, atoms, few rows, values never seen before?"""

from __future__ import annotations

import numpy as np
from davy.reference import Reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from monitoring.statistics import binning
from monitoring.statistics.binned_ks import binned_ks, grid_distance, p_value

FEW_VALUES = st.sampled_from([0.0, -0.0, 1.0, 0.25, -3.0])  # ties and atoms
ANY_VALUES = st.floats(-1e6, 1e6, width=32)
SEVERAL = settings(max_examples=200, deadline=None)


def samples(most: int, least: int = 1) -> st.SearchStrategy[np.ndarray]:
    """Float32 samples with many ties, with none but by accident, or with an atom among others."""
    return st.one_of(
        hnp.arrays(np.float32, st.integers(least, most), elements=values)
        for values in (FEW_VALUES, ANY_VALUES, st.one_of(FEW_VALUES, ANY_VALUES))
    )


@st.composite
def spread_samples(draw: st.DrawFn) -> np.ndarray:
    """A few thousand rows, so that a bin holds many: a normal sample, rounded, cut off, moved."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.normal(draw(st.floats(-2, 2)), draw(st.floats(0.1, 4)), draw(st.integers(2, 3000)))
    if draw(st.booleans()):
        values = values.round(draw(st.integers(0, 3)))
    return np.maximum(values, draw(st.floats(-3, 3))).astype("f4")


ROWS = st.one_of(samples(300), spread_samples())
REFERENCE_ROWS = st.one_of(
    samples(300, least=2), spread_samples()
)  # scipy divides by zero with one row on either side


def counted(reference: np.ndarray, live: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    edges = binning.edges(reference, bins)
    return binning.count(reference, edges)[None], binning.count(live, edges)[None]


@given(REFERENCE_ROWS, ROWS, st.sampled_from([8, 32, 256]))
@SEVERAL
def test_the_exact_distance_lies_between_the_bounds(
    reference: np.ndarray, live: np.ndarray, bins: int
) -> None:
    exact = stats.ks_2samp(reference, live, method="asymp").statistic
    bound = binned_ks(*counted(reference, live, bins))
    assert bound.lower[0] <= exact + 1e-12
    assert exact <= bound.upper[0] + 1e-12


@given(REFERENCE_ROWS, ROWS, st.sampled_from([8, 32, 256]))
@SEVERAL
def test_the_bounds_are_at_most_the_heaviest_reference_bin_apart(
    reference: np.ndarray, live: np.ndarray, bins: int
) -> None:
    before, after = counted(reference, live, bins)
    bound = binned_ks(before, after)
    assert bound.upper[0] - bound.lower[0] <= before.max() / before.sum() + 1e-12


@given(REFERENCE_ROWS, ROWS)
@SEVERAL
def test_p_is_scipys_to_within_what_the_bounds_leave_open(reference: np.ndarray, live: np.ndarray) -> None:
    exact = stats.ks_2samp(reference, live, method="asymp").pvalue
    bound = binned_ks(*counted(reference, live, 256))
    lowest = p_value(bound.upper, bound.n, bound.reference_n)[0]
    assert lowest - 1e-5 <= exact <= bound.p[0] + 1e-5


@given(REFERENCE_ROWS, ROWS)
@SEVERAL
def test_the_distance_alone_is_the_lower_bound(reference: np.ndarray, live: np.ndarray) -> None:
    before, after = counted(reference, live, 32)
    assert grid_distance(before, after) == binned_ks(before, after).lower


@given(
    st.lists(samples(60, least=0), min_size=1, max_size=6), samples(200), st.randoms(use_true_random=False)
)
@SEVERAL
def test_merged_counts_are_those_of_all_rows_in_any_order(
    parts: list[np.ndarray], reference: np.ndarray, chance: object
) -> None:
    edges = binning.edges(reference, 16)
    whole = binning.count(np.concatenate(parts), edges)
    chance.shuffle(parts)  # type: ignore[attr-defined]
    assert (sum(binning.count(part, edges) for part in parts) == whole).all()


@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 80), st.just(4)), elements=st.integers(-3, 3)),
    st.integers(1, 79),
)
@SEVERAL
def test_counts_of_embeddings_that_are_projected_exactly_merge_into_those_of_the_whole(
    rows: np.ndarray, cut: int
) -> None:
    reference = Reference.build(
        np.zeros(4), np.eye(4)[:2], np.tile([-1, 0, 1.5], (3, 1)), np.ones((3, 4)), np.zeros(100), rows=4
    )
    apart = reference.count(rows[:cut]) + reference.count(rows[cut:])
    assert (apart == reference.count(rows)).all()
