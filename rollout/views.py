"""Where does a rollout stand, why, and what can a person do about it? The pages about rollouts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.db.models import F
from django.db.models.functions import Mod
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils import timezone

from controlplane.problems import Problem
from controlplane.views import act, live, may, person, reason_of, signed_in
from rollout import approvals, commands
from rollout.evidence.labelled import mirrored
from rollout.models import Evidence, Rollout, RolloutEvent

ROLLOUTS_SHOWN = 100
POINTS_SHOWN = 1500  # of the evidence chart; longer rollouts are thinned
EVENTS_SHOWN = 200
CELLS_SHOWN = 10  # kinds of disagreement
PROMOTE_AT = math.log(20)  # a gate passes at e ≥ 20
STOPPED = ("rolling_back", "rolled_back", "aborted", "superseded", "failed")
SHOWN_ON_CHART = ("running", "paused", "held", "promoting", "rolling_back")
AFTER_STEPS = ("promoting", "watching", "promoted")
BEGUN = ("running", "paused", "held", "promoting")
ENDED_EARLY = ("rolled_back", "aborted", "superseded", "failed")
COMMANDS = {  # what makes sense in which state; phases.command has the last word
    "pending": ("abort",),
    "running": ("promote", "pause", "abort", "rollback"),
    "held": ("promote", "pause", "abort", "rollback"),
    "paused": ("resume", "promote", "abort", "rollback"),
    "promoting": ("abort", "rollback"),
    "watching": ("abort", "rollback"),
}
WORDS = {
    "promote": "Promote",
    "pause": "Pause",
    "resume": "Resume",
    "abort": "Abort",
    "rollback": "Roll back",
    "approve": "Approve",
    "reject": "Reject",
}
DECISIONS = ("approve", "reject")
ICONS = {
    "promote": "up",
    "pause": "pause",
    "resume": "play",
    "abort": "stop",
    "rollback": "undo",
    "approve": "check",
    "reject": "cross",
}


@dataclass(frozen=True)
class Stop:
    """One stop of the timeline; `status` is done, now, stopped or ahead."""

    name: str
    note: str
    status: str
    icon: str
    reached_at: datetime | None


@signed_in
def rollout_list(request: HttpRequest) -> HttpResponse:
    """The latest rollouts, those that are not over first; ?state= shows one state."""
    state = request.GET.get("state", "")
    found = Rollout.objects.select_related("version__model", "stable", "route__fleet", "route__model")
    found = found.defer("judge", "plan", "gates").order_by(F("ended_at").desc(nulls_first=True), "-id")
    if state in Rollout.State.values:
        found = found.filter(state=state)
    context = {"rollouts": found[:ROLLOUTS_SHOWN], "state": state, "states": Rollout.State.choices}
    return live(request, "rollout/list.html", "rollout/_list.html", context)


@signed_in
def rollout_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One rollout: state and reason, weights, timeline, gates, evidence, log, and what may be done."""
    rollout = get_object_or_404(
        Rollout.objects.select_related("version__model", "stable", "route__fleet", "route__model").defer(
            "judge"
        ),
        pk=pk,
    )
    events = list(rollout.events.order_by("-id")[:EVENTS_SHOWN])
    line = -math.log(rollout.plan.get("alpha", 0.01))
    evidence = series(_points(rollout), rollout.plan.get("gates", []))
    asked = DECISIONS if approvals.wanted_from(rollout, person(request), timezone.now()) else ()
    context = {
        "rollout": rollout,
        "timeline": timeline(rollout, events),
        "events": events,
        "rollback_line": line,
        "promote_line": PROMOTE_AT,
        "gates": _gates(rollout),
        "mirrored": mirrored(rollout, CELLS_SHOWN),
        "acts": [(name, WORDS[name], ICONS[name]) for name in (*asked, *COMMANDS.get(rollout.state, ()))],
        "may_act": may(request, "deploy"),
        # what the route's weight is now is about its latest rollout, not about those before
        "is_latest": not Rollout.objects.filter(route=rollout.route_id, pk__gt=pk).exists(),
        "latest_log_e": evidence["combined"][-1][1] if evidence["combined"] else None,
        "evidence": {
            **evidence,
            "rollback_line": line,
            "promote_line": PROMOTE_AT,
            "events": [
                [
                    _milliseconds(event.at),
                    f"{event.weight_percent:g} %" if event.state == "running" else event.state,
                ]
                for event in reversed(events)
                if event.kind == "state" and event.state in SHOWN_ON_CHART
            ],
        },
    }
    return live(request, "rollout/detail.html", "rollout/_detail.html", context)


@act("deploy")
def rollout_act(request: HttpRequest, pk: int) -> HttpResponse:
    """Promote, pause, resume, abort or roll back, with a reason; then show the rollout again."""
    command, now = request.POST.get("command", ""), timezone.now()
    try:
        if command in DECISIONS:
            seen = _weight_seen(request)
            commands.approve(
                pk, person(request), decision=command, reason=reason_of(request), now=now, weight_percent=seen
            )
        else:
            commands.act(pk, command, actor=person(request).username, reason=reason_of(request), now=now)
        messages.success(request, f"{WORDS.get(command, command)}: done, and written to the log.")
    except Problem as problem:
        messages.error(request, problem.detail)
    return redirect("rollout", pk=pk)


def _weight_seen(request: HttpRequest) -> float:
    """The canary's share when the page was shown: a yes to one step is not a yes to the next."""
    try:
        return float(request.POST.get("weight_percent", ""))
    except ValueError:
        raise Problem(
            422, "weight_missing", "The page did not say which step it showed; load it again."
        ) from None


def _gates(rollout: Rollout) -> list[dict[str, Any]]:
    """The latest verdicts; `on_fail` of those that are holds."""
    holds = {g["name"]: g["on_fail"] for g in rollout.plan.get("gates", []) if g.get("kind") == "hold"}
    return [{**gate, "on_fail": holds.get(gate["name"], "")} for gate in rollout.gates]


def timeline(rollout: Rollout, events: Sequence[RolloutEvent]) -> list[Stop]:
    """What a rollout passes through, each stop with what has become of it; `events` are the latest first."""
    places = _places(rollout, events)
    keys = [key for _, _, key in places]
    now = _present(rollout, events)
    at = len(places) if now == "promoted" else keys.index(now) if now in keys else -1
    reached: dict[object, datetime] = {}
    for event in events:  # the earliest of each remains
        reached[_place_of(rollout, event)] = event.at
    stops = []
    for index, (name, note, key) in enumerate(places):
        status = _status(rollout.state, index, at)
        stops.append(Stop(name, note, status, _icon(status, rollout.state), reached.get(key)))
    return stops


def _places(rollout: Rollout, events: Sequence[RolloutEvent]) -> list[tuple[str, str, object]]:
    """(name, note, key) of each stop: mirroring, the steps by their index, the promotion, the watch."""
    plan = rollout.plan
    places: list[tuple[str, str, object]] = []
    if _never_began(rollout, events):
        places.append(("Load", "ended before any traffic", "load"))
    if rollout.stable_id is None:  # there is nothing to compare it with
        return [*places, ("100 %", "first version: without analysis", "promoting")]
    if plan.get("shadow"):
        places.append(("Mirror", f"{plan['shadow']['percent']:g} % of live requests copied", "mirror"))
    places += [
        (f"{step['weight_percent']:g} %", f"at least {step['dwell_seconds']:g} s", i)
        for i, step in enumerate(plan.get("steps", []))
    ]
    watch = plan.get("watch_seconds")
    kept_warm = f"{watch:g} s" if isinstance(watch, int | float) else "old version kept warm"
    return [*places, ("100 %", "roles swap", "promoting"), ("Watch", kept_warm, "watching")]


def _present(rollout: Rollout, events: Sequence[RolloutEvent]) -> object:
    """The key of the stop where the rollout is, or where it ended; None before the first."""
    if rollout.state in ("pending", *AFTER_STEPS):
        return None if rollout.state == "pending" else rollout.state
    if _never_began(rollout, events):
        return "load"
    if rollout.stable_id is None:
        return "promoting"
    had_traffic = rollout.step or any(event.weight_percent for event in events)
    mirrors = rollout.plan.get("shadow") and not rollout.weight_percent and not had_traffic
    return "mirror" if mirrors else rollout.step


def _never_began(rollout: Rollout, events: Sequence[RolloutEvent]) -> bool:
    began = rollout.step or any(event.state in BEGUN for event in events)
    return rollout.state in ENDED_EARLY and not began


def _place_of(rollout: Rollout, event: RolloutEvent) -> object:
    """The key of the stop that an event of the log reaches; None for any other event."""
    if event.state in AFTER_STEPS:
        return event.state
    if event.state != "running":
        return None
    return event.step if event.weight_percent or not rollout.plan.get("shadow") else "mirror"


def _status(state: str, index: int, at: int) -> str:
    if index < at:
        return "done"
    if index > at:
        return "ahead"
    return "stopped" if state in STOPPED else "now"


def _icon(status: str, state: str) -> str:
    if status == "now":
        return {"paused": "pause", "held": "hourglass", "watching": "eye", "promoting": "up"}.get(
            state, "play"
        )
    stopped = "cross" if state == "failed" else "undo"
    return {"done": "check", "stopped": stopped, "ahead": "dots"}[status]


def _points(rollout: Rollout) -> Iterable[tuple[str, datetime, Mapping[str, float]]]:
    """(gate, end, log e) in order of time, thinned to about POINTS_SHOWN rows."""
    rows = Evidence.objects.filter(rollout=rollout).order_by("end", "id")
    every = math.ceil(rows.count() / POINTS_SHOWN)
    if every > 1:
        rows = rows.annotate(place=Mod("id", every)).filter(place=0)
    return rows.values_list("gate", "end", "log_e")


def series(
    points: Iterable[tuple[str, datetime, Mapping[str, float]]], gates: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """What the evidence chart draws: per gate log e against and for the canary, and all gates combined.

    Combined is log Σ w·e with the plan's weights normalised over the gates that count (judge.md rule 10); a gate
    without evidence counts as e = 1.
    """
    judged = [gate for gate in gates if gate.get("kind") != "hold" and not gate.get("dry_run")]
    weights = {gate["name"]: float(gate.get("weight", 1)) for gate in judged}
    whole = sum(weights.values())
    latest = dict.fromkeys(weights, 0.0)
    found: dict[str, dict[str, list[list[float]]]] = {}
    combined: list[list[float]] = []
    for gate, end, log_e in points:
        at = _milliseconds(end)
        lines = found.setdefault(gate, {"fail": [], "pass": []})
        for side, line in lines.items():
            line.append([at, round(log_e[side], 4)])
        if gate in latest:
            latest[gate] = log_e["fail"]
            combined.append([at, round(_combine(latest, weights, whole), 4)])
    return {"gates": [{"name": name, **lines} for name, lines in found.items()], "combined": combined}


def _combine(log_e: Mapping[str, float], weights: Mapping[str, float], whole: float) -> float:
    top = max(log_e.values())
    return top + math.log(sum(weights[name] / whole * math.exp(value - top) for name, value in log_e.items()))


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
