"""How does one version reach several fleets, wave after wave? Each fleet has a rollout of its own, with its own α.

A wave starts when every rollout of the wave before it is promoted (its watch is over). Whatever ends otherwise, or an
abort, stops all waves and takes the fleets that moved back to the version they had.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction

from controlplane import alerts, audit, fleets, problems
from controlplane.models import Fleet, ModelVersion, Route, Severity
from controlplane.problems import Problem
from rollout import commands, plan
from rollout.models import ACTIVE, Rollout, Waves
from rollout.phases import Phase
from rollout.plan import Plan

MOST_FLEETS = 500


def read(given: Sequence[Sequence[str]]) -> list[list[Fleet]]:
    """The fleets of each wave. Raises Problem naming the wrong entry under /fleets."""
    if not given or not all(given):
        raise problems.field(
            "/fleets", "empty_wave", "at least one wave, with at least one fleet each, is needed"
        )
    names = [name for wave in given for name in wave]
    if len(names) > MOST_FLEETS:
        raise problems.field("/fleets", "too_many", f"{len(names)} fleets; at most {MOST_FLEETS}")
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise problems.field("/fleets", "fleet_twice", f"{repeated} stands twice")
    return [
        [fleets.get_fleet(name, f"/fleets/{i}/{j}") for j, name in enumerate(wave)]
        for i, wave in enumerate(given)
    ]


def start(
    version: ModelVersion, waves: list[list[Fleet]], chosen: Plan, *, actor: str, now: datetime
) -> Waves:
    """Start the first wave; the others follow by `keep`. All of it is stored, or nothing.

    What no fleet's rollout could be started with is refused now, not when its wave has come.
    """
    for fleet in (fleet for wave in waves[1:] for fleet in wave):
        _check_fit(version, fleet, chosen, now)
    with transaction.atomic():
        made = Waves.objects.create(
            version=version,
            plan_name=chosen.name,
            plan=chosen.to_json(),
            fleets=[[fleet.name for fleet in wave] for wave in waves],
            actor=actor,
            started_at=now,
            reason=f"wave 1 of {len(waves)} is under way",
        )
        _start_wave(made, 0, now)
        audit.record(actor, "waves.start", f"waves {made.pk}", detail={"fleets": made.fleets})
    return made


def _check_fit(version: ModelVersion, fleet: Fleet, chosen: Plan, now: datetime) -> None:
    kept = Route.objects.filter(model=version.model, fleet=fleet).select_related("fleet", "stable").first()
    route = kept or Route(model=version.model, fleet=fleet)
    if route.stable_id == version.pk or (kept and commands.was_stable_lately(kept, version, chosen, now)):
        return
    commands.check_fit(version, route, chosen)


def _start_wave(waves: Waves, number: int, now: datetime) -> None:
    chosen = plan.load(waves.plan)
    for name in waves.fleets[number]:
        fleet = fleets.get_fleet(name)
        rollout, _ = commands.start(waves.version, fleet, chosen, actor=waves.actor, now=now)
        Rollout.objects.filter(pk=rollout.pk).update(waves=waves, wave=number)


def find(waves_id: int) -> Waves:
    """The waves; a 404 problem when there are none."""
    found = Waves.objects.select_related("version__model").filter(pk=waves_id).first()
    if found is None:
        raise Problem(404, "unknown_waves", f"no waves {waves_id}")
    return found


def keep(now: datetime) -> None:
    """Move every set of waves on: the next wave, the end, or back. Safe to repeat, and for two workers."""
    for pk in Waves.objects.filter(state=Waves.State.RUNNING).values_list("pk", flat=True):
        try:
            with transaction.atomic():
                waves = _mine(pk)
                if waves is not None:
                    _move_on(waves, now)
        except Problem as err:  # what one wave cannot do must not stop the others
            _tell_stuck(pk, err.detail, now)


def _mine(pk: int) -> Waves | None:
    mine = Waves.objects.select_for_update(skip_locked=True, of=("self",)).select_related("version__model")
    return mine.filter(pk=pk, state=Waves.State.RUNNING).first()


def _tell_stuck(pk: int, why: str, now: datetime) -> None:
    """Say on the waves, and page once, that they cannot go on; they are tried again until somebody aborts them."""
    waves = Waves.objects.select_related("version__model").get(pk=pk)
    waves.reason = f"after wave {waves.wave + 1} Davy cannot go on: {why}; correct that, or abort the waves"
    waves.save(update_fields=["reason"])
    model = waves.version.model
    alerts.open(
        _stuck(pk),
        severity=Severity.WARNING,
        summary=f"waves of {waves.version}: {waves.reason}",
        now=now,
        model=model,
        version=waves.version,
    )


def _stuck(pk: int) -> str:
    return f"rollout/waves/{pk}"


def _move_on(waves: Waves, now: datetime) -> None:
    children = list(Rollout.objects.filter(waves=waves, wave=waves.wave).select_related("route__fleet"))
    broken = next((r for r in children if r.state not in (*ACTIVE, Phase.PROMOTED)), None)
    if broken is not None:
        reason = (
            f"wave {waves.wave + 1} stopped: {broken.route.fleet.name} is {broken.state}: {broken.reason}"
        )
        _back(waves, Waves.State.ROLLED_BACK, reason, waves.actor, now)
    elif all(r.state == Phase.PROMOTED for r in children):
        _next(waves, now)


def _next(waves: Waves, now: datetime) -> None:
    number = waves.wave + 1
    if number == len(waves.fleets):
        waves.state, waves.ended_at, waves.reason = Waves.State.PROMOTED, now, "every wave is promoted"
    else:
        waves.wave, waves.reason = number, f"wave {number + 1} of {len(waves.fleets)} is under way"
        _start_wave(waves, number, now)
    waves.save(update_fields=["state", "wave", "reason", "ended_at"])
    alerts.resolve(_stuck(waves.pk), resolution=waves.reason, now=now)


def abort(waves_id: int, *, actor: str, reason: str, now: datetime) -> Waves:
    """Stop all waves and take back the fleets that moved. Repeating it changes nothing."""
    commands.check_reason(reason)
    with transaction.atomic():
        waves = Waves.objects.select_for_update(of=("self",)).get(pk=find(waves_id).pk)
        if waves.state == Waves.State.PROMOTED:
            raise Problem(
                409, "not_now", f"waves {waves_id} are promoted; start a rollout of another version"
            )
        if waves.state == Waves.State.RUNNING:
            _back(waves, Waves.State.ABORTED, f"{reason} ({actor})", actor, now)
            audit.record(actor, "waves.abort", f"waves {waves_id}", reason)
    return find(waves_id)


def _back(waves: Waves, state: str, reason: str, actor: str, now: datetime) -> None:
    """End what is under way; where a fleet moved already, its old version is rolled out without steps."""
    for child in Rollout.objects.filter(waves=waves).select_related("stable", "route__fleet"):
        if child.state in ACTIVE and child.state != Phase.ROLLING_BACK:
            commands.act(child.pk, "abort", actor=actor, reason=reason, now=now)
        elif child.state == Phase.PROMOTED and child.stable is not None:
            chosen = plan.load(child.plan)
            commands.start(child.stable, child.route.fleet, chosen, actor=actor, now=now, direct=True)
    waves.state, waves.reason, waves.ended_at = state, reason, now
    waves.save(update_fields=["state", "reason", "ended_at"])
    alerts.resolve(_stuck(waves.pk), resolution=reason, now=now)
