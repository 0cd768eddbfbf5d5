"""davy telemetry: predictions from a file, for who has no collector."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from davy.screen import USAGE, Finished, Output, OutputOption, UsageError, session

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
    file: Annotated[str, typer.Argument(help="JSON or NDJSON; - reads standard input.")],
    output: OutputOption = Output.TEXT,
) -> None:
    """Send predictions; a row sent before counts once. Exit code 1 when any was rejected."""
    with session(output) as (client, screen):
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
            screen.line(
                f"row {row['index']}: {row.get('pointer')} {row.get('detail') or row.get('code')}", "red"
            )
        screen.next("davy status", client.url)
    if rejected:
        raise Finished(USAGE)
