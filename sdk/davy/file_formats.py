"""Which columns has a parquet, csv or npz file, and what is in them, block by block?

A reader has `names` of its columns and `blocks(columns, rows)`: dicts of arrays (n,) or (n, d), or lists of texts and
None. What a value means is the business of davy.files. parquet needs pyarrow (the extra `davy[parquet]`).
"""

from __future__ import annotations

import csv
import io
import json
import math
import zipfile
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

Raw = dict[str, Any]

LONGEST_CELL = 16 * 2**20  # characters of one value in a csv


class FormatError(ValueError):
    """The file is not what its name says, or needs a package that is not installed."""


class Reader(Protocol):
    """One open file."""

    names: list[str]

    def blocks(self, columns: Collection[str], rows: int) -> Iterator[Raw]:
        """These columns, `rows` rows at a time."""
        ...


def reader(path: Path) -> Reader:
    """The reader for the file's ending; FormatError for another than .parquet, .csv and .npz, OSError without file."""
    kind = READERS.get(path.suffix.lower())
    if kind is None:
        raise FormatError(f"{path.name} ends in none of {', '.join(READERS)}")
    found: Reader = kind(path)
    return found


class Csv:
    """Text with a header; every value is a text, and "" is None."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._opened() as file:
            self.names = next(csv.reader(file), [])

    def _opened(self) -> io.TextIOWrapper:
        return open(self._path, encoding="utf-8-sig", newline="")

    def blocks(self, columns: Collection[str], rows: int) -> Iterator[Raw]:
        """As in Reader."""
        csv.field_size_limit(LONGEST_CELL)
        with self._opened() as file:
            lines = csv.DictReader(file)
            try:
                while block := list(islice(lines, rows)):
                    yield {name: [line.get(name) or None for line in block] for name in columns}
            except (csv.Error, UnicodeDecodeError) as err:
                raise FormatError(f"line {lines.line_num}: {err}") from None


class Npz:
    """Arrays with one row per prediction, as numpy.savez writes them; never a pickle, never unpacked as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self.names = [name.removesuffix(".npy") for name in archive.namelist()]
        except zipfile.BadZipFile as err:
            raise FormatError(f"not an npz file: {err}") from None

    def blocks(self, columns: Collection[str], rows: int) -> Iterator[Raw]:
        """As in Reader."""
        with zipfile.ZipFile(self._path) as archive:
            members = {name: _Member(archive, name) for name in columns}
            lengths = {name: member.rows for name, member in members.items()}
            if len(set(lengths.values())) > 1:
                raise FormatError(f"the arrays differ in length: {lengths}")
            for start in range(0, min(lengths.values(), default=0), rows):
                count = min(rows, next(iter(lengths.values())) - start)
                yield {name: member.take(count) for name, member in members.items()}


class _Member:
    """One array of an npz file, read from its beginning to its end."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._file: BinaryIO = archive.open(f"{name}.npy")  # type: ignore[assignment]
        version = npy.read_magic(self._file)
        header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, self._dtype = header(self._file)
        if self._dtype.hasobject or fortran or not shape:
            raise FormatError(f"{name}: not an array of plain values with one row per prediction")
        self.rows, self._row_shape = int(shape[0]), shape[1:]

    def take(self, rows: int) -> NDArray[Any]:
        size = rows * math.prod(self._row_shape) * self._dtype.itemsize
        data = self._file.read(size)
        if len(data) != size:
            raise FormatError("the file ends too early")
        return np.frombuffer(data, self._dtype).reshape(rows, *self._row_shape)


class Parquet:
    """Columns of Apache Parquet; embeddings are lists, of fixed or of any size."""

    def __init__(self, path: Path) -> None:
        try:
            from pyarrow import parquet
        except ImportError:
            raise FormatError("parquet needs pyarrow: pip install 'davy[parquet]'") from None
        try:
            self._file = parquet.ParquetFile(path)
        except ValueError as err:  # pyarrow's ArrowInvalid
            raise FormatError(f"not a parquet file: {err}") from None
        self.names = list(self._file.schema_arrow.names)

    def blocks(self, columns: Collection[str], rows: int) -> Iterator[Raw]:
        """As in Reader."""
        for batch in self._file.iter_batches(rows, columns=list(columns)):
            yield {name: _from_arrow(name, batch.column(name)) for name in columns}


def _from_arrow(name: str, column: Any) -> Any:
    from pyarrow import compute, types

    kind = column.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return _matrix(name, column)
    if types.is_timestamp(kind):  # without a zone it is UTC
        return compute.cast(column, "int64").to_numpy(zero_copy_only=False) / PER_SECOND[kind.unit]
    if types.is_integer(kind) or types.is_floating(kind):
        return column.to_numpy(zero_copy_only=False)
    if types.is_boolean(kind):
        return compute.fill_null(column, False).to_numpy(zero_copy_only=False)
    return column.to_pylist()


PER_SECOND = {"s": 1, "ms": 1e3, "us": 1e6, "ns": 1e9}


def _matrix(name: str, column: Any) -> NDArray[Any]:
    """(n, d) of a column of lists; rows without one are NaN."""
    valid = np.asarray(column.is_valid())
    lists = column.drop_null()
    lengths = np.unique([len(row) for row in lists])
    if len(lengths) > 1:
        raise FormatError(f"column {name}: lists of {lengths.tolist()} values in one block (wrong_dimension)")
    values = lists.flatten().to_numpy(zero_copy_only=False)
    out = np.full((len(column), int(lengths[0]) if len(lengths) else 0), np.nan, values.dtype)
    out[valid] = values.reshape(int(valid.sum()), -1)
    return out


def numbers_of(texts: list[str | None]) -> NDArray[np.float64]:
    """(n,) of a csv's column of numbers, NaN where there is none; ValueError for another text."""
    return np.array([math.nan if text is None else float(text) for text in texts])


def vectors_of(texts: list[str | None]) -> NDArray[np.float32]:
    """(n, d) of a csv's column of JSON lists, NaN where there is none; ValueError for another text or length."""
    rows = [None if text is None else json.loads(text) for text in texts]
    length = next((len(row) for row in rows if row is not None), 0)
    return np.array([[math.nan] * length if row is None else row for row in rows], np.float32)


READERS: dict[str, Any] = {".parquet": Parquet, ".csv": Csv, ".npz": Npz}
