"""What may people and pipelines do to rollouts? Start, pause, resume, promote, roll back, abort, retry."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction

from controlplane import alerts, audit, fleets, problems
from controlplane.models import Fleet, ModelVersion, Route, Severity, User
from controlplane.problems import Problem
from monitoring import references
from rollout import approvals, drivers, gates, golden, journal, phases, plan
from rollout.drivers.base import LimitsWeights, Mirrors
from rollout.models import ACTIVE, Rollout, RolloutEvent
from rollout.phases import CommandRefusedError, Phase
from rollout.plan import Plan
from rollout.plans import stored

COMMANDS = ("pause", "resume", "promote", "rollback", "abort")
ATTEMPTS = 5


def read_plan(given: str | Mapping[str, Any] | None) -> Plan:
    """The plan of that name (None: standard), or an inline one. A problem names the wrong field under /plan."""
    return stored.read(given)


def start(
    version: ModelVersion, fleet: Fleet, chosen: Plan, *, actor: str, now: datetime, direct: bool = False
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
            return already_stable(route, version), False
        direct = direct or was_stable_lately(route, version, chosen, now)
        if not direct:
            check_fit(version, route, chosen)
        rollout = Rollout.objects.create(
            route=route,
            version=version,
            stable=route.stable,
            started_by=actor,
            plan_name=chosen.name,
            plan=chosen.to_json(),
            direct=direct,
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


def check_fit(version: ModelVersion, route: Route, chosen: Plan) -> None:
    """Refuse what the plan could never do with this version on this fleet. Raises Problem naming the field."""
    check_references(version, route.stable, chosen)
    golden.check(version, route.stable, chosen)
    driver = drivers.of(route.fleet)
    if isinstance(driver, LimitsWeights):
        _check_weights(driver, route.fleet, chosen)
    if chosen.shadow is not None and not isinstance(driver, Mirrors):
        detail = f"the driver {route.fleet.driver} of {route.fleet.name} cannot mirror requests"
        raise problems.field(
            "/plan/shadow", "no_mirroring", f"{detail}: take `shadow` out of plan {chosen.name}"
        )


def _check_weights(driver: LimitsWeights, fleet: Fleet, chosen: Plan) -> None:
    """Refuse weights that the fleet's router cannot apply."""
    weights = {f"steps/{i}/weight_percent": step.weight_percent for i, step in enumerate(chosen.steps)}
    for where, percent in {**weights, "holdback_percent": chosen.holdback_percent}.items():
        refusal = driver.why_not(percent)
        if refusal:
            raise problems.field(f"/plan/{where}", "weight_not_possible", f"{fleet.name}: {refusal}")


def check_references(version: ModelVersion, stable: ModelVersion | None, chosen: Plan) -> None:
    """Refuse a version without a frozen reference where a gate of the plan compares with it; stable needs one, too."""
    needing = [spec.name for spec in chosen.statistical if gates.get(spec.name).needs_reference]
    if not needing:
        return
    who = f"{', '.join(needing)} of plan {chosen.name}"
    wants = f"which {who} compares with: freeze it, or take the gate out of the plan"
    if references.shape_of(version) is None:
        raise problems.field("/version", "no_reference", f"{version} has no reference, {wants}")
    if stable is not None and references.shape_of(stable) is None:
        detail = f"the stable version {stable} has no reference, {wants}"
        raise problems.field("/version", "no_reference", detail)


def was_stable_lately(route: Route, version: ModelVersion, chosen: Plan, now: datetime) -> bool:
    """Whether the version was replaced on this route within the plan's rollback window."""
    since = now - timedelta(seconds=chosen.rollback_window_seconds)
    replaced = Rollout.objects.filter(route=route, stable=version, version=route.stable)
    swapped = RolloutEvent.objects.filter(rollout__in=replaced, state=Phase.WATCHING, at__gt=since)
    return swapped.exists()


def already_stable(route: Route, version: ModelVersion) -> Rollout:
    """The last rollout of the route's stable version; a 409 problem where it had none."""
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
    """Carry out one command; the next tick moves the traffic. Raises Problem (403, 404, 409, 422)."""
    check_reason(reason)

    def change(chosen: Plan, at: phases.Position) -> phases.Position:
        if command == "promote":
            approvals.check_promotion(find(rollout_id), chosen, at, actor, now)
        try:
            return phases.command(chosen, at, command, now, f"{reason} ({actor})")
        except CommandRefusedError as err:
            raise Problem(409, "not_now", str(err)) from None

    with transaction.atomic():
        rollout = _change(rollout_id, change, actor=actor, now=now)
        audit.record(actor, f"rollout.{command}", f"rollout {rollout_id}", reason)
    return rollout


def approve(
    rollout_id: int,
    user: User,
    *,
    decision: str = "approve",
    reason: str,
    now: datetime,
    weight_percent: float | None = None,
) -> Rollout:
    """Store a person's yes or no ("reject") to what comes next; the next tick heeds it. See rollout.approvals."""
    check_reason(reason)
    with transaction.atomic():
        Rollout.objects.select_for_update().filter(pk=rollout_id).first()  # no tick moves it on meanwhile
        rollout = find(rollout_id)
        approvals.decide(rollout, user, decision, reason=reason, now=now, weight_percent=weight_percent)
    return rollout


def check_reason(reason: str) -> None:
    """A problem when nothing is said."""
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
    check_reason(reason)
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
