"""What an export format is: answered tasks in, text out, one piece after another. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Row:
    """One annotator's label of one task, with where the image came from and how it was drawn."""

    task: int
    model: str
    version: str
    digest: str  # sha256 of the version's bundle
    request_id: str
    requested_at: datetime
    segment: dict[str, str]
    image: str  # URL or object key at the source
    label: str
    suggested_label: str
    suggested_confidence: float | None
    budget: str
    sampler: str
    inclusion_probability: float | None  # set for budget "measure": weigh by its inverse
    stratum: str
    why: str
    annotator: str
    labelled_at: datetime


class Export(Protocol):
    """Writes rows as text. Streams: holds no more than one row at a time; same rows, same bytes."""

    name: ClassVar[str]
    content_type: ClassVar[str]

    def write(self, rows: Iterable[Row]) -> Iterator[str]:
        """The file in pieces, each a whole number of lines."""
        ...


def plain(row: Row) -> dict[str, Any]:
    """A row's fields in their order, times in ISO 8601."""
    values = dict(vars(row))
    for name in ("requested_at", "labelled_at"):
        values[name] = values[name].isoformat()
    return values
