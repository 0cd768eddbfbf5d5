"""One history in every format that is read."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from davy.reference import Reference
from pyarrow import parquet

T0 = 1_760_000_400  # a full hour


def rows(n: int = 200, d: int = 4, hours: int = 3, seed: int = 0) -> dict[str, Any]:
    """n predictions spread over some hours, a tenth of them failed."""
    rng = np.random.default_rng(seed)
    return {
        "at": np.sort(rng.uniform(T0, T0 + 3600 * hours, n)).round(3),
        "embedding": rng.normal(size=(n, d)).astype("f4"),
        "confidence": rng.random(n),
        "detections": rng.integers(0, 5, n),
        "latency_ms": rng.uniform(1, 50, n),
        "error": rng.random(n) < 0.1,
        "segment.country": rng.choice(["de", "fr"], n),
    }


def make_reference(d: int = 4) -> Reference:
    """What the embeddings of `rows` are counted with."""
    edges = np.tile(np.linspace(-1, 1, 7), (3, 1))
    return Reference.build(np.zeros(d), np.eye(d)[:2], edges, np.ones((3, 8)), np.ones(100), rows=8)


def write(path: Path, columns: dict[str, Any]) -> Path:
    """The columns as a file of the path's kind."""
    WRITERS[path.suffix](path, columns)
    return path


def _parquet(path: Path, columns: dict[str, Any]) -> None:
    arrays = {name: list(v) if np.ndim(v) == 2 else v for name, v in columns.items()}
    parquet.write_table(pa.table(arrays), path, row_group_size=77)


def _csv(path: Path, columns: dict[str, Any]) -> None:
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            out.writerow([json.dumps(v.tolist()) if np.ndim(v) == 1 else v for v in row])


def _npz(path: Path, columns: dict[str, Any]) -> None:
    np.savez_compressed(path, **columns)


WRITERS = {".parquet": _parquet, ".csv": _csv, ".npz": _npz}
