"""What does one tick see? The fleet's answers, new evidence, verdicts and holds, before anything is decided."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from django.conf import settings

from controlplane import artifacts
from controlplane.models import ModelVersion, Route
from monitoring import shadow
from rollout import asking, drivers, gates, journal, judge, phases
from rollout.drivers.base import Assigns, Bundle, CountsRequests, Driver, DriverError, RouterCounts, RouteSpec
from rollout.drivers.scraped import Scraper
from rollout.evidence import collected, labelled, scraped, splits
from rollout.evidence import sources as evidence
from rollout.gates.base import GateSpec, GateVerdict, Interval
from rollout.holds.approval import ApprovalHold
from rollout.models import ACTIVE, Evidence, Rollout
from rollout.phases import JUDGED, Phase, Position, Seen
from rollout.plan import Plan


@dataclass
class Look:
    """What one tick saw and counted, before anything is decided."""

    observed_percent: float | None = None
    canary_ready: bool = False
    trouble: str = ""
    refused: str = ""
    outage: str = ""
    changed_by_hand: str = ""
    incident: str = ""
    mismatch: str = ""
    counts: RouterCounts | None = None
    scraper: Scraper | None = None  # counts requests in the router's place
    sources: evidence.Sources = field(default_factory=dict)
    judge: dict[str, Any] = field(default_factory=dict)
    verdicts: tuple[GateVerdict, ...] = ()
    failed: GateVerdict | None = None
    held_by: GateVerdict | None = None
    rows: list[Evidence] = field(default_factory=list)


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


def refusal(rollout: Rollout, err: DriverError | artifacts.ArtifactError) -> str:
    """Why the rollout can never start, in words; "" where the next attempt may succeed."""
    return "" if err.retry else f"{rollout.version} cannot be loaded on {rollout.route.fleet.name}: {err}"


def take(rollout: Rollout, plan: Plan, at: Position, driver: Driver, now: datetime) -> Look:
    """Ask the fleet and absorb the evidence of closed intervals. A driver's error is kept, not raised."""
    look = Look(trouble=rollout.trouble, sources=dict(rollout.sources), judge=dict(rollout.judge))
    look.scraper = drivers.scraper(rollout.route.fleet)
    try:
        look.canary_ready = driver.ready(bundle(rollout.version), own_slot(rollout))
        look.observed_percent = driver.observed_weight(spec(rollout.route))
        if at.phase in JUDGED or at.phase is Phase.WATCHING:
            _read_counts(look, rollout, plan, at, driver, now)
    except DriverError as err:
        look.trouble, look.refused = str(err), refusal(rollout, err)
    if at.phase in JUDGED:
        wanted = look.observed_percent is not None and abs(look.observed_percent - at.weight_percent) < 0.01
        if not wanted and look.observed_percent is not None and evidence.was_settled(look.sources):
            seen = f"from {at.weight_percent:g} % to {look.observed_percent:g} %"
            look.changed_by_hand = f"somebody else changed the weight {seen}"
        look.sources = evidence.note_weight(look.sources, wanted, now.timestamp())
        _judge(look, rollout, plan, at, driver, now)
        _ask_holds(look, rollout, plan, at, now)
        look.held_by = look.held_by or splits.verdict(look.sources)
        look.incident, look.mismatch = evidence.shared_incident(look.sources), splits.mismatch(look.sources)
        if phases.shadowing(plan, at) and rollout.stable is not None:
            shadow.ask(rollout.version, rollout.stable, now)
    elif at.phase is Phase.WATCHING and look.judge:
        look.sources = evidence.note_weight(look.sources, _is_held_back(look, at), now.timestamp())
        _judge(look, rollout, plan, at, driver, now)  # labels of the steps' requests come late
        look.verdicts += asking.verdicts(plan, look.sources.get("holds", {}))  # as they were at the promotion
    elif at.phase is Phase.PENDING and rollout.route.stable_id is None and look.canary_ready:
        people = tuple(spec for spec in plan.holds if spec.name == ApprovalHold.name)
        _ask_holds(
            look, rollout, replace(plan, gates=people), at, now
        )  # no analysis, but nobody goes around a no
    # else their alerts are looked for in vain
    look.sources["odd"] = [bool(look.changed_by_hand), bool(look.incident), bool(look.mismatch)]
    return look


def _is_held_back(look: Look, at: Position) -> bool:
    """Whether the old version has the share that the plan holds back while the new one is watched."""
    return look.observed_percent is not None and abs(look.observed_percent - at.weight_percent) < 0.01


def _read_counts(
    look: Look, rollout: Rollout, plan: Plan, at: Position, driver: Driver, now: datetime
) -> None:
    """Keep the counters for this tick; in the watch, see whether the new version fails outright.

    That only matters while the old version is ready to take the traffic back.
    """
    route, apart_seconds = spec(rollout.route), 0.0
    if look.scraper is not None:
        _scrape(look, look.scraper, rollout, plan, at, now)
        apart_seconds = look.scraper.scrape_seconds
    elif isinstance(driver, CountsRequests):
        look.counts = driver.router_counts(route)
    if look.counts is None:
        return
    swapped_at = at.entered_at.timestamp() if at.phase is Phase.WATCHING else 0.0
    look.sources = evidence.note_recent(look.sources, look.counts, apart_seconds, since=swapped_at)
    if at.phase is Phase.WATCHING:
        outage = evidence.outage(look.sources)
        old = rollout.stable
        if outage and old is not None and driver.ready(bundle(old), route.canary_slot):
            look.outage = outage


def _scrape(look: Look, scraper: Scraper, rollout: Rollout, plan: Plan, at: Position, now: datetime) -> None:
    """Have Prometheus' counters once a scrape interval; what it says instead is the rollout's trouble.

    While requests are only mirrored, servers' counters hold copies, which are no evidence of errors.
    """
    if rollout.stable is None or phases.shadowing(plan, at):
        return
    route, own = spec(rollout.route), own_slot(rollout)
    other = route.canary_slot if own == route.stable_slot else route.stable_slot
    versions = {own: rollout.version.name, other: rollout.stable.name}
    look.sources, look.counts = scraped.ask(look.sources, scraper, route, versions, now.timestamp())
    look.trouble = look.trouble or scraped.said(look.sources)


def _judge(look: Look, rollout: Rollout, plan: Plan, at: Position, driver: Driver, now: datetime) -> None:
    """Absorb every new reading into each gate that uses its source, and conclude; impossible counts are told."""
    state = look.judge or judge.enter_step(judge.start(plan.statistical), at.weight_percent)
    state = _told(look, rollout, plan, at, driver, state, now)
    for reading in _readings(look, rollout, plan, at, driver, now):
        if reading.source == "router":
            share = 100 - at.weight_percent if at.phase is Phase.WATCHING else at.weight_percent
            look.sources = splits.note(look.sources, reading.interval, share, _assignment(driver))
        for gate in plan.statistical:
            interval = _evidence_for(gate, look, driver, reading)
            if interval is None:
                continue
            try:
                state = judge.absorb(state, gate.name, interval)
            except judge.EvidenceError as err:
                look.trouble = f"evidence refused: {err}"
                continue
            look.rows.append(_evidence_row(rollout, at, gate, reading.source, interval, state))
            if not interval.aside:
                look.sources = evidence.note_use(look.sources, gate.name, interval, plan.patience_seconds)
    conclusion = judge.conclude(state, plan.alpha)
    look.judge, look.verdicts, look.failed = state, conclusion.gates, conclusion.failed


def _told(
    look: Look,
    rollout: Rollout,
    plan: Plan,
    at: Position,
    driver: Driver,
    state: dict[str, Any],
    now: datetime,
) -> dict[str, Any]:
    """Tell gates whose events come in clusters, once, what the router assigns and what stable's past says."""
    untold = judge.unassumed(state)
    if not untold:
        return state
    interval = collected.told(rollout.stable, _assignment(driver), now, rollout.route.fleet.name)
    for gate in plan.statistical:
        if gate.name in untold:
            state = judge.absorb(state, gate.name, interval)
            if _assignment(driver) != "request":
                look.rows.append(_evidence_row(rollout, at, gate, "history", interval, state))
    return state


def _assignment(driver: Driver) -> str:
    """The unit of the router's split; where a driver does not know it, the one that proves least."""
    return driver.assignment() if isinstance(driver, Assigns) else "key"


def _evidence_for(gate: GateSpec, look: Look, driver: Driver, reading: evidence.Reading) -> Interval | None:
    """What a gate reads of a reading: all of its own source, and of collectors also what they alone know."""
    if _source(gate, look, driver) == reading.source:
        return reading.interval
    return collected.beside(gate, reading.interval) if reading.source == collected.SOURCE else None


def _ask_holds(look: Look, rollout: Rollout, plan: Plan, at: Position, now: datetime) -> None:
    """Holds come after the judge: a canary that it has failed does not wait for anybody's slow answer."""
    if not plan.holds:
        return
    question, kept = asking.question(rollout, plan, at, now), look.sources.get("holds", {})
    answers = asking.still(question, kept) if look.failed else asking.ask(plan, question, kept)
    answered = asking.verdicts(plan, answers)
    look.sources = {**look.sources, "holds": answers}
    look.verdicts += answered
    look.held_by = asking.objection(plan, answered, "hold")
    look.failed = look.failed or asking.objection(plan, answered, "rollback")


def _source(gate: GateSpec, look: Look, driver: Driver) -> str:
    """Whose counts a gate reads, the same all through a rollout: two sources would count a request twice.

    Errors: Prometheus' where the fleet's config has one, else the router's where the driver offers its counters, else
    the collectors'. Latency: the collectors', or the router's where the plan sets `source` to it.
    """
    wanted = gates.source(gate)
    if wanted in labelled.SOURCES:
        return wanted
    if wanted == "router" and "latency" in gates.get(gate.name).needs:
        return evidence.ROUTER_LATENCY
    if wanted == "router" and look.scraper is not None:
        return scraped.SOURCE
    return collected.SOURCE if wanted == "router" and not isinstance(driver, CountsRequests) else wanted


def _readings(
    look: Look, rollout: Rollout, plan: Plan, at: Position, driver: Driver, now: datetime
) -> list[evidence.Reading]:
    look.sources, readings = labelled.read(look.sources, rollout, plan, now.timestamp())
    watching = at.phase is Phase.WATCHING
    if watching and not at.weight_percent:  # there is no concurrent old version any more
        return readings
    if look.counts is not None:
        counts = look.counts.swapped() if watching else look.counts
        look.sources, found = _counted(look, counts)
        readings += found
    if rollout.stable is not None:
        sources = {gate.name: _source(gate, look, driver) for gate in plan.statistical}
        look.sources, found = collected.read(
            look.sources,
            rollout.version,
            rollout.stable,
            collected.Wanted.by(plan.statistical, sources, _assignment(driver)),
            rollout.started_at,
            now,
            settings.EVIDENCE_GRACE_SECONDS,
            rollout.route.fleet.name,
        )
        readings += found
    return readings


def _counted(look: Look, counts: RouterCounts) -> tuple[evidence.Sources, list[evidence.Reading]]:
    """What Prometheus', or the router's, counters say since they were last read."""
    if look.scraper is not None:
        sources, reading = scraped.read(look.sources, counts, look.scraper.scrape_seconds)
        return sources, [reading] if reading else []
    sources, reading = evidence.from_router(look.sources, counts)
    sources, slow = evidence.latency_from_router(sources, counts)
    return sources, [each for each in (reading, slow) if each]


def _evidence_row(
    rollout: Rollout, at: Position, gate: GateSpec, source: str, interval: Interval, state: dict[str, Any]
) -> Evidence:
    return Evidence(
        rollout=rollout,
        gate=gate.name,
        source=source,
        start=journal.utc(interval.start),
        end=journal.utc(interval.end),
        step=at.step,
        weight_percent=at.weight_percent,
        arms=collected.kept(gate, interval),
        log_e=judge.log_e(state, gate.name),
    )


def _counting(plan: Plan, at: Position) -> list[GateSpec]:
    """The statistical gates that count where the rollout stands: while requests are only mirrored, those of pairs."""
    mirroring = phases.shadowing(plan, at)
    return [gate for gate in plan.statistical if not mirroring or gates.source(gate) == labelled.PAIRS]


def _expected(plan: Plan, at: Position) -> list[str]:
    """The required gates whose silence is a fault: pairs come only while requests are mirrored."""
    mirroring = phases.shadowing(plan, at)
    required = [gate for gate in _counting(plan, at) if gate.required and not gate.dry_run]
    return [gate.name for gate in required if mirroring or gates.source(gate) != labelled.PAIRS]


def seen_by(rollout: Rollout, plan: Plan, at: Position, look: Look, now: datetime) -> Seen:
    idle = {gate.name for gate in plan.statistical} - {gate.name for gate in _counting(plan, at)}
    required = _expected(plan, at)
    silent, last = evidence.most_silent(look.sources, required)
    since = evidence.flowing_since(look.sources, required)
    return Seen(
        now=now,
        canary_ready=look.canary_ready,
        observed_percent=look.observed_percent,
        first_version=rollout.route.stable_id is None,
        blocked_by=blocked_by(rollout) if at.phase is Phase.PENDING else "",
        trouble=look.trouble,
        refused=look.refused,
        failed=look.failed,
        held_by=look.held_by,
        gates=tuple(verdict for verdict in look.verdicts if verdict.name not in idle),
        last_evidence_at=journal.utc(last) if last else None,
        silent_gate=silent,
        evidence_since=journal.utc(since) if since else None,
        outage=look.outage,
        changed_by_hand=look.changed_by_hand,
    )


def blocked_by(rollout: Rollout) -> str:
    """The rollout under way on the same route, in words; "" when there is none."""
    others = Rollout.objects.filter(route=rollout.route, state__in=ACTIVE).exclude(pk=rollout.pk)
    other = others.exclude(state=Phase.PENDING).select_related("version__model").first()
    return "" if other is None else f"rollout {other.pk} of {other.version} ({other.state})"
