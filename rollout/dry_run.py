"""What would a rollout do, and how long would it take? Reads only; nothing is written and no fleet is asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane import problems
from controlplane.models import Fleet, ModelVersion, Route, Slot
from monitoring import windows
from rollout import commands, drivers, gates
from rollout.drivers.base import Assigns, CountsRequests
from rollout.evidence import collected, scraped
from rollout.gates.base import Arm, GateSpec
from rollout.models import ACTIVE, Evidence, Rollout
from rollout.phases import Phase
from rollout.plan import Plan, Step
from rollout.plans import needs
from rollout.plans.needs import Known, Need

LOOK_BACK = timedelta(hours=1)  # of stable's windows: its rates
STARTS = ("start", "supersede")  # what of `_would` begins a rollout
RECENT = timedelta(minutes=10)  # of stable's windows: the request rate
EVIDENCE_ROWS = 3600  # of the route's last rollout: the router's view of stable
COUNTERS = {"router": "the router's counts", scraped.SOURCE: "Prometheus' counts"}


@dataclass(frozen=True)
class Traffic:
    """What stable does, as far as it is known; `known_from` says where from, in words."""

    collector: Arm  # n = 0: not known
    router: Arm
    requests_per_second: float | None
    known_from: str
    clusters: Known = None  # the unit of the router's split, and what stable's past says of clustered errors

    def arm(self, gate: GateSpec) -> Arm:
        """Stable as the gate's source counts it."""
        by_router = gates.source(gate) == "router" and self.router.n
        return self.router if by_router else self.collector

    def seconds(self, requests: int | None, weight_percent: float) -> float | None:
        """How long that many canary requests take at this weight and the present rate."""
        if requests is None or not self.requests_per_second:
            return None
        return requests / (self.requests_per_second * weight_percent / 100)


def dry_run(version: ModelVersion, fleet: Fleet, chosen: Plan, now: datetime) -> dict[str, Any]:
    """Steps, the exact change to the fleet, and what each gate will need; refuses what a start would refuse."""
    if version.retired_at is not None:
        raise problems.field("/version", "retired", f"{version} is retired", status=409)
    related = ("model", "fleet", "stable", "canary", "previous")
    route = Route.objects.filter(model=version.model, fleet=fleet).select_related(*related).first()
    route = route or Route(model=version.model, fleet=fleet)
    first = route.stable is None
    act, rollout_id, detail = _would(route, version)
    direct = not first and commands.was_stable_lately(route, version, chosen, now)
    if act in STARTS and not direct:
        commands.check_fit(version, route, chosen)
    traffic = _traffic(route, now)
    judged = act in STARTS and not (first or direct)
    steps = [_step_json(chosen, step, traffic) for step in chosen.steps] if judged else []
    return {
        "dry_run": True,
        "model": version.model.name,
        "version": version.name,
        "fleet": fleet.name,
        "stable": route.stable.name if route.stable else None,
        "plan": chosen.to_json(),
        "would": {"act": act, "rollout": rollout_id, "detail": detail},
        "without_analysis": first or direct,
        "change": _change_json(route, version, chosen, now, first or direct) if act in STARTS else None,
        "steps": steps,
        "seconds": _sum([step["seconds"] for step in steps]),
        "precision": needs.PRECISION,
        "holds": [gate.name for gate in chosen.holds],
        "errors_counted_by": _counter_json(fleet),
        "traffic": {
            "requests_per_second": traffic.requests_per_second,
            "stable_by_collectors": {"requests": traffic.collector.n, "errors": traffic.collector.errors},
            "stable_by_router": {"requests": traffic.router.n, "errors": traffic.router.errors},
            "known_from": traffic.known_from,
        },
    }


def _would(route: Route, version: ModelVersion) -> tuple[str, int | None, str]:
    """What submitting the version now comes to, as commands.start does it: (act, the rollout meant, in words)."""
    active = list(Rollout.objects.filter(route=route, state__in=ACTIVE).order_by("pk")) if route.pk else []
    for rollout in active:
        if rollout.version_id == version.pk and rollout.state != Phase.ROLLING_BACK:
            return "return", rollout.pk, f"rollout {rollout.pk} of this version is {rollout.state} already"
    if route.stable_id == version.pk:
        if active:
            return (
                "roll_back",
                active[-1].pk,
                f"the version is stable: rollout {active[-1].pk} is rolled back",
            )
        last = commands.already_stable(route, version)
        return "return", last.pk, f"the version is stable already, by rollout {last.pk}"
    if active:
        return (
            "supersede",
            active[-1].pk,
            f"rollout {active[-1].pk} goes to weight 0 first and ends superseded",
        )
    if route.stable_id is None:
        return "start", None, "the route's first version: goes live without analysis"
    return "start", None, "a new rollout"


def _change_json(
    route: Route, version: ModelVersion, chosen: Plan, now: datetime, without_analysis: bool
) -> dict[str, Any]:
    """Which slot loads what, what gives way there, and every weight in order."""
    stable_slot = Slot(route.stable_slot)
    first = route.stable is None
    slot = stable_slot if first else stable_slot.other
    percents = [] if without_analysis else [step.weight_percent for step in chosen.steps]
    warm = route.previous if route.keep_warm_until is not None and route.keep_warm_until > now else None
    weights = [_split(stable_slot, percent) for percent in [*percents, 0.0 if first else 100.0]]
    if not first and chosen.holdback_percent:
        weights.insert(-1, _split(stable_slot, 100 - chosen.holdback_percent))
    return {
        "slot": slot,
        "stable_slot": stable_slot,
        "loads": version.name,
        "replaces": route.canary.name if route.canary else None,
        "ends_keep_warm": warm.name if warm else None,
        "mirrors_percent": chosen.shadow.percent if chosen.shadow and percents else None,
        "weights": weights,
        "stable_slot_after": slot,
        "keeps_warm": route.stable.name if route.stable else None,
        "keep_warm_seconds": None if first else chosen.keep_warm_seconds,
    }


def _split(stable_slot: Slot, canary_percent: float) -> dict[str, float]:
    return {str(stable_slot): 100 - canary_percent, str(stable_slot.other): canary_percent}


def _step_json(chosen: Plan, step: Step, traffic: Traffic) -> dict[str, Any]:
    """One step with each statistical gate's need; `seconds`: the longest of dwell and required gates."""
    weight = step.weight_percent
    found = [_gate_json(spec, weight, traffic) for spec in chosen.statistical]
    waited = [gate["seconds"] for gate in found if gate["required"] and not gate["dry_run"]]
    errors = next((spec for spec in chosen.statistical if spec.name == "errors"), GateSpec("errors", 1.0))
    fault = needs.to_detect(chosen.statistical, weight, traffic.arm(errors), chosen.alpha, traffic.clusters)
    return {
        "weight_percent": weight,
        "dwell_seconds": step.dwell_seconds,
        "seconds": None if None in waited else max([step.dwell_seconds, *waited]),
        "gates": found,
        "detects": {
            "fault": f"{needs.FAULT_POINTS:g} points more failed requests than stable",
            **_need_json(fault, weight, traffic),
        },
    }


def _gate_json(spec: GateSpec, weight_percent: float, traffic: Traffic) -> dict[str, Any]:
    need = needs.to_pass(spec, weight_percent, traffic.arm(spec), traffic.clusters)
    return {
        "name": spec.name,
        "required": spec.required,
        "dry_run": spec.dry_run,
        **_need_json(need, weight_percent, traffic),
    }


def _need_json(need: Need, weight_percent: float, traffic: Traffic) -> dict[str, Any]:
    known = {key: value for key, value in asdict(need).items() if key != "gate"}
    return {**known, "seconds": traffic.seconds(need.requests, weight_percent)}


def _sum(seconds: list[float | None]) -> float | None:
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None


def _traffic(route: Route, now: datetime) -> Traffic:
    """Stable's windows of the last hour, and the router's counts from the route's last rollout with the version.

    Windows say of a version, not of a fleet: the rate is that of all fleets which serve it.
    """
    if route.stable is None:
        return Traffic(Arm(0), Arm(0), None, "nothing: the route has no stable version")
    hour = windows.total(route.stable, now - LOOK_BACK, now)
    router, router_rate, source = _by_router(route)
    sources = [f"windows of the last hour ({hour.n:,} requests)"] if hour.n else []
    versions = [version for version in (route.stable, route.canary, route.previous) if version]
    rate = _rate(versions, now)
    return Traffic(
        _arm(hour),
        router,
        rate if rate is not None else router_rate,
        " and ".join([*sources, *source]) or f"nothing: {route.stable} sent no telemetry in the last hour",
        collected.told(route.stable, _assignment(route.fleet), now, route.fleet.name).known,
    )


def _counter_json(fleet: Fleet) -> dict[str, Any]:
    """Who counts the requests of the errors gate, and what a Prometheus costs in time."""
    scraper = drivers.scraper(fleet)
    if scraper is None:
        own = isinstance(drivers.of(fleet), CountsRequests)
        return {"source": "router" if own else collected.SOURCE, "detail": ""}
    limits = scraped.limits(scraper.scrape_seconds)
    detail = (
        f"Prometheus scrapes every {scraper.scrape_seconds:g} s: what goes wrong is seen within "
        f"{limits['notices_within_seconds']:g} s, after a change of weight within {limits['first_within_seconds']:g} s"
    )
    return {"source": scraped.SOURCE, "detail": detail, **limits}


def _assignment(fleet: Fleet) -> str:
    """The unit of the router's split, as the fleet's config says; "key" proves least."""
    driver = drivers.of(fleet)
    return driver.assignment() if isinstance(driver, Assigns) else "key"


def _rate(versions: list[ModelVersion], now: datetime) -> float | None:
    """Live requests per second of all of them, over the windows of the last minutes; None without windows."""
    found = [windows.total(version, now - RECENT, now) for version in versions]
    seen = [total for total in found if total.n and total.start and total.end]
    if not seen:
        return None
    start = min(total.start for total in seen if total.start)
    end = max(total.end for total in seen if total.end)
    seconds = (end - start).total_seconds()
    return sum(total.n for total in seen) / seconds if seconds > 0 else None


def _arm(total: windows.Total) -> Arm:
    """A histogram that counted nothing is one that no collector sends."""
    return Arm(
        total.n,
        total.errors,
        confidence=_counts(total.confidence.tolist()),
        latency=_counts(total.latency.tolist()),
        detections=_counts(total.detections.tolist()),
    )


def _counts(histogram: list[int]) -> tuple[int, ...] | None:
    return tuple(histogram) if any(histogram) else None


def _by_router(route: Route) -> tuple[Arm, float | None, list[str]]:
    """(stable's requests and errors, requests per second of the route, where from) as the router counted lately."""
    rollouts = Rollout.objects.filter(route=route).values_list("pk", "stable_id", "version_id")
    of_stable = {
        pk: "stable" if stable_id == route.stable_id else "canary"
        for pk, stable_id, version_id in rollouts
        if route.stable_id in (stable_id, version_id)
    }
    rows = Evidence.objects.filter(rollout__in=of_stable, source__in=COUNTERS, gate="errors").order_by("-id")
    last = rows.first()
    if last is None:
        return Arm(0), None, []
    n = errors = requests = 0
    seconds = 0.0
    for row in rows.filter(rollout_id=last.rollout_id)[:EVIDENCE_ROWS]:
        arm: Mapping[str, int] = row.arms[of_stable[row.rollout_id]]
        n, errors = n + arm["n"], errors + arm["errors"]
        requests += sum(other["n"] for other in row.arms.values())
        seconds += (row.end - row.start).total_seconds()
    where = f"{COUNTERS[last.source]} in rollout {last.rollout_id}"
    source = f"{where} ({n:,} requests, up to {last.end:%Y-%m-%d %H:%M} UTC)"
    return Arm(n, errors), requests / seconds if seconds > 0 else None, [source]
