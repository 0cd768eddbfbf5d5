"""davy rollout: start one, follow it to its end, or end it."""

from __future__ import annotations

import re
from typing import Annotated

import typer

from davy.client import Client, Json, path
from davy.commands.dry_run import lines
from davy.screen import (
    COLOURS,
    ENDINGS,
    INTERRUPTED,
    Finished,
    Output,
    OutputOption,
    Screen,
    UsageError,
    page,
    rollout_line,
    session,
    tell_github,
)

app = typer.Typer(no_args_is_help=True, help="Start a rollout, follow it, end it.")

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}

RolloutId = Annotated[int, typer.Argument(metavar="ID", help="The rollout's number.")]
Timeout = Annotated[
    str, typer.Option(help="Give up waiting after this time, e.g. 90s, 45m, 2h (exit code 3).")
]
Reason = Annotated[str, typer.Option(help="Why; kept in the audit.")]


def seconds(text: str) -> float | None:
    """Seconds in a text such as "90s", "45m" or "2h"; None for no text."""
    if not text:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found:
        raise UsageError(f"{text!r} is no time; write 90s, 45m or 2h")
    return float(found[1]) * SECONDS[found[2]]


@app.command()
def start(
    model: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    fleet: Annotated[str, typer.Option(help="Where to roll out.")],
    plan: Annotated[str, typer.Option(help="A plan's name; without, the server's default.")] = "",
    dry_run: Annotated[bool, typer.Option(help="Show what would be done; change nothing.")] = False,
    wait: Annotated[bool, typer.Option(help="Follow it to its end; the exit code says which.")] = False,
    timeout: Timeout = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Move a route to a version, step by step."""
    with session(output) as (client, screen):
        limit = seconds(timeout)
        body = {"model": model, "version": version, "fleet": fleet, "dry_run": dry_run}
        found = client.post("/rollouts", {**body, **({"plan": plan} if plan else {})})
        if dry_run:
            _would(client, screen, found, model, version, fleet, plan)
        elif wait:
            _follow(client, screen, found["id"], limit)
        else:
            screen.result(found)
            screen.line(rollout_line(found))
            screen.next(f"davy rollout watch {found['id']}", page(client, "rollouts", found["id"]))


@app.command()
def plan(
    model: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    fleet: Annotated[str, typer.Option(help="Where to roll out.")],
    plan: Annotated[str, typer.Option(help="A plan's name; without, the server's default.")] = "",
    output: OutputOption = Output.TEXT,
) -> None:
    """Show what a rollout would do, and how many requests each gate would need; change nothing."""
    with session(output) as (client, screen):
        body = {"model": model, "version": version, "fleet": fleet, "dry_run": True}
        found = client.post("/rollouts", {**body, **({"plan": plan} if plan else {})})
        _would(client, screen, found, model, version, fleet, plan)


def _would(
    client: Client, screen: Screen, found: Json, model: str, version: str, fleet: str, plan_name: str
) -> None:
    """The lines of a dry run, and the command that starts it."""
    screen.result(found)
    for line in lines(model, version, fleet, found):
        screen.line(line)
    chosen = f" --plan {plan_name}" if plan_name else ""
    screen.next(f"davy rollout start {model} {version} --fleet {fleet}{chosen}", page(client, "rollouts"))


@app.command()
def watch(rollout_id: RolloutId, timeout: Timeout = "", output: OutputOption = Output.TEXT) -> None:
    """Show every change of a rollout up to its end."""
    with session(output) as (client, screen):
        _follow(client, screen, rollout_id, seconds(timeout))


@app.command()
def wait(rollout_id: RolloutId, timeout: Timeout = "", output: OutputOption = Output.TEXT) -> None:
    """Wait for a rollout's end without a word; the exit code says which."""
    with session(output) as (client, screen):
        limit = seconds(timeout)
        try:
            found = client.wait_rollout(rollout_id, limit)
        except KeyboardInterrupt:
            _left_alone(client, screen, rollout_id)
        _ended(client, screen, found)


@app.command()
def promote(rollout_id: RolloutId, reason: Reason, output: OutputOption = Output.TEXT) -> None:
    """Promote now, whatever the gates say."""
    _command("promote", rollout_id, reason, output)


@app.command()
def abort(rollout_id: RolloutId, reason: Reason, output: OutputOption = Output.TEXT) -> None:
    """Send all traffic back to stable and end the rollout."""
    _command("abort", rollout_id, reason, output)


def _command(command: str, rollout_id: int, reason: str, output: Output) -> None:
    with session(output) as (client, screen):
        found = client.post(path("rollouts", rollout_id, command), {"reason": reason})
        screen.result(found)
        screen.line(rollout_line(found))
        screen.next(f"davy rollout wait {rollout_id}", page(client, "rollouts", rollout_id))


def _follow(client: Client, screen: Screen, rollout_id: int, limit: float | None) -> None:
    """A line per change, then the end."""
    found: Json = {}
    try:
        for found in client.follow_rollout(rollout_id, limit):
            screen.line(rollout_line(found), COLOURS.get(str(found.get("state")), ""))
    except KeyboardInterrupt:
        _left_alone(client, screen, rollout_id)
    _ended(client, screen, found, said=True)


def _left_alone(client: Client, screen: Screen, rollout_id: int) -> None:
    screen.line(f"interrupted; rollout {rollout_id} is left alone and goes on")
    screen.next(f"davy rollout watch {rollout_id}", page(client, "rollouts", rollout_id))
    raise Finished(INTERRUPTED)


def _ended(client: Client, screen: Screen, rollout: Json, *, said: bool = False) -> None:
    """Say how it ended and leave with its code."""
    url, state = page(client, "rollouts", rollout["id"]), str(rollout.get("state"))
    screen.result(rollout)
    if not said:
        screen.line(rollout_line(rollout), COLOURS.get(state, ""))
    tell_github(rollout, url)
    following = f"davy status {rollout.get('model')}" if state == "promoted" else "davy doctor"
    screen.next(following, url)
    raise Finished(ENDINGS[state])
