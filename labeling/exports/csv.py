"""Labels as CSV (RFC 4180): a header, then the fields of Row; the segment as JSON in one cell. PURE."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from typing import ClassVar

from labeling.exports.base import Row, plain


class Csv:
    """Values are written as they are: the reader is a training program, not a spreadsheet."""

    name: ClassVar[str] = "csv"
    content_type: ClassVar[str] = "text/csv"

    def write(self, rows: Iterable[Row]) -> Iterator[str]:
        yield _line([field.name for field in fields(Row)])
        for row in rows:
            values = plain(row)
            values["segment"] = json.dumps(row.segment, ensure_ascii=False, sort_keys=True)
            yield _line(values.values())


def _line(values: Iterable[object]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(values)
    return text.getvalue()
