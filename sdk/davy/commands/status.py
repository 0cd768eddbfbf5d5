"""davy status: what is live, and what is moving?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from davy.client import Client, path
from davy.screen import COLOURS, Output, OutputOption, page, rollout_line, session


def items(client: Client, where: str, **params: str) -> list[Any]:
    """All items of a paged list."""
    found: list[Any] = []
    cursor: str | None = None
    while True:
        answer = client.get(where, {**params, **({"cursor": cursor} if cursor else {})})
        found += answer["items"]
        cursor = answer.get("next")
        if not cursor:
            return found


def status(
    model: Annotated[str, typer.Argument(help="Only this model.")] = "", output: OutputOption = Output.TEXT
) -> None:
    """Show each route's versions and weights, and the rollouts under way."""
    with session(output) as (client, screen):
        if model:
            client.get(path("models", model))  # an unknown one is an error, not an empty list
        fleets = items(client, "/fleets")
        rollouts = items(client, "/rollouts", state="active", **({"model": model} if model else {}))
        routes = [
            {"fleet": fleet["name"], **route}
            for fleet in fleets
            for route in fleet["routes"]
            if not model or route["model"] == model
        ]
        screen.result({"routes": routes, "rollouts": rollouts})
        for route in routes:
            screen.line(_route_line(route))
        if not routes:
            screen.line("no routes yet" if not model else f"{model} is on no fleet yet")
        for rollout in rollouts:
            screen.line(rollout_line(rollout), COLOURS.get(str(rollout.get("state")), ""))
        following = (
            f"davy rollout watch {rollouts[0]['id']}" if rollouts else "davy rollout start <model> <version>"
        )
        screen.next(following, page(client, "models", model) if model else client.url)


def _route_line(route: dict[str, Any]) -> str:
    line = f"{route['fleet']}  {route['model']}  stable {route.get('stable') or 'none'}"
    if not route.get("canary"):
        return line
    observed = route.get("observed_weight_percent")
    seen = "unknown" if observed is None else f"{observed:g} %"
    return f"{line}  canary {route['canary']} at {route.get('weight_percent'):g} % (observed {seen})"
