"""Every export format keeps the port's promises."""

from __future__ import annotations

import csv
import inspect
import io
import json
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime

import pytest

from labeling import exports
from labeling.exports.base import Export, Row

EVERY = pytest.mark.parametrize("export", exports.EXPORTS.values(), ids=list(exports.EXPORTS))
ROW = Row(
    task=1,
    model="products",
    version="v1",
    digest="0" * 64,
    request_id="r1",
    requested_at=datetime(2026, 3, 1, 12, tzinfo=UTC),
    segment={"device": "kiosk", "country": "DE"},
    image="https://images.test/1.png",
    label="shoe",
    suggested_label="boot",
    suggested_confidence=0.47,
    budget="measure",
    sampler="measure",
    inclusion_probability=0.02,
    stratum="low",
    why="drawn at random",
    annotator="ann",
    labelled_at=datetime(2026, 3, 1, 13, tzinfo=UTC),
)
AWKWARD = replace(
    ROW, task=2, label='a "quoted", label\nwith a line', image="=1+1", suggested_confidence=None, segment={}
)


def _read(export: Export, text: str) -> list[dict[str, object]]:
    """The rows of a file as its own readers see them."""
    match export.name:
        case "jsonl":
            return [json.loads(line) for line in text.split("\n") if line]
        case "csv":
            return list(csv.DictReader(io.StringIO(text, newline="")))
    raise AssertionError(f"teach this test to read {export.name}")


@EVERY
def test_an_export_is_found_under_its_own_name(export: Export) -> None:
    assert exports.get(export.name) is export


def test_an_unknown_name_raises() -> None:
    with pytest.raises(exports.UnknownExportError, match="no format 'xls'"):
        exports.get("xls")


@EVERY
def test_every_field_of_every_row_comes_back(export: Export) -> None:
    back = _read(export, "".join(export.write([ROW, AWKWARD])))
    assert [list(row) for row in back] == [[field.name for field in fields(Row)]] * 2
    assert [row["label"] for row in back] == [ROW.label, AWKWARD.label]
    assert str(back[0]["inclusion_probability"]) == "0.02"
    assert back[1]["image"] == "=1+1"


@EVERY
def test_the_same_rows_are_the_same_bytes(export: Export) -> None:
    assert "".join(export.write([ROW, AWKWARD])) == "".join(export.write(iter([ROW, AWKWARD])))


@EVERY
def test_rows_are_written_as_they_come_and_not_collected_first(export: Export) -> None:
    taken = 0

    def rows() -> Iterator[Row]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield replace(ROW, task=number)

    pieces = export.write(rows())
    assert inspect.isgenerator(pieces)
    for _ in range(3):
        next(pieces)
    assert taken <= 3


@EVERY
def test_nothing_labelled_is_a_file_without_rows(export: Export) -> None:
    assert _read(export, "".join(export.write([]))) == []
