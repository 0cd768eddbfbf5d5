"""How does a file of history on this machine become hours, without HTTP? As `davy telemetry push` does it from afar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from davy import files, history, wire

from controlplane import problems
from controlplane.models import ModelVersion
from monitoring import calibrations, imports, references, rollups, windows
from monitoring.statistics.compiled_counting import CompiledCounter


class Bar(Protocol):
    """Shows how far it is: `bar(label, total)` is a context in which it is told of rows done."""

    def __call__(self, label: str, total: int | None = None) -> AbstractContextManager[history.Done]: ...


def backfill(
    version: ModelVersion, path: Path, columns: files.Columns, now: datetime, bar: Bar
) -> Counter[str]:
    """Count the file's rows into hours, fold and roll them up, calibrate what is due.

    Returns how many `rows`, hours `accepted` and `duplicate`.

    Safe to repeat: a file's hours count once. Raises davy.files.FileError naming the row and column, and a problem
    when embeddings come without a reference.
    """
    reference = references.load(version) if columns.fields["embedding"] else None
    if columns.fields["embedding"] and reference is None:
        raise problems.field(
            "/embedding", "no_reference", f"{version} has no reference to count embeddings with"
        )
    blocks = partial(
        files.read_rows,
        path,
        columns,
        dimensions=reference.dimensions if reference else None,
        until=history.last_full_hour(now.timestamp()),
    )
    with bar("reading") as done:
        found = Counter(rows=history.read_through(blocks(), done))
    count = CompiledCounter(reference).count if reference else None
    with bar("counting", found["rows"]) as done:
        reports = history.hourly_reports(
            history.told(blocks(), done),
            reference,
            version.model.name,
            version.name,
            files.sha256_of(path),
            count=count,
        )
        found.update(_stored(reports, now))
    windows.fold(now)
    rollups.roll(now)
    calibrations.calibrate(now)
    return found


def _stored(reports: Iterator[wire.Report], now: datetime) -> Counter[str]:
    found = Counter(accepted=0, duplicate=0)
    for report in reports:
        answer = imports.store_import(wire.encode_report(report), now)
        found.update(accepted=answer.accepted, duplicate=answer.duplicate)
    return found
