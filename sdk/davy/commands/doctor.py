"""davy doctor: why does it not work from here?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from davy.client import Answer, ApiError, Client, ClientError, path
from davy.commands.status import items
from davy.screen import (
    ACCESS,
    COLOURS,
    OK,
    SERVER,
    USAGE,
    Finished,
    Output,
    OutputOption,
    Screen,
    UsageError,
    connect,
    exit_code,
)

NEEDED = {"deploy": "register and roll out", "telemetry": "send predictions and windows"}
SKEW_SECONDS = 300.0  # beyond it Davy keeps a reporter out of the evidence


@dataclass(frozen=True)
class Check:
    """One thing looked at; `code` is the exit code if it fails, `fix` what to do then."""

    name: str
    ok: bool
    detail: str
    code: int = OK
    fix: str = ""


def doctor(output: OutputOption = Output.TEXT) -> None:
    """Check configuration, reachability, clock, token and fleets; change nothing."""
    screen = Screen(output)
    found: list[Check] = []
    for check in _checks():
        found.append(check)
        word = "ok" if check.ok else "FAIL"
        fix = f"; {check.fix}" if check.fix and not check.ok else ""
        screen.line(f"{word:4}  {check.name}: {check.detail}{fix}", COLOURS[word])
    screen.result({"checks": [vars(check) for check in found]})
    failed = [check for check in found if not check.ok]
    screen.next("davy doctor (after the fix)" if failed else "davy status", _page())
    raise Finished(failed[0].code if failed else OK)


def _page() -> str:
    try:
        return connect().url
    except UsageError:
        return "none without DAVY_URL"


def _checks() -> Iterator[Check]:
    """Each check that makes sense after those before it."""
    try:
        client = connect()
    except UsageError as err:
        yield Check("configuration", False, str(err), USAGE, "export it")
        return
    yield Check("configuration", True, client.url)
    began = time.monotonic()
    try:
        answer = client.send("GET", "/me")
    except ApiError as err:
        if exit_code(err) == ACCESS:
            yield Check("token", False, str(err), ACCESS, "make a new token and export it as DAVY_TOKEN")
        else:
            yield Check("server", False, str(err), SERVER, "is DAVY_URL that of Davy?")
        return
    except ClientError as err:
        yield Check("server", False, str(err), SERVER, "is it running, and is DAVY_URL right?")
        return
    yield Check("server", True, f"answers in {(time.monotonic() - began) * 1000:.0f} ms")
    yield _clock(answer)
    me: dict[str, Any] = answer.json()
    yield _token(me)
    yield from _fleets(client)


def _clock(answer: Answer) -> Check:
    date = {name.lower(): value for name, value in answer.headers.items()}.get("date")
    if not date:
        return Check("clock", True, "the server does not tell its time")
    skew = time.time() - parsedate_to_datetime(date).timestamp()
    fix = "set this machine's clock: reports from here would be kept out of the evidence"
    return Check("clock", abs(skew) <= SKEW_SECONDS, f"{skew:+.0f} s against the server", USAGE, fix)


def _token(me: dict[str, Any]) -> Check:
    scopes = set(me.get("scopes") or [])
    lacking = [
        f"{scope} ({use})" for scope, use in NEEDED.items() if scope not in scopes and "admin" not in scopes
    ]
    detail = f"acts as {me.get('user')} with {', '.join(sorted(scopes)) or 'no scope'}"
    return Check("token", True, detail + (f"; it cannot: {', '.join(lacking)}" if lacking else ""))


def _fleets(client: Client) -> Iterator[Check]:
    try:
        for fleet in items(client, "/fleets"):
            answer = client.post(path("fleets", fleet["name"], "check"))
            detail = f"{fleet['driver']} answers" if answer.get("ok") else str(answer.get("detail"))
            yield Check(f"fleet {fleet['name']}", bool(answer.get("ok")), detail, SERVER)
    except ClientError as err:
        code = exit_code(err) if isinstance(err, ApiError) else SERVER
        yield Check("fleets", False, str(err), code)
