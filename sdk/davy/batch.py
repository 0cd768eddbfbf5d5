"""Which rows did the server hand over, and to which purpose and segment does each belong?

A column that does not fit (another length, no numbers) is left out and the rest is counted; only ids, errors, purpose
and segments are needed to count a row at all, so a wrong one of these is a ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from davy.wire import MAX_SEGMENT_KEY, PURPOSES, segment_key

MAX_SEGMENT_VALUE = 100
NUMBERS = {
    "confidences": 1,
    "latency_seconds": 1,
    "embeddings": 2,
    "probabilities": 2,
}  # and their dimensions


@dataclass(frozen=True)
class Segment:
    """Where rows came from; `key` is its canonical text."""

    key: str
    values: Mapping[str, str]


NO_SEGMENT = Segment("", {})
OTHER_SEGMENT = Segment(
    segment_key({"segment": "other"}), {"segment": "other"}
)  # as the server's, for too many


@dataclass
class Batch:
    """Rows of one observe(): their ids and columns of one value per row. `misfits` says what was left out, and why."""

    ids: Sequence[str]
    columns: dict[str, Any] = field(default_factory=dict)
    misfits: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, ids: Sequence[Any], columns: Mapping[str, Any]) -> Batch:
        """A batch of the columns that are given and fit; ValueError when `errors` does not."""
        batch = cls([i if type(i) is str else str(i) for i in ids])
        for name, values in columns.items():
            if values is None:
                continue
            try:
                batch.columns[name] = _column(name, values, len(batch.ids))
            except (ValueError, TypeError) as err:
                if name == "errors":
                    raise
                batch.misfits.append(f"{name}: {err}")
        return batch

    def take(self, rows: NDArray[np.intp]) -> Batch:
        """The batch of these rows."""
        columns = {
            name: values[rows] if isinstance(values, np.ndarray) else [values[i] for i in rows]
            for name, values in self.columns.items()
        }
        return Batch([self.ids[i] for i in rows], columns)


def _column(name: str, values: Any, n: int) -> Any:
    if name == "errors":
        values = np.asarray(values)
        if values.dtype.kind not in "biu":
            raise TypeError(f"errors are {values.dtype}, want booleans")
        values = values.astype(np.bool_)
    elif name in NUMBERS:
        values = np.asarray(values)
        if values.dtype.kind not in "fiu" or values.ndim != NUMBERS[name]:
            raise TypeError(
                f"shape {values.shape} of {values.dtype}, want {NUMBERS[name]} dimensions of numbers"
            )
    if len(values) != n:
        raise ValueError(f"{len(values)} values for {n} ids")
    return values


def split(
    batch: Batch, purpose: str | Sequence[str], segments: Mapping[str, Any]
) -> list[tuple[str, Segment, Batch]]:
    """The batch by purpose and segment.

    purpose   one for all rows, or one per row; ValueError when unknown
    segments  name to one value for all rows (a text) or one per row; None and "" mean: not known
    """
    if isinstance(purpose, str) and all(isinstance(value, str) for value in segments.values()):
        return [(_purpose(purpose), segment_of(tuple(segments.items())), batch)]
    n = len(batch.ids)
    columns = [_per_row(purpose, n, "purpose"), *(_per_row(v, n, name) for name, v in segments.items())]
    groups: dict[tuple[Any, ...], list[int]] = {}
    for row, key in enumerate(zip(*columns)):  # noqa: B905 - lengths are checked
        groups.setdefault(key, []).append(row)
    return [
        (_purpose(key[0]), segment_of(tuple(zip(segments, key[1:]))), batch.take(np.array(rows)))  # noqa: B905
        for key, rows in groups.items()
    ]


def _per_row(values: Any, n: int, name: str) -> Sequence[Any]:
    if isinstance(values, str):
        return [values] * n
    if len(values) != n:
        raise ValueError(f"{name}: {len(values)} values for {n} ids")
    return [value if type(value) is str or value is None else str(value) for value in values]


def _purpose(purpose: str) -> str:
    if purpose not in PURPOSES:
        raise ValueError(f"purpose {purpose!r} is not one of {', '.join(PURPOSES)}")
    return purpose


@lru_cache(maxsize=4096)
def segment_of(pairs: tuple[tuple[str, str | None], ...]) -> Segment:
    """The segment of these names and values, made fit for the wire: printable, short; too long altogether is none."""
    values = {_tidy(name): _tidy(value) for name, value in pairs if value}
    values = {name: value for name, value in values.items() if name and value}
    key = segment_key(values)
    return Segment(key, values) if len(key) <= MAX_SEGMENT_KEY else NO_SEGMENT


def _tidy(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:MAX_SEGMENT_VALUE]
