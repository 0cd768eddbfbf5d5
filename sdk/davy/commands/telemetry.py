"""davy telemetry: predictions from a file, for who has no collector, or had data before Davy."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from davy import files, history, progress, wire
from davy.client import ApiError, Client, path
from davy.file_formats import READERS
from davy.reference import Reference
from davy.screen import USAGE, Finished, Output, OutputOption, Screen, UsageError, session

app = typer.Typer(no_args_is_help=True, help="Send predictions from a file.")

ROWS_PER_POST = 5000
SHOWN = 10


def read_rows(text: str) -> list[Any]:
    """The rows of a JSON array, or of one JSON object a line; UsageError naming the line."""
    if text.lstrip().startswith("["):
        try:
            rows: list[Any] = json.loads(text)
        except ValueError as err:
            raise UsageError(f"not JSON: {err}") from None
        return rows
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as err:
                raise UsageError(f"line {number} is not JSON: {err}") from None
    return rows


@app.command()
def push(
    file: Annotated[
        str,
        typer.Argument(
            help="JSON or NDJSON (- reads standard input); parquet, csv or npz for a history of any age."
        ),
    ],
    model: Annotated[str, typer.Option(help="Whose history; of parquet, csv and npz.")] = "",
    version: Annotated[str, typer.Option(help="Of the model.")] = "",
    column: Annotated[
        list[str] | None, typer.Option(help="FIELD=COLUMN where a column is not called as its field.")
    ] = None,
    segment: Annotated[
        list[str] | None, typer.Option(help="A column that tells traffic apart, such as country.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """Send predictions; a row, or a file of history, that was sent before counts once.

    A history is counted here: only hourly counts are sent. Exit code 1 when anything was rejected.
    """
    with session(output) as (client, screen):
        if Path(file).suffix.lower() in READERS:
            _push_history(client, screen, Path(file), (model, version), _named(column or []), segment or [])
        else:
            _push_rows(client, screen, file)


def _named(pairs: list[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise UsageError(f"--column {pair!r} is not FIELD=COLUMN")
    return dict(pair.split("=", 1) for pair in pairs)


def _push_history(
    client: Client,
    screen: Screen,
    file: Path,
    of: tuple[str, str],
    named: dict[str, str],
    segments: list[str],
) -> None:
    if not all(of):
        raise UsageError("a history needs --model and --version")
    total: Counter[str] = Counter()
    try:
        columns = files.columns_of(file, named, segments)
        reference = _reference(client, of) if columns.fields["embedding"] else None
        if columns.unread:
            screen.line(f"not read: {', '.join(columns.unread)}")
        blocks = partial(
            files.read_rows,
            file,
            columns,
            dimensions=reference.dimensions if reference else None,
            until=history.last_full_hour(time.time()),
        )
        with progress.bar("reading") as done:
            rows = history.read_through(blocks(), done)
        with progress.bar("counting", rows) as done:
            told = history.told(blocks(), done)
            for report in history.hourly_reports(told, reference, *of, files.sha256_of(file)):
                answer = client.send(
                    "POST",
                    "/telemetry/imports",
                    body=wire.encode_report(report),
                    headers={"Content-Type": wire.CONTENT_TYPE},
                ).json()
                total.update({name: answer.get(name, 0) for name in ("accepted", "duplicate")})
    except (OSError, files.FileError) as err:
        raise UsageError(f"{file} cannot be taken: {err}") from None
    screen.result({"rows": rows, **total})
    screen.line(f"{rows} rows: {total['accepted']} hours accepted, {total['duplicate']} known already")
    screen.next("davy status", client.url + path("models", of[0], "versions", of[1], "drift"))


def _reference(client: Client, of: tuple[str, str]) -> Reference:
    """What the version's embeddings are counted with."""
    where = path("models", of[0], "versions", of[1], "reference")
    try:
        return Reference.from_npz(client.send("GET", where, headers={"Accept": "application/x-npz"}).body)
    except ApiError as err:
        if err.problem.get("code") != "no_reference":
            raise
        raise UsageError(
            f"{' '.join(of)} has no reference, so its embeddings cannot be counted: PUT one first"
        ) from None


def _push_rows(client: Client, screen: Screen, file: str) -> None:
    try:
        rows = read_rows(sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"{file} cannot be read: {err}") from None
    if not rows:
        raise UsageError(f"{file} holds no rows")
    total: Counter[str] = Counter()
    rejected: list[dict[str, Any]] = []
    for start in range(0, len(rows), ROWS_PER_POST):
        answer = client.post("/telemetry/predictions", rows[start : start + ROWS_PER_POST])
        total.update({name: answer.get(name, 0) for name in ("accepted", "duplicate")})
        rejected += [{**row, "index": row["index"] + start} for row in answer.get("rejected", [])]
    screen.result({**total, "rejected": rejected})
    screen.line(f"accepted {total['accepted']}, duplicate {total['duplicate']}, rejected {len(rejected)}")
    for row in rejected[:SHOWN]:
        screen.line(f"row {row['index']}: {row.get('pointer')} {row.get('detail') or row.get('code')}", "red")
    screen.next("davy status", client.url)
    if rejected:
        raise Finished(USAGE)
