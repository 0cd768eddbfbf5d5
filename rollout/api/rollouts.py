"""JSON for fleets and rollouts."""

from __future__ import annotations

import time
from typing import Any, Literal

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router

from controlplane import fleets, http, problems, registry
from controlplane.models import Fleet, ModelVersion, Route
from controlplane.problems import Problem
from rollout import commands, drivers, plan, waves
from rollout.api.waves import waves_json
from rollout.drivers.base import DriverError
from rollout.dry_run import dry_run
from rollout.models import ACTIVE, Evidence, Rollout, RolloutEvent

router = Router()

WAIT_STEP_SECONDS = 0.5
WAIT_MOST_SECONDS = 60.0


class NewFleet(http.Body):
    """POST /fleets."""

    name: str
    driver: str
    config: dict[str, Any] = {}


class NewRollout(http.Body):
    """POST /rollouts."""

    model: str
    version: str
    fleet: str | None = None
    fleets: list[list[str]] | None = None  # waves
    plan: str | dict[str, Any] | None = None
    dry_run: bool = False


class Reason(http.Body):
    """The body of a command."""

    reason: str


class Decision(Reason):
    """POST /rollouts/{id}/approve."""

    decision: Literal["approve", "reject"] = "approve"
    weight_percent: float | None = None  # where the person saw the rollout: 409 when it has moved on since


def _route_json(route: Route) -> dict[str, Any]:
    return {
        "model": route.model.name,
        "stable": route.stable.name if route.stable else None,
        "stable_slot": route.stable_slot,
        "canary": route.canary.name if route.canary else None,
        "weight_percent": route.weight_percent,
        "observed_weight_percent": route.observed_weight_percent,
        "observed_at": route.observed_at,
        "cache_epoch": route.cache_epoch,
    }


def _fleet_json(fleet: Fleet) -> dict[str, Any]:
    routes = fleet.routes.select_related("model", "stable", "canary").order_by("model__name")
    return {
        "name": fleet.name,
        "driver": fleet.driver,
        "config": fleets.shown(fleet.config),
        "routes": [_route_json(route) for route in routes],
        "created_at": fleet.created_at,
    }


@router.get("/fleets", auth=http.scope("read"))
def list_fleets(request: HttpRequest) -> HttpResponse:
    """All fleets with their routes."""
    return http.paginate(request, Fleet.objects.all(), _fleet_json, order="name")


@router.post("/fleets", auth=http.scope("admin"))
def create_fleet(request: HttpRequest, body: NewFleet) -> HttpResponse:
    """Make a fleet; the same name and driver again takes the new config."""
    registry.check_name(body.name, "/name")
    try:
        secrets = drivers.secret_fields(body.driver)
        config = fleets.with_kept_secrets(body.name, body.config, secrets)
        drivers.make(body.driver, config, body.name)
    except LookupError as err:
        raise problems.field("/driver", "unknown_driver", str(err.args[0])) from None
    except ValueError as err:
        key, _, detail = str(err).partition(": ")
        raise problems.field(f"/config/{key}", "bad_config", detail or str(err)) from None
    fleet, created = fleets.save(body.name, body.driver, config, secrets, actor=http.actor(request))
    return JsonResponse(_fleet_json(fleet), status=201 if created else 200)


@router.get("/fleets/{fleet}", auth=http.scope("read"))
def show_fleet(request: HttpRequest, fleet: str) -> HttpResponse:
    """One fleet: each route's stable, canary, asked and observed weight."""
    return JsonResponse(_fleet_json(fleets.get_fleet(fleet)))


@router.post("/fleets/{fleet}/check", auth=http.scope("read"))
def check_fleet(request: HttpRequest, fleet: str) -> HttpResponse:
    """Ask the fleet what it is and whether it answers; changes nothing."""
    found = fleets.get_fleet(fleet)
    try:
        return JsonResponse({"ok": True, **drivers.check(found)})
    except DriverError as err:
        return JsonResponse({"ok": False, "detail": str(err), "retry": err.retry})


def rollout_json(rollout: Rollout) -> dict[str, Any]:
    """A rollout as REST shows it; the weights are the new version's share of the route's traffic."""
    route, over = rollout.route, rollout.state not in ACTIVE
    is_stable = route.stable_id == rollout.version_id
    observed = route.observed_weight_percent
    if observed is not None and is_stable:
        observed = 100 - observed
    elif over and route.canary_id != rollout.version_id:
        observed = 0.0  # the canary's share is another version's
    return {
        "id": rollout.pk,
        "model": rollout.version.model.name,
        "version": rollout.version.name,
        "stable": rollout.stable.name if rollout.stable else None,
        "fleet": route.fleet.name,
        "plan": rollout.plan,
        "state": rollout.state,
        "step": rollout.step,
        "weight_percent": 100.0 if is_stable else rollout.weight_percent,
        "observed_weight_percent": observed,
        "observed_at": route.observed_at,
        "reason": rollout.reason,
        "trouble": rollout.trouble,
        "gates": rollout.gates,
        "started_by": rollout.started_by,
        "started_at": rollout.started_at,
        "step_entered_at": rollout.step_entered_at,
        "ended_at": rollout.ended_at if over else None,
    }


def _rollouts() -> Any:
    return Rollout.objects.select_related("version__model", "stable", "route__fleet", "route__model")


@router.get("/rollouts", auth=http.scope("read"))
def list_rollouts(request: HttpRequest) -> HttpResponse:
    """Rollouts, the latest first; ?state=, ?model=."""
    rows = _rollouts()
    state, model = request.GET.get("state"), request.GET.get("model")
    if state is not None:
        if state not in (*Rollout.State.values, "active"):
            raise problems.field("/state", "unknown_state", f"no state {state!r}")
        rows = rows.filter(state__in=ACTIVE if state == "active" else [state])
    if model is not None:
        rows = rows.filter(version__model=registry.get_model(model))
    return http.paginate(request, rows, rollout_json)


@router.post("/rollouts", auth=http.scope("deploy"))
def create_rollout(request: HttpRequest, body: NewRollout) -> HttpResponse:
    """Start a rollout: 201, or 200 with the one that the version already has. With `fleets`: waves of rollouts."""
    version = registry.get_version(body.model, body.version)
    if (body.fleet is None) == (body.fleets is None):
        raise problems.field("/fleet", "fleet_or_fleets", "either `fleet` or `fleets` (waves) is needed")
    chosen = commands.read_plan(body.plan)
    if body.fleets is not None:
        return _start_waves(request, version, chosen, body)
    fleet = fleets.get_fleet(body.fleet or "")
    if body.dry_run:
        return JsonResponse(dry_run(version, fleet, chosen, timezone.now()))
    rollout, created = commands.start(version, fleet, chosen, actor=http.actor(request), now=timezone.now())
    return JsonResponse(rollout_json(commands.find(rollout.pk)), status=201 if created else 200)


def _start_waves(
    request: HttpRequest, version: ModelVersion, chosen: plan.Plan, body: NewRollout
) -> HttpResponse:
    found = waves.read(body.fleets or [])
    if body.dry_run:
        now = timezone.now()
        would = [[dry_run(version, fleet, chosen, now) for fleet in wave] for wave in found]
        return JsonResponse({"dry_run": True, "fleets": body.fleets, "rollouts": would})
    made = waves.start(version, found, chosen, actor=http.actor(request), now=timezone.now())
    return JsonResponse(waves_json(made), status=201)


@router.get("/rollouts/{rollout_id}", auth=http.scope("read"))
def show_rollout(request: HttpRequest, rollout_id: int) -> HttpResponse:
    """One rollout; ?wait=terminal&timeout=55 answers when it is over or the time is up."""
    wait = request.GET.get("wait")
    if wait not in (None, "terminal"):
        raise problems.field("/wait", "unknown_wait", "the only thing to wait for is `terminal`")
    deadline = time.monotonic() + (_timeout(request) if wait else 0)
    while True:
        rollout = commands.find(rollout_id)
        if rollout.state not in ACTIVE or time.monotonic() >= deadline:
            return JsonResponse(rollout_json(rollout))
        time.sleep(WAIT_STEP_SECONDS)


def _timeout(request: HttpRequest) -> float:
    text = request.GET.get("timeout", "55")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= WAIT_MOST_SECONDS:
        raise problems.field("/timeout", "bad_timeout", f"seconds from 0 to {WAIT_MOST_SECONDS:.0f}")
    return seconds


@router.get("/rollouts/{rollout_id}/events", auth=http.scope("read"))
def list_events(request: HttpRequest, rollout_id: int) -> HttpResponse:
    """The rollout's log, oldest first."""
    rows = RolloutEvent.objects.filter(rollout=commands.find(rollout_id))
    return http.paginate(request, rows, _event_json, order="id")


def _event_json(event: RolloutEvent) -> dict[str, Any]:
    return {
        "at": event.at,
        "kind": event.kind,
        "state": event.state,
        "step": event.step,
        "weight_percent": event.weight_percent,
        "actor": event.actor,
        "reason": event.reason,
    }


@router.get("/rollouts/{rollout_id}/evidence", auth=http.scope("read"))
def list_evidence(request: HttpRequest, rollout_id: int) -> HttpResponse:
    """Every interval that was evidence, oldest first; ?gate=. Absorbing them again gives the same verdict."""
    rows = Evidence.objects.filter(rollout=commands.find(rollout_id))
    gate = request.GET.get("gate")
    if gate is not None:
        rows = rows.filter(gate=gate)
    return http.paginate(request, rows, _evidence_json, order="id")


def _evidence_json(row: Evidence) -> dict[str, Any]:
    return {
        "gate": row.gate,
        "source": row.source,
        "from": row.start,
        "to": row.end,
        "step": row.step,
        "weight_percent": row.weight_percent,
        "arms": row.arms,
        "log_e": row.log_e,
    }


@router.post("/rollouts/{rollout_id}/approve", auth=http.scope("deploy"))
def approve_rollout(request: HttpRequest, rollout_id: int, body: Decision) -> HttpResponse:
    """Say yes (or `"decision": "reject"`) to what comes next, where the plan asks for approval, with a reason."""
    rollout = commands.approve(
        rollout_id,
        http.person(request),
        decision=body.decision,
        reason=body.reason,
        now=timezone.now(),
        weight_percent=body.weight_percent,
    )
    return JsonResponse(rollout_json(rollout), status=202)


@router.post("/rollouts/{rollout_id}/{command}", auth=http.scope("deploy"))
def command_rollout(request: HttpRequest, rollout_id: int, command: str, body: Reason) -> HttpResponse:
    """pause, resume, promote, rollback, abort or retry, with a reason."""
    actor, now = http.actor(request), timezone.now()
    if command == "retry":
        rollout = commands.retry(rollout_id, actor=actor, reason=body.reason, now=now)
    elif command in commands.COMMANDS:
        rollout = commands.act(rollout_id, command, actor=actor, reason=body.reason, now=now)
    else:
        raise Problem(404, "unknown_command", f"no command {command!r}")
    return JsonResponse(rollout_json(commands.find(rollout.pk)), status=202)
