"""One tick of one rollout: read, decide, save, apply.

The database is the truth. A tick holds a lease so that two workers seldom do the same work, and saves only where the
revision is the one it read, so that two never both act. What was saved is applied to the fleet afterwards; a crash in
between is mended by the next tick, because the observed weight is not the wanted one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from controlplane import artifacts
from controlplane.models import ModelVersion, Route
from monitoring import windows
from rollout import drivers, evidence, gates, journal, judge, phases
from rollout.drivers.base import Bundle, CountsRequests, Driver, DriverError, RouterCounts, RouteSpec
from rollout.gates.base import GateVerdict
from rollout.models import ACTIVE, Evidence, Rollout
from rollout.phases import JUDGED, TERMINAL, Phase, Position, Seen
from rollout.plan import Plan
from rollout.plan import load as load_plan

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=20)


@dataclass
class Look:
    """What one tick saw and counted, before anything is decided."""

    observed_percent: float | None = None
    canary_ready: bool = False
    trouble: str = ""
    outage: str = ""
    counts: RouterCounts | None = None
    sources: evidence.Sources = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    verdicts: tuple[GateVerdict, ...] = ()
    failed: GateVerdict | None = None
    rows: list[Evidence] = field(default_factory=list)


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
    driver = drivers.make(rollout.route.fleet.driver, rollout.route.fleet.config)
    look = _look(rollout, plan, before, driver, now)
    after = phases.decide(plan, before, _seen(rollout, plan, before, look, now))
    if _save(rollout, before, after, look, now):
        _apply(_read(rollout_id), driver)


def _read(rollout_id: int) -> Rollout:
    related = ("route__model", "route__fleet", "route__stable", "version__model", "stable__model")
    return Rollout.objects.select_related(*related).get(pk=rollout_id)


def spec(route: Route) -> RouteSpec:
    """The route as its driver knows it."""
    return RouteSpec(route.model.name, route.stable_slot)


def bundle(version: ModelVersion) -> Bundle:
    """The version as a driver loads it."""
    return Bundle(version.model.name, version.name, version.digest, lambda: artifacts.fetch(version))


def own_slot(rollout: Rollout) -> str:
    """The slot of the rollout's version: the canary's, unless the version is (or becomes) the route's stable one."""
    route = spec(rollout.route)
    is_stable = rollout.route.stable_id in (None, rollout.version_id)
    return route.stable_slot if is_stable else route.canary_slot


def _look(rollout: Rollout, plan: Plan, at: Position, driver: Driver, now: datetime) -> Look:
    """Ask the fleet and absorb the evidence of closed intervals. A driver's error is kept, not raised."""
    look = Look(trouble=rollout.trouble, sources=dict(rollout.sources), judge=dict(rollout.judge))
    route = spec(rollout.route)
    try:
        look.canary_ready = driver.ready(bundle(rollout.version), own_slot(rollout))
        look.observed_percent = driver.observed_weight(route)
        if at.phase in JUDGED or at.phase is Phase.WATCHING:
            _read_router(look, rollout, at, driver, route)
    except DriverError as err:
        look.trouble = str(err)
    if at.phase in JUDGED:
        wanted = look.observed_percent is not None and abs(look.observed_percent - at.weight_percent) < 0.01
        look.sources = evidence.note_weight(look.sources, wanted, now.timestamp())
        _judge(look, rollout, plan, at, driver, now)
    return look


def _read_router(look: Look, rollout: Rollout, at: Position, driver: Driver, route: RouteSpec) -> None:
    """Keep the router's counters for this tick; in the watch, see whether the new version fails outright.

    That only matters while the old version is ready to take the traffic back.
    """
    if not isinstance(driver, CountsRequests):
        return
    look.counts = driver.router_counts(route)
    if at.phase is Phase.WATCHING:
        look.sources = evidence.note_recent(look.sources, look.counts)
        outage = evidence.outage(look.sources)
        old = rollout.stable
        if outage and old is not None and driver.ready(bundle(old), route.canary_slot):
            look.outage = outage


def _judge(look: Look, rollout: Rollout, plan: Plan, at: Position, driver: Driver, now: datetime) -> None:
    """Absorb every new reading into each gate that uses its source, and conclude; impossible counts are told."""
    state = look.judge or judge.enter_step(judge.start(plan.gates), at.weight_percent)
    for reading in _readings(look, rollout, now):
        for gate in plan.gates:
            if _source(gate.name, driver) != reading.source:
                continue
            try:
                state = judge.absorb(state, gate.name, reading.interval)
            except judge.EvidenceError as err:
                look.trouble = f"evidence refused: {err}"
                continue
            look.rows.append(_evidence_row(rollout, at, gate.name, reading, state))
            look.sources = evidence.note_use(look.sources, gate.name, reading.interval, plan.patience_seconds)
    conclusion = judge.conclude(state, plan.alpha)
    look.judge, look.verdicts, look.failed = state, conclusion.gates, conclusion.failed


def _source(gate: str, driver: Driver) -> str:
    """Errors come from the router where the driver offers its counters, else from collectors."""
    wanted = gates.get(gate).source
    return wanted if isinstance(driver, CountsRequests) else "collector"


def _readings(look: Look, rollout: Rollout, now: datetime) -> list[evidence.Reading]:
    readings = []
    if look.counts is not None:
        look.sources, reading = evidence.from_router(look.sources, look.counts)
        readings += [reading] if reading else []
    cursor = look.sources.get("collector", {}).get("cursor")
    since = datetime.fromtimestamp(cursor, tz=now.tzinfo) if cursor else rollout.started_at
    stable = rollout.stable
    if stable is not None:
        look.sources, found = evidence.from_collectors(
            look.sources,
            windows.intervals(rollout.version, since, now),
            windows.intervals(stable, since, now),
            now.timestamp(),
            settings.EVIDENCE_GRACE_SECONDS,
        )
        readings += found
    return readings


def _evidence_row(
    rollout: Rollout, at: Position, gate: str, reading: evidence.Reading, state: dict[str, Any]
) -> Evidence:
    interval = reading.interval
    return Evidence(
        rollout=rollout,
        gate=gate,
        source=reading.source,
        start=journal.utc(interval.start),
        end=journal.utc(interval.end),
        step=at.step,
        weight_percent=at.weight_percent,
        arms=evidence.as_json(interval, gates.get(gate).needs),
        log_e=judge.log_e(state, gate),
    )


def _seen(rollout: Rollout, plan: Plan, at: Position, look: Look, now: datetime) -> Seen:
    required = [gate.name for gate in plan.gates if gate.required and not gate.dry_run]
    silent, last = evidence.most_silent(look.sources, required)
    since = evidence.flowing_since(look.sources, required)
    return Seen(
        now=now,
        canary_ready=look.canary_ready,
        observed_percent=look.observed_percent,
        first_version=rollout.route.stable_id is None,
        blocked_by=_blocked_by(rollout) if at.phase is Phase.PENDING else "",
        trouble=look.trouble,
        failed=look.failed,
        gates=look.verdicts,
        last_evidence_at=journal.utc(last) if last else None,
        silent_gate=silent,
        evidence_since=journal.utc(since) if since else None,
        outage=look.outage,
    )


def _blocked_by(rollout: Rollout) -> str:
    """The rollout under way on the same route, in words; "" when there is none."""
    others = Rollout.objects.filter(route=rollout.route, state__in=ACTIVE).exclude(pk=rollout.pk)
    other = others.exclude(state=Phase.PENDING).select_related("version__model").first()
    return "" if other is None else f"rollout {other.pk} of {other.version} ({other.state})"


def _save(rollout: Rollout, before: Position, after: Position, look: Look, now: datetime) -> bool:
    """Store decision, evidence, roles and alerts together; False when somebody else acted since we read."""
    state, sources = look.judge, look.sources
    if after.phase in JUDGED and after.weight_percent != before.weight_percent:
        state = judge.enter_step(state or judge.start(load_plan(rollout.plan).gates), after.weight_percent)
        sources = evidence.note_weight(sources, False, now.timestamp())
    columns: dict[str, Any] = {"sources": sources, "judge": state}
    if look.verdicts:
        columns["gates"] = [journal.verdict_json(v) for v in look.verdicts]
    with transaction.atomic():
        # before the roles may swap: it was observed under those that were read
        seen = Route.objects.filter(pk=rollout.route_id)
        seen.update(observed_weight_percent=look.observed_percent, observed_at=now)
        if not journal.save(rollout, before, after, now=now, columns=columns):
            transaction.set_rollback(True)
            return False
        Evidence.objects.bulk_create(look.rows)
    return True


def _apply(rollout: Rollout, driver: Driver) -> None:
    """Make the fleet what the rollout wants. Errors are logged: the next tick tries again and tells."""
    route, phase = spec(rollout.route), Phase(rollout.state)
    try:
        if phase is Phase.PENDING:
            if not _blocked_by(rollout):
                _prepare(rollout, driver)
        elif phase is Phase.WATCHING:
            driver.set_weight(
                route, rollout.route.weight_percent
            )  # the roles have swapped, if not the traffic
        elif phase not in TERMINAL:
            hold_weight(driver, route, rollout.route.weight_percent)
    except (DriverError, artifacts.ArtifactError) as err:
        log.warning("rollout %s: %s", rollout.pk, err)
        Rollout.objects.filter(pk=rollout.pk).update(trouble=str(err))
    else:
        Rollout.objects.filter(pk=rollout.pk).exclude(trouble="").update(trouble="")


def _prepare(rollout: Rollout, driver: Driver) -> None:
    """Load the version into its slot; whatever was kept warm there gives way."""
    if rollout.route.stable_id is not None:
        Route.objects.filter(pk=rollout.route_id).update(
            canary=rollout.version, previous=None, keep_warm_until=None
        )
    driver.prepare(bundle(rollout.version), own_slot(rollout))


def hold_weight(driver: Driver, route: RouteSpec, percent: float) -> float | None:
    """Ask for the wanted weight where another is observed; returns what was observed before."""
    observed = driver.observed_weight(route)
    if observed is None or abs(observed - percent) > 0.01:
        driver.set_weight(route, percent)
    return observed
