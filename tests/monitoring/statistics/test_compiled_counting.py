"""Do the compiled loops count what numpy counts, on every kind of row?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from davy.bin_table import MOST_STEPS
from davy.reference import BLOCK_ROWS, Reference
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from monitoring import references
from monitoring.statistics import compiled_counting
from monitoring.statistics.compiled_counting import CompiledCounter

ROOT = Path(__file__).resolve().parents[3]
D = 6


def reference_with(edges: np.ndarray) -> Reference:
    """Axes as components, so that an embedding's first values are its projections, and these edges in every row."""
    inner = np.tile(np.sort(np.float32(edges)), (D, 1))
    counts = np.ones((D, inner.shape[1] + 1))
    return Reference.build(np.zeros(D), np.eye(D)[: D - 1], inner, counts, np.zeros(100), rows=1)


EDGES = {
    "quantiles": np.random.default_rng(0).normal(size=255),
    "tied": [-1, -0.0, 0, 0, 1, 1, 2],
    "an atom": [-1, 1, np.nextafter(np.float32(1), np.float32(2)), 3],
    "one edge": [0.5],
    "all equal": [2.5] * 9,
    "as far apart as float32 goes": [-3e38, -1, 0, 1, 3e38],
    "more in one cell than steps are taken": [*np.linspace(0, 1, 40), 1e9],
}


def rows_for(reference: Reference, dtype: str) -> np.ndarray:
    """Embeddings whose values are edges, their neighbours, far off, not finite, or anything."""
    edges = reference.edges[0]
    near = np.concatenate(
        [edges, np.nextafter(edges, np.float32(-np.inf)), np.nextafter(edges, np.float32(np.inf))]
    )
    rng = np.random.default_rng(1)
    values = np.concatenate([near, rng.normal(size=4 * BLOCK_ROWS), [0, -0.0, 1e18, -1e18]])
    rows = rng.permutation(np.resize(values, len(values) // D * D)).reshape(-1, D)
    with np.errstate(over="ignore"):  # 1e18 is an infinity in half precision
        rows = rows.astype(dtype)
    rows[3, 2], rows[5, 0] = np.nan, np.inf
    return rows


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("edges", EDGES)
def test_counts_are_numpys(edges: str, dtype: str) -> None:
    reference = reference_with(np.asarray(EDGES[edges]))
    rows = rows_for(reference, dtype)
    counts = CompiledCounter(reference).count(rows)
    assert counts.sum(axis=1).max() > 0
    assert (counts == reference.count(rows)).all()


def test_the_case_of_many_edges_in_one_cell_is_one() -> None:
    crowded = reference_with(np.asarray(EDGES["more in one cell than steps are taken"]))
    assert crowded.table.steps > MOST_STEPS


@pytest.mark.parametrize("dtype", ["f2", "f4"])
@pytest.mark.parametrize("n", [0, 1, BLOCK_ROWS, BLOCK_ROWS + 1])
def test_any_number_of_rows_is_counted(n: int, dtype: str) -> None:
    rng = np.random.default_rng(2)
    reference = references.measure(rng.normal(size=(2000, 64)).astype("f4"), np.ones(2000))
    rows = rng.normal(size=(n, 64)).astype(dtype)
    counts = CompiledCounter(reference).count(rows)
    assert (counts.sum(axis=1) == n).all()
    assert (counts == reference.count(rows)).all()


@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_a_view_with_gaps_between_its_rows_is_counted_as_its_copy(dtype: str) -> None:
    reference = reference_with(np.asarray(EDGES["quantiles"]))
    wide = np.random.default_rng(3).normal(size=(300, 2 * D)).astype(dtype)
    view = wide[::3, ::2]
    assert (CompiledCounter(reference).count(view) == reference.count(view.copy())).all()


@given(
    hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(-1e4, 1e4, width=32)),
    hnp.arrays(np.float16, st.tuples(st.integers(0, 30), st.just(D))),
)
@settings(max_examples=150, deadline=None)
def test_counts_are_numpys_for_any_edges_and_half_precision_rows(edges: np.ndarray, rows: np.ndarray) -> None:
    reference = reference_with(edges)
    counter = CompiledCounter(reference)
    assert (counter.count(rows) == reference.count(rows)).all()
    assert (counter.count(rows.astype("f4")) == reference.count(rows.astype("f4"))).all()


@pytest.mark.parametrize("shape", [(3, D + 1), (D,)])
@pytest.mark.parametrize("dtype", ["f2", "f4"])
def test_rows_of_another_length_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match=f"wants \\(n, {D}\\)"):
        CompiledCounter(reference_with(np.asarray([0.0]))).count(np.zeros(shape, dtype))


def test_where_no_cache_can_be_written_it_compiles_without_one(caplog: pytest.LogCaptureFixture) -> None:
    namespace: dict[str, object] = {}
    exec(compile("def double(x):\n    x *= 2", "/dev/null/nowhere.py", "exec"), namespace)
    values = np.ones(3)
    compiled_counting._compiled(namespace["double"])(values)
    assert values.tolist() == [2, 2, 2]
    assert "is not kept" in caplog.text


def test_compiled_code_is_kept_in_the_folder_that_the_environment_names(tmp_path: Path) -> None:
    program = (
        "import numpy as np; from davy.reference import Reference;"
        "from monitoring.statistics.compiled_counting import CompiledCounter;"
        "r = Reference.build([0], [[1]], [[0], [0]], np.ones((2, 2)), np.zeros(100), 1);"
        "print(CompiledCounter(r).count(np.ones((3, 1), 'f2')).tolist())"
    )
    env = {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": f"{ROOT}:{ROOT / 'sdk'}"}
    found = subprocess.run(
        [sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True
    )
    assert found.stdout == "[[0, 3], [0, 3]]\n"
    assert {path.name.split("-")[0] for path in tmp_path.rglob("*.nbi")} == {
        "compiled_counting._count",
        "compiled_counting._centre_halves",
    }
