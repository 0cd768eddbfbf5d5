"""What does a person, a log or a program read when a command runs, and which exit code says how it went?"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import Enum
from typing import Annotated, Any

import typer
from rich.console import Console

from davy.client import ApiError, Client, ClientError, Json, WaitTimeout, path

OK, USAGE, NOT_PROMOTED, TIMEOUT, ACCESS, SERVER, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
ENDINGS = {
    "promoted": OK,
    "rolled_back": NOT_PROMOTED,
    "aborted": NOT_PROMOTED,
    "superseded": NOT_PROMOTED,
    "failed": SERVER,
}
COLOURS = {
    "promoted": "bold green",
    "ok": "green",
    "held": "bold yellow",
    "paused": "yellow",
    "rolling_back": "bold red",
    "rolled_back": "bold red",
    "aborted": "red",
    "failed": "bold red",
    "FAIL": "bold red",
}


class Output(str, Enum):
    """How to answer: lines for people, or one JSON document on stdout (the lines then go to stderr)."""

    TEXT = "text"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("-o", "--output", help="Lines of text, or one JSON document.")]


class Finished(Exception):
    """The command is over with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class UsageError(Exception):
    """The command was asked for something that cannot be; says what to do instead."""


class Screen:
    """Writes plain lines when there is no terminal, coloured ones when there is."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self._out = Console(stderr=output is Output.JSON, highlight=False, soft_wrap=True)
        self._err = Console(stderr=True, highlight=False, soft_wrap=True)

    def line(self, text: str, style: str = "") -> None:
        """One line of progress or result."""
        self._out.print(text, style=style or None, markup=False)

    def result(self, document: Any) -> None:
        """The answer for programs; nothing in text mode."""
        if self.output is Output.JSON:
            typer.echo(json.dumps(document))

    def next(self, command: str, url: str) -> None:
        """The last lines: what to do next, and the page to look at."""
        self.line(f"next: {command}")
        self.line(f"page: {url}")

    def error(self, text: str, document: Mapping[str, Any] | None = None) -> None:
        """What went wrong."""
        self._err.print(f"davy: {text}", style="red", markup=False)
        self.result({"error": text, **(document or {})})


@contextmanager
def session(output: Output) -> Iterator[tuple[Client, Screen]]:
    """A client from DAVY_URL and DAVY_TOKEN, and a screen; errors become a line and an exit code."""
    screen = Screen(output)
    try:
        yield connect(), screen
    except UsageError as err:
        screen.error(str(err))
        raise Finished(USAGE) from None
    except WaitTimeout as err:
        screen.error(f"{err}; it goes on without this command", {"rollout": err.rollout})
        raise Finished(TIMEOUT) from None
    except ApiError as err:
        screen.error(_advice(err), {"problem": err.problem})
        raise Finished(exit_code(err)) from None
    except ClientError as err:
        screen.error(str(err))
        raise Finished(SERVER) from None


def connect() -> Client:
    """A client from the environment; UsageError when a variable is missing or wrong."""
    url, token = os.environ.get("DAVY_URL", ""), os.environ.get("DAVY_TOKEN", "")
    for name, value in (("DAVY_URL", url), ("DAVY_TOKEN", token)):
        if not value.strip():
            raise UsageError(f"{name} is not set (`make up` writes both to var/credentials.env)")
    try:
        return Client(url.strip(), token.strip())
    except ValueError as err:
        raise UsageError(f"DAVY_URL or DAVY_TOKEN: {err}") from None


def exit_code(err: ApiError) -> int:
    """4 for access, 5 for the server's fault, 1 for what the command asked."""
    if err.status in {401, 403}:
        return ACCESS
    return SERVER if err.status in {408, 429} or err.status >= 500 else USAGE


def _advice(err: ApiError) -> str:
    if err.status == 401:
        return f"{err}; DAVY_TOKEN is wrong, expired or revoked"
    if err.status == 403:
        return f"{err}; DAVY_TOKEN lacks the scope for this (`davy doctor` shows what it has)"
    return str(err)


def rollout_line(rollout: Json) -> str:
    """One line that says where a rollout stands and, when it matters, why."""
    parts = [
        datetime.now().astimezone().strftime("%H:%M:%S"),
        f"rollout {rollout.get('id')}",
        f"{rollout.get('model')} {rollout.get('version')} on {rollout.get('fleet')}:",
        str(rollout.get("state")),
        f"step {rollout.get('step')}",
        f"weight {_percent(rollout.get('weight_percent'))}",
        f"(observed {_percent(rollout.get('observed_weight_percent'))})",
    ]
    gates = [f"{gate.get('name')} {gate.get('verdict')}" for gate in rollout.get("gates") or []]
    line = " ".join(parts) + (f"  {', '.join(gates)}" if gates else "")
    return f"{line}  {rollout['reason']}" if rollout.get("reason") else line


def _percent(value: Any) -> str:
    return "unknown" if value is None else f"{value:g} %"


def page(client: Client, *parts: str | int) -> str:
    """The URL of a page."""
    return client.url + path(*parts)


def tell_github(rollout: Json, url: str) -> None:
    """Write a rollout's end to the step's summary and outputs when GitHub Actions runs the command."""
    summary, outputs = os.environ.get("GITHUB_STEP_SUMMARY"), os.environ.get("GITHUB_OUTPUT")
    if summary:
        with open(summary, "a", encoding="utf-8") as file:
            file.write(f"### Davy: [rollout {rollout.get('id')}]({url})\n\n{rollout_line(rollout)}\n")
    if outputs:
        with open(outputs, "a", encoding="utf-8") as file:
            file.write(f"rollout={rollout.get('id')}\nstate={rollout.get('state')}\nurl={url}\n")
