"""What may people and pipelines do to rollouts? Start, pause, resume, promote, roll back, abort, retry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from controlplane import alerts, audit, fleets, problems
from controlplane.models import Fleet, ModelVersion, Route, Severity
from controlplane.problems import Problem
from rollout import gates, journal, phases, plan
from rollout.models import ACTIVE, Rollout
from rollout.phases import CommandRefusedError, Phase
from rollout.plan import Plan

COMMANDS = ("pause", "resume", "promote", "rollback", "abort")
ATTEMPTS = 5


def read_plan(given: str | Mapping[str, Any] | None) -> Plan:
    """The plan of that name (None: standard), or an inline one. A problem names the wrong field under /plan."""
    try:
        raw = plan.template(given or "standard") if given is None or isinstance(given, str) else given
    except LookupError as err:
        raise problems.field("/plan", "unknown_plan", str(err.args[0]), status=404) from None
    try:
        return plan.parse(raw, gates.check)
    except plan.PlanError as err:
        raise problems.field(f"/plan{err.pointer}", "bad_plan", err.detail) from None


def start(
    version: ModelVersion, fleet: Fleet, chosen: Plan, *, actor: str, now: datetime
) -> tuple[Rollout, bool]:
    """Start moving the version's route on the fleet; return the rollout and whether it is new.

    The same version again returns the rollout it already has. A newer version supersedes the one under way: that one
    goes to weight 0 first. The stable version itself rolls a canary back at once.
    """
    if version.retired_at is not None:
        raise problems.field("/version", "retired", f"{version} is retired", status=409)
    with transaction.atomic():
        made, _ = Route.objects.get_or_create(model=version.model, fleet=fleet)
        route = Route.objects.select_for_update().get(pk=made.pk)
        active = list(Rollout.objects.filter(route=route, state__in=ACTIVE).select_related("version"))
        same = [r for r in active if r.version_id == version.pk and r.state != Phase.ROLLING_BACK]
        if same:
            return same[0], False
        for rollout in active:
            _supersede(rollout.pk, version, actor, now)
        route.refresh_from_db()
        if route.stable_id == version.pk:
            return _already_stable(route, version), False
        rollout = Rollout.objects.create(
            route=route,
            version=version,
            stable=route.stable,
            plan_name=chosen.name,
            plan=chosen.to_json(),
            started_at=now,
            state_entered_at=now,
            reason="waits for its first tick",
        )
        audit.record(
            actor,
            "rollout.start",
            f"rollout {rollout.pk}",
            detail={"version": str(version), "fleet": fleet.name},
        )
    return rollout, True


def _already_stable(route: Route, version: ModelVersion) -> Rollout:
    last = Rollout.objects.filter(route=route, version=version).order_by("-pk").first()
    if last is None:
        raise problems.field(
            "/version", "already_stable", f"{version} is stable on {route.fleet.name}", status=409
        )
    return last


def _supersede(rollout_id: int, by: ModelVersion, actor: str, now: datetime) -> None:
    """End a rollout because another version was submitted; one that is only watched ends promoted."""
    reason = f"superseded by {by.name}"

    def change(chosen: Plan, at: phases.Position) -> phases.Position:
        return phases.supersede(at, now, reason)

    _change(rollout_id, change, actor=actor, now=now)


def act(rollout_id: int, command: str, *, actor: str, reason: str, now: datetime) -> Rollout:
    """Carry out one command; the next tick moves the traffic. Raises Problem (404, 409, 422)."""
    _check_reason(reason)

    def change(chosen: Plan, at: phases.Position) -> phases.Position:
        try:
            return phases.command(chosen, at, command, now, f"{reason} ({actor})")
        except CommandRefusedError as err:
            raise Problem(409, "not_now", str(err)) from None

    with transaction.atomic():
        rollout = _change(rollout_id, change, actor=actor, now=now)
        audit.record(actor, f"rollout.{command}", f"rollout {rollout_id}", reason)
    return rollout


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise problems.field("/reason", "required", "say why, for those who read the log")


def _change(rollout_id: int, change: Any, *, actor: str, now: datetime) -> Rollout:
    """Apply a change of position; a tick that saved in between is read again."""
    for _ in range(ATTEMPTS):
        rollout = find(rollout_id)
        before = journal.position(rollout)
        after = change(plan.load(rollout.plan), before)
        with transaction.atomic():
            if after == before or journal.save(rollout, before, after, now=now, columns={}, actor=actor):
                return find(rollout_id)
    raise Problem(409, "busy", f"rollout {rollout_id} kept changing; try again")


def find(rollout_id: int) -> Rollout:
    """The rollout; a 404 problem when there is none."""
    related = ("route__model", "route__fleet", "route__stable", "version__model", "stable__model")
    rollout = Rollout.objects.select_related(*related).filter(pk=rollout_id).first()
    if rollout is None:
        raise Problem(404, "unknown_rollout", f"no rollout {rollout_id}")
    return rollout


def retry(rollout_id: int, *, actor: str, reason: str, now: datetime) -> Rollout:
    """Start the same version with the same plan again: first step, fresh evidence, a fresh α."""
    _check_reason(reason)
    old = find(rollout_id)
    if old.state in ACTIVE:
        raise Problem(
            409, "not_now", f"rollout {rollout_id} is {old.state}; only one that is over can be retried"
        )
    rollout, _ = start(old.version, old.route.fleet, plan.load(old.plan), actor=actor, now=now)
    audit.record(actor, "rollout.retry", f"rollout {rollout.pk}", reason, {"of": old.pk})
    return rollout


def start_requested(now: datetime) -> int:
    """Start what MLflow's tags asked for (`requested_fleet`), each request once; returns how many were started.

    One that cannot be started is told by an alert and does not stop the others.
    """
    started = 0
    asked = ModelVersion.objects.exclude(requested_fleet="").select_related("model").order_by("pk")
    for version in asked:
        wanted = version.requested_plan or "standard"
        with transaction.atomic():
            unclaimed = ModelVersion.objects.filter(pk=version.pk, requested_fleet=version.requested_fleet)
            # the plan's name stays: tags that are read again find that they have been obeyed
            if unclaimed.update(requested_fleet="", requested_plan=wanted):
                started += _start_requested(version, wanted, now)
    return started


def _start_requested(version: ModelVersion, wanted: str, now: datetime) -> bool:
    try:
        with transaction.atomic():
            fleet = fleets.get_fleet(version.requested_fleet)
            start(version, fleet, read_plan(wanted), actor="mlflow", now=now)
    except Problem as err:
        alerts.open(
            f"rollout/request/{version.model.name}/{version.name}",
            severity=Severity.WARNING,
            summary=f"{version} was not rolled out as MLflow's tags ask: {err.detail}; start its rollout by hand",
            now=now,
            model=version.model,
            version=version,
        )
        return False
    return True
