"""How many embeddings a second does one core count, beside scipy's loop and the bare matrix product?

python -m benchmarks.monitoring counting [--rows 131072] [--repeats 5]

One process on one core, BLAS on one thread, seconds of that process's CPU, the best of the repeats; all kinds take
turns at the same rows. D and its p-values are part of all but the bare product.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numpy as np
from davy.reference import BLOCK_ROWS, Reference
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from monitoring.statistics import binning
from monitoring.statistics.binned_ks import binned_ks
from monitoring.statistics.compiled_counting import CompiledCounter

DIMENSIONS, COMPONENTS, REFERENCE_ROWS = 512, 32, 20_000
TARGETS = {"numpy": (850_000, 0.50), "compiled": (1_100_000, 0.65)}  # rows/s, share of the bare product's
MOST_FLAT_BYTES = 1_000_000  # how much more memory ten times as many rows may take

Rows = NDArray[Any]
Kind = Callable[[Rows], object]


def main(argv: list[str]) -> int:
    """Print the table; 0 when rows/s, their share of the bare product and memory reach the targets."""
    options = _options(argv)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with threadpool_limits(1):
        rng = np.random.default_rng(0)
        reference = make_reference(rng)
        rows = rng.standard_normal((options.rows, DIMENSIONS), dtype=np.float32)
        kinds = make_kinds(reference)
        seconds = measure(kinds, rows, options.repeats)
        half = measure({name: kinds[name] for name in TARGETS}, rows.astype(np.float16), options.repeats)
        few = rows[: len(rows) // 10]
        peaks = {name: (peak_bytes(kind, few), peak_bytes(kind, rows)) for name, kind in kinds.items()}
    rates = {name: options.rows / taken for name, taken in seconds.items()}
    rates |= {f"{name}, float16 rows": options.rows / taken for name, taken in half.items()}
    _print(rates, peaks, options)
    return 0 if _met(rates, peaks) else 1


def make_reference(rng: np.random.Generator) -> Reference:
    """A reference of standard normal rows, in random directions: counting takes as long in any."""
    components = np.linalg.qr(rng.normal(size=(DIMENSIONS, COMPONENTS)))[0].T
    k, none = COMPONENTS + 1, np.zeros(100)
    bare = Reference.build(np.zeros(DIMENSIONS), components, np.zeros((k, 1)), np.zeros((k, 2)), none, 0)
    values = bare.project(rng.standard_normal((REFERENCE_ROWS, DIMENSIONS), dtype=np.float32))
    edges = np.stack([binning.edges(row) for row in values])
    counts = np.stack([binning.count(row, inner) for row, inner in zip(values, edges, strict=True)])
    return Reference.build(bare.mean, components, edges, counts, none, REFERENCE_ROWS)


def make_kinds(reference: Reference) -> dict[str, Kind]:
    """What is measured, by name."""
    compiled = CompiledCounter(reference)
    projected = np.empty((COMPONENTS, BLOCK_ROWS), np.float32)
    frozen = np.random.default_rng(1).standard_normal((COMPONENTS, REFERENCE_ROWS), dtype=np.float32)

    def bare_product(rows: Rows) -> None:
        for start in range(0, len(rows), BLOCK_ROWS):
            block = rows[start : start + BLOCK_ROWS]
            np.matmul(reference.components, block.T, out=projected[:, : len(block)])

    def frozen_pca_and_ks_2samp(rows: Rows) -> list[float]:
        from scipy import stats

        values = reference.components @ (rows - reference.mean).T
        return [stats.ks_2samp(a, b, method="asymp").pvalue for a, b in zip(frozen, values, strict=True)]

    return {
        "bare product": bare_product,
        "numpy": lambda rows: binned_ks(reference.counts, reference.count(rows)),
        "compiled": lambda rows: binned_ks(reference.counts, compiled.count(rows)),
        "frozen PCA + ks_2samp": frozen_pca_and_ks_2samp,
    }


def measure(kinds: dict[str, Kind], rows: Rows, repeats: int) -> dict[str, float]:
    """The least seconds of CPU by kind; the first call of each, which compiles and imports, is not counted."""
    for kind in kinds.values():
        kind(rows[:BLOCK_ROWS])
    best = dict.fromkeys(kinds, np.inf)
    for _ in range(repeats):
        for name, kind in kinds.items():
            began = time.process_time()
            kind(rows)
            best[name] = min(best[name], time.process_time() - began)
    return best


def peak_bytes(kind: Kind, rows: Rows) -> int:
    """The most memory beyond the rows themselves that a call holds at a time."""
    tracemalloc.start()
    kind(rows)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def _met(rates: dict[str, float], peaks: dict[str, tuple[int, int]]) -> bool:
    fast = all(
        rates[name] >= rate and rates[name] >= share * rates["bare product"]
        for name, (rate, share) in TARGETS.items()
    )
    return fast and all(peaks[name][1] - peaks[name][0] <= MOST_FLAT_BYTES for name in TARGETS)


def _print(rates: dict[str, float], peaks: dict[str, tuple[int, int]], options: argparse.Namespace) -> None:
    print(f"`python -m benchmarks.monitoring counting --rows {options.rows} --repeats {options.repeats}`,")
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, ",
        end="",
    )
    print(f"numpy {np.__version__}, d = {DIMENSIONS}, k = {COMPONENTS}, B = {binning.BINS}:\n")
    print(f"| | rows/s | of the bare product | peak memory, {options.rows // 10} and {options.rows} rows |")
    print("|---|---|---|---|")
    for name, rate in rates.items():
        held = " and ".join(f"{peak / 2**20:.1f}" for peak in peaks[name]) + " MiB" if name in peaks else ""
        print(f"| {name} | {rate:,.0f} | {rate / rates['bare product']:.0%} | {held} |")
    print(
        f"\nCompiled is {rates['compiled'] / rates['frozen PCA + ks_2samp']:.1f} times as fast as scipy's loop."
    )


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.monitoring counting", description=__doc__)
    parser.add_argument("--rows", type=int, default=131_072)
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
