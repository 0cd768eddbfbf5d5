"""One tick of one rollout: read, decide, save, apply.

The database is the truth. A tick holds a lease so that two workers seldom do the same work, and saves only where the
revision is the one it read, so that two never both act. What was saved is applied to the fleet afterwards; a crash in
between is mended by the next tick, because the observed weight is not the wanted one.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import Q

from controlplane import artifacts
from controlplane.models import Route
from rollout import drivers, journal, judge, look, phases
from rollout.drivers.base import Driver, DriverError, KnowsCapacity, Mirrors, RouteSpec
from rollout.evidence import sources as evidence
from rollout.look import Look, blocked_by, bundle, own_slot, spec
from rollout.models import ACTIVE, Evidence, Rollout
from rollout.phases import JUDGED, TERMINAL, Phase, Position
from rollout.plan import load as load_plan

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=20)


def tick(rollout_id: int, now: datetime) -> bool:
    """Move one rollout on. False when another worker has it or it is over. Safe to repeat."""
    free = Q(leased_until__isnull=True) | Q(leased_until__lt=now)
    due = Rollout.objects.filter(Q(pk=rollout_id, state__in=ACTIVE) & free)
    mine = now + LEASE
    if not due.update(leased_until=mine):
        return False
    try:
        _tick(rollout_id, now)
    finally:
        Rollout.objects.filter(pk=rollout_id, leased_until=mine).update(leased_until=None)
    return True


def _tick(rollout_id: int, now: datetime) -> None:
    rollout = _read(rollout_id)
    plan, before = load_plan(rollout.plan), journal.position(rollout)
    driver = drivers.of(rollout.route.fleet)
    seen = look.take(rollout, plan, before, driver, now)
    after = phases.decide(plan, before, look.seen_by(rollout, plan, before, seen, now))
    if _save(rollout, before, after, seen, now):
        _apply(_read(rollout_id) if journal.moved(before, after) else rollout, driver)


def _read(rollout_id: int) -> Rollout:
    related = ("route__model", "route__fleet", "route__stable", "version__model", "stable__model")
    return Rollout.objects.select_related(*related).get(pk=rollout_id)


def _save(rollout: Rollout, before: Position, after: Position, seen: Look, now: datetime) -> bool:
    """Store decision, evidence, roles and alerts together; False when somebody else acted since we read."""
    state, sources = seen.judge, seen.sources
    if after.phase in JUDGED and after.weight_percent != before.weight_percent:
        state = judge.enter_step(
            state or judge.start(load_plan(rollout.plan).statistical), after.weight_percent
        )
        sources = evidence.note_weight(sources, False, now.timestamp())
    columns: dict[str, Any] = {"sources": sources, "judge": state}
    if seen.verdicts:
        columns["gates"] = [journal.verdict_json(v) for v in seen.verdicts]
    with transaction.atomic():
        # before the roles may swap: it was observed under those that were read
        Route.objects.filter(pk=rollout.route_id).update(
            observed_weight_percent=seen.observed_percent, observed_at=now
        )
        if not journal.save(rollout, before, after, now=now, columns=columns):
            transaction.set_rollback(True)
            return False
        Evidence.objects.bulk_create(seen.rows)
        odd = (seen.changed_by_hand, seen.incident, seen.mismatch)
        journal.tell_oddities(rollout, *odd, judged=after.phase in JUDGED, now=now)
    return True


def _apply(rollout: Rollout, driver: Driver) -> None:
    """Make the fleet what the rollout wants. Errors are logged: the next tick tries again and tells."""
    route, phase = spec(rollout.route), Phase(rollout.state)
    try:
        if phase is Phase.PENDING:
            if not blocked_by(rollout) and _is_free(rollout, driver, route):
                _prepare(rollout, driver)
        elif phase is Phase.WATCHING:
            driver.set_weight(
                route, rollout.route.weight_percent
            )  # the roles have swapped, if not the traffic
        elif phase is Phase.ROLLING_BACK:
            _give_back(driver, route, rollout.route.weight_percent)
        elif phase not in TERMINAL:
            hold_weight(driver, route, rollout.route.weight_percent)
        _mirror(rollout, driver)
    except (DriverError, artifacts.ArtifactError) as err:
        log.warning("rollout %s: %s", rollout.pk, err)
        Rollout.objects.filter(pk=rollout.pk).update(trouble=str(err))
    else:
        if rollout.trouble:
            Rollout.objects.filter(pk=rollout.pk).update(trouble="")


def _is_free(rollout: Rollout, driver: Driver, route: RouteSpec) -> bool:
    """Whether the slot to load into has no traffic: a watch that was closed may have held some back there."""
    if rollout.route.stable_id is None:
        return True
    observed = hold_weight(driver, route, rollout.route.weight_percent)
    return observed is None or abs(observed - rollout.route.weight_percent) <= 0.01


def _prepare(rollout: Rollout, driver: Driver) -> None:
    """Load the version into its slot; whatever was kept warm there gives way."""
    if rollout.route.stable_id is not None:
        Route.objects.filter(pk=rollout.route_id).update(
            canary=rollout.version, previous=None, keep_warm_until=None
        )
    driver.prepare(bundle(rollout.version), own_slot(rollout))


def _give_back(driver: Driver, route: RouteSpec, percent: float) -> None:
    """Move to stable what it can carry; the rest follows as its capacity returns. Nobody is sent to nothing."""
    carries = driver.capacity_percent(route) if isinstance(driver, KnowsCapacity) else 100.0
    observed = driver.observed_weight(route)
    bearable = max(percent, 100 - carries)
    hold_weight(driver, route, bearable if observed is None else max(percent, min(bearable, observed)))
    if carries < 100 - percent:
        left = "the rest moves as its capacity returns"
        raise DriverError(f"stable can carry {carries:g} % of the traffic now; {left}")


def _mirror(rollout: Rollout, driver: Driver) -> None:
    """Mirror while the plan's shadow stage lasts, and no longer: an abort there ends in the tick that sees it."""
    plan, at = load_plan(rollout.plan), journal.position(rollout)
    if plan.shadow is not None and at.phase is not Phase.PENDING:
        hold_mirror(driver, spec(rollout.route), plan.shadow.percent if phases.shadowing(plan, at) else 0.0)


def hold_mirror(driver: Driver, route: RouteSpec, percent: float) -> None:
    """Ask for the wanted mirror where another is observed. Raises DriverError where the router mirrors nothing."""
    if not isinstance(driver, Mirrors):
        if percent > 0:
            raise DriverError("the fleet's router cannot mirror requests, as the plan's shadow stage asks")
        return
    observed = driver.observed_mirror(route)
    if observed is None or abs(observed - percent) > 0.005:
        driver.set_mirror(route, percent)


def hold_weight(driver: Driver, route: RouteSpec, percent: float) -> float | None:
    """Ask for the wanted weight where another is observed; returns what was observed before."""
    observed = driver.observed_weight(route)
    if observed is None or abs(observed - percent) > 0.01:
        driver.set_weight(route, percent)
    return observed
