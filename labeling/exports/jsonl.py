"""Labels as JSON lines: one object a line, the fields of Row. PURE."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import ClassVar

from labeling.exports.base import Row, plain


class JsonLines:
    """https://jsonlines.org: UTF-8, one value a line."""

    name: ClassVar[str] = "jsonl"
    content_type: ClassVar[str] = "application/jsonl"

    def write(self, rows: Iterable[Row]) -> Iterator[str]:
        for row in rows:
            yield json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n"
