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

from controlplane import artifacts
from controlplane.models import Route
from rollout import drivers, journal, judge, leases, look, phases
from rollout.drivers.base import Driver, DriverError, KnowsCapacity, Mirrors, RouteSpec
from rollout.evidence import sources as evidence
from rollout.look import Look, blocked_by, bundle, own_slot, spec
from rollout.models import Rollout
from rollout.phases import JUDGED, TERMINAL, Phase, Position, Seen
from rollout.plan import Plan
from rollout.plan import load as load_plan

log = logging.getLogger(__name__)

OBSERVED_EVERY = timedelta(seconds=10)
LONGEST_BACK_OFF_SECONDS = 30.0


def tick(rollout_id: int, now: datetime) -> bool:
    """Move one rollout on. False when another worker has it or it is over. Safe to repeat."""
    rollout = leases.take(rollout_id, now)
    if rollout is None:
        return False
    is_free = False
    try:
        is_free = _tick(rollout, now)
    finally:
        if not is_free:
            leases.end(rollout)
    return True


def _tick(rollout: Rollout, now: datetime) -> bool:
    """Whether the lease ended with the save: the fleet does what is wanted, so there is nothing to tell it."""
    plan, before = load_plan(rollout.plan), journal.position(rollout)
    driver = drivers.of(rollout.route.fleet)
    seen = look.take(rollout, plan, before, driver, now)
    known = look.seen_by(rollout, plan, before, seen, now)
    after = phases.decide(plan, before, known)
    if not journal.moved(before, after):
        asked_before = bool(rollout.sources.get("asks"))
        seen.sources["asks"] = phases.asks_people(after, known, asked_before=asked_before)
    seen.sources = paced(seen.sources, rollout.trouble, rollout.route.weight_percent, now.timestamp())
    is_done = _is_done(rollout, plan, before, after, seen)
    if not _save(rollout, before, after, seen, now, is_done):
        return False
    if not is_done:
        has_moved = journal.moved(before, after)
        is_due = has_moved or seen.sources.get("asked", {}).get("at", now.timestamp()) == now.timestamp()
        _apply(_read(rollout.pk) if has_moved else rollout, driver, now, is_due)
    return is_done


def paced(sources: evidence.Sources, trouble: str, percent: float, now: float) -> evidence.Sources:
    """When a fleet that refuses a weight was last asked for it: again after 1, 2, 4 … 30 s. Kept as sources["asked"].

    Another weight than the refused one is asked for at once, and weight 0 at every tick (behaviour 21).
    """
    rest = {name: value for name, value in sources.items() if name != "asked"}
    last = sources.get("asked")
    if not trouble:
        return rest
    if last is None or last["percent"] != percent:
        return {**rest, "asked": {"at": now, "percent": percent, "wait": 1.0}}
    if 0 <= now - last["at"] < last["wait"]:
        return dict(sources)
    longer = min(2 * last["wait"], LONGEST_BACK_OFF_SECONDS)
    return {**rest, "asked": {"at": now, "percent": percent, "wait": longer}}


def _is_done(rollout: Rollout, plan: Plan, before: Position, after: Position, seen: Look) -> bool:
    """Whether nothing moved, and the fleet was seen to do what the rollout wants."""
    wanted, observed = rollout.route.weight_percent, seen.observed_percent
    return (
        after.phase in JUDGED
        and not journal.moved(before, after)
        and observed is not None
        and _is_at(observed, wanted)
        and plan.shadow is None
        and not rollout.trouble
    )


def _read(rollout_id: int) -> Rollout:
    related = ("route__model", "route__fleet", "route__stable", "version__model", "stable__model")
    return Rollout.objects.select_related(*related).get(pk=rollout_id)


def _save(
    rollout: Rollout, before: Position, after: Position, seen: Look, now: datetime, is_done: bool
) -> bool:
    """Store decision, evidence, roles and alerts together; False when somebody else acted since we read.

    With `is_done` the lease ends as well.
    """
    state, sources = seen.judge, seen.sources
    if after.phase in JUDGED and after.weight_percent != before.weight_percent:
        state = judge.enter_step(
            state or judge.start(load_plan(rollout.plan).statistical), after.weight_percent
        )
        sources = evidence.note_weight(sources, False, now.timestamp())
    columns: dict[str, Any] = {"sources": sources}
    if state != rollout.judge:
        columns["judge"] = state
    if seen.verdicts:
        columns["gates"] = [journal.verdict_json(v) for v in seen.verdicts]
    if is_done:
        columns["leased_until"] = leases.ended(rollout)
    with transaction.atomic():
        # before the roles may swap: it was observed under those that were read
        _note_observed(rollout.route, seen.observed_percent, now)
        if not journal.save(rollout, before, after, now=now, columns=columns):
            transaction.set_rollback(True)
            return False
        journal.keep_evidence(seen.rows)
        odd = (seen.changed_by_hand, seen.incident, seen.mismatch)
        journal.tell_oddities(rollout, *odd, judged=after.phase in JUDGED, now=now)
    return True


def _note_observed(route: Route, percent: float | None, now: datetime) -> None:
    """Store the observed weight where it is news, and now and then that it is still so."""
    last = route.observed_at
    if percent != route.observed_weight_percent or last is None or not last <= now < last + OBSERVED_EVERY:
        Route.objects.filter(pk=route.pk).update(observed_weight_percent=percent, observed_at=now)


def _apply(rollout: Rollout, driver: Driver, now: datetime, is_due: bool = True) -> None:
    """Make the fleet what the rollout wants. Errors are logged: a later tick tries again and tells.

    is_due  whether a fleet that refused the canary's weight is asked for it again yet
    """
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
            if not is_due and rollout.route.weight_percent > 0:
                return
            hold_weight(driver, route, rollout.route.weight_percent)
        _mirror(rollout, driver)
    except (DriverError, artifacts.ArtifactError) as err:
        log.warning("rollout %s: %s", rollout.pk, err)
        Rollout.objects.filter(pk=rollout.pk).update(trouble=str(err))
        refused = look.refusal(rollout, err)
        if refused and phase is Phase.PENDING:
            _fail(rollout.pk, refused, now)
    else:
        if rollout.trouble:
            Rollout.objects.filter(pk=rollout.pk).update(trouble="")


def _fail(rollout_id: int, refused: str, now: datetime) -> None:
    """End a rollout that can never start; where somebody acted in between, the next tick sees what they did."""
    rollout = _read(rollout_id)
    before = journal.position(rollout)
    if before.phase is Phase.PENDING:
        seen = Seen(now, canary_ready=False, observed_percent=None, refused=refused)
        with transaction.atomic():
            after = phases.decide(load_plan(rollout.plan), before, seen)
            journal.save(rollout, before, after, now=now, columns={})


def _is_free(rollout: Rollout, driver: Driver, route: RouteSpec) -> bool:
    """Whether the slot to load into has no traffic: a watch that was closed may have held some back there."""
    if rollout.route.stable_id is None:
        return True
    observed = hold_weight(driver, route, rollout.route.weight_percent)
    return observed is None or _is_at(observed, rollout.route.weight_percent)


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
    if observed is None or not _is_at(observed, percent):
        driver.set_weight(route, percent)
    return observed


def _is_at(observed: float, percent: float) -> bool:
    return abs(observed - percent) <= 0.01
