"""Which predictions are in a file of somebody who had data before Davy? Read in blocks; a wrong value is named.

Columns, unless others are named: `at` (unix seconds, or ISO 8601 and timestamps, UTC without a zone), and any of
`embedding`, `confidence`, `detections` (objects in the image), `latency_ms`, `error` (a text or true). Plurals are
found, too. In csv an embedding is a JSON list. A row with an error needs no other values. Other columns are not read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from davy.file_formats import FormatError, Raw, numbers_of, reader, vectors_of
from davy.wire import MAX_TIME

FIELDS = ("at", "embedding", "confidence", "detections", "latency_ms", "error")
PLURALS = {"embedding": "embeddings", "confidence": "confidences", "error": "errors"}
BLOCK_ROWS = 20_000
NO_ERROR = frozenset({"", "0", "false", "none", "null"})

Array = NDArray[Any]


class FileError(ValueError):
    """A file that cannot be taken as it is: the column and row (from 1) where known, a stable code, and why."""

    def __init__(self, code: str, detail: str, column: str = "", row: int | None = None) -> None:
        place = ", ".join([f"row {row}"] * (row is not None) + [f"column {column}"] * bool(column))
        super().__init__(f"{place}: {detail} ({code})" if place else f"{detail} ({code})")
        self.code, self.column, self.row = code, column, row


@dataclass
class Block:
    """Rows of a file: at (n,) unix seconds; columns as davy.batch names them, None where the file has none.

    embeddings (n, d), confidences (n,), detections (n,), latency_seconds (n,), errors (n,) bool; segments: per name n
    texts, None where unknown. Values of rows with an error may be NaN.
    """

    at: NDArray[np.float64]
    columns: dict[str, Array | None]
    segments: dict[str, Sequence[str | None]] = field(default_factory=dict)

    def take(self, rows: NDArray[np.intp]) -> Block:
        """The block of these rows."""
        return Block(
            self.at[rows],
            {name: None if values is None else values[rows] for name, values in self.columns.items()},
            {name: [values[i] for i in rows] for name, values in self.segments.items()},
        )


@dataclass(frozen=True)
class Columns:
    """Where a file has each field (see FIELDS; None: nowhere) and segment, and which of its columns are not read."""

    fields: Mapping[str, str | None]
    segments: tuple[str, ...]
    unread: tuple[str, ...]

    @property
    def wanted(self) -> list[str]:
        """The columns to read."""
        return [*filter(None, self.fields.values()), *self.segments]


def columns_of(path: Path, named: Mapping[str, str] | None = None, segments: Sequence[str] = ()) -> Columns:
    """Where the file has what; FileError when it lacks what is named, or all that could be counted.

    named     field → column, for those that are not called as above
    segments  columns by whose values the traffic is told apart; besides these all that are called segment.<name>
    """
    try:
        names = reader(path).names
    except FormatError as err:
        raise FileError("bad_file", str(err)) from None
    given = dict(named or {})
    for name in given.keys() - set(FIELDS):
        raise FileError("unknown_field", f"no field {name!r}, but {', '.join(FIELDS)}")
    found = {name: given.get(name) or _called(name, names) for name in FIELDS}
    parts = tuple(dict.fromkeys([*segments, *(name for name in names if name.startswith("segment."))]))
    for column in [*given.values(), *segments]:
        if column not in names:
            raise FileError("missing", "the file has no such column", column)
    if found["at"] is None:
        raise FileError("missing", "the file has no such column", "at")
    if not any(found[name] for name in ("embedding", "confidence", "detections")):
        raise FileError("missing", "none of the columns embedding, confidence and detections is there")
    read = {*filter(None, found.values()), *parts}
    return Columns(found, parts, tuple(name for name in names if name not in read))


def _called(name: str, names: Sequence[str]) -> str | None:
    return next((candidate for candidate in (name, PLURALS.get(name)) if candidate in names), None)


def read_rows(
    path: Path,
    columns: Columns,
    *,
    dimensions: int | None = None,
    until: float = MAX_TIME,
    block: int = BLOCK_ROWS,
) -> Iterator[Block]:
    """The file's rows in blocks. Memory does not grow with the file. FileError names the first wrong value.

    dimensions  wanted of embeddings; None: they are not read
    until       unix seconds that all rows lie before
    """
    wanted = dict(columns.fields)
    if dimensions is None:
        wanted["embedding"] = None
    names = [name for name in columns.wanted if name != columns.fields["embedding"] or dimensions is not None]
    first = 1
    try:
        for raw in reader(path).blocks(names, block):
            found = _Checked(raw, wanted, first)
            yield found.block(columns.segments, dimensions, until)
            first += found.n
    except FormatError as err:
        raise FileError("bad_file", str(err)) from None


class _Checked:
    """Raw columns of one block, with every value looked at."""

    def __init__(self, raw: Raw, fields: Mapping[str, str | None], first: int) -> None:
        self._raw, self._fields, self._first = raw, fields, first
        self.n = len(next(iter(raw.values())))
        self._good = np.ones(self.n, np.bool_)

    def block(self, segments: Sequence[str], dimensions: int | None, until: float) -> Block:
        errors = self._errors()
        if errors is not None:
            self._good = ~errors
        columns = {
            "errors": errors,
            "confidences": self._numbers("confidence", 0.0, 1.0),
            "detections": self._numbers("detections", 0.0, 2.0**31),
            "latency_seconds": self._numbers("latency_ms", 0.0, 1e9),
            "embeddings": None if dimensions is None else self._embeddings(dimensions),
        }
        if (latency := columns["latency_seconds"]) is not None:
            columns["latency_seconds"] = latency / 1000
        if (detections := columns["detections"]) is not None:
            columns["detections"] = np.where(self._good, detections, 0).astype(np.int64)
        return Block(self._times(until), columns, {_segment(name): self._texts(name) for name in segments})

    def _fail(self, wrong: NDArray[np.bool_], code: str, detail: str, column: str | None) -> None:
        if wrong.any():
            raise FileError(code, detail, column or "", self._first + int(wrong.argmax()))

    def _times(self, until: float) -> NDArray[np.float64]:
        column = self._fields["at"]
        at = self._converted(column, _times_of)
        self._fail(~np.isfinite(at), "not_finite", "no time", column)
        self._fail((at < 0) | (at >= MAX_TIME), "out_of_range", "no time between 1970 and 2100", column)
        last = datetime.fromtimestamp(min(until, MAX_TIME), timezone.utc)
        self._fail(at >= until, "in_future", f"rows are taken up to {last:%Y-%m-%d %H:%M} UTC", column)
        return at

    def _numbers(self, name: str, low: float, high: float) -> Array | None:
        column = self._fields[name]
        if column is None:
            return None
        values = self._converted(column, numbers_of)
        if values.dtype.kind not in "fiub" or values.ndim != 1:
            raise FileError("wrong_type", f"{values.dtype} {values.shape}, want one number a row", column)
        self._fail(~np.isfinite(values) & self._good, "not_finite", "no finite number", column)
        outside = self._good & ~((values >= low) & (values <= high))
        self._fail(outside, "out_of_range", f"not from {low:g} to {high:g}", column)
        return values

    def _embeddings(self, dimensions: int) -> Array | None:
        column = self._fields["embedding"]
        if column is None:
            return None
        values = self._converted(column, vectors_of)
        if values.dtype.kind != "f" or values.ndim != 2:
            raise FileError(
                "wrong_type", f"{values.dtype} {values.shape}, want a list of floats a row", column
            )
        if not self._good.any():
            return np.zeros((self.n, dimensions), np.float32)
        if values.shape[1] != dimensions:
            detail = f"{values.shape[1]} values, the reference wants {dimensions}"
            raise FileError("wrong_dimension", detail, column, self._first)
        finite = np.isfinite(values).all(axis=1)
        self._fail(~finite & self._good, "not_finite", "a value is missing, NaN or infinite", column)
        return values

    def _errors(self) -> NDArray[np.bool_] | None:
        column = self._fields["error"]
        if column is None:
            return None
        values = self._raw[column]
        if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
            return np.asarray(np.nan_to_num(values) != 0)
        return np.array(
            [str(_text(value) or "").strip().lower() not in NO_ERROR for value in values], np.bool_
        )

    def _converted(self, column: str | None, convert: Any) -> Array:
        values = self._raw[column or ""]
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
            return values
        try:
            return np.asarray(convert(values))
        except (ValueError, TypeError) as err:
            raise FileError("wrong_type", f"rows from {self._first} on: {err}", column or "") from None

    def _texts(self, column: str) -> list[str | None]:
        return [_text(value) for value in self._raw[column]]


def _segment(column: str) -> str:
    return column.removeprefix("segment.")


def _text(value: Any) -> str | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _times_of(values: Any) -> NDArray[np.float64]:
    if isinstance(values, np.ndarray) and values.dtype.kind == "M":
        return np.asarray(values.astype("datetime64[us]").astype(np.int64) / 1e6)
    return np.array([_time_of(_text(value)) for value in values], np.float64)


def _time_of(text: str | None) -> float:
    if text is None:
        return np.nan
    try:
        return float(text)
    except ValueError:
        found = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def sha256_of(path: Path) -> str:
    """Of the file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()
