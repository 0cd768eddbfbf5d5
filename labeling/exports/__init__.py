"""The export formats by name: copy the nearest file, add a line here, the contract tests pick it up. PURE."""

from __future__ import annotations

from collections.abc import Mapping

from labeling.exports.base import Export
from labeling.exports.csv import Csv
from labeling.exports.jsonl import JsonLines

EXPORTS: Mapping[str, Export] = {
    JsonLines.name: JsonLines(),
    Csv.name: Csv(),
}


class UnknownExportError(LookupError):
    """No export format has this name."""


def get(name: str) -> Export:
    """The format called `name`. Raises UnknownExportError: nothing falls back silently."""
    try:
        return EXPORTS[name]
    except KeyError:
        raise UnknownExportError(f"no format {name!r}; there are {', '.join(sorted(EXPORTS))}") from None
