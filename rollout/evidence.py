"""What did both arms do in each closed interval? From the router's counters and from collectors' windows.

An interval is used once, in order, and only when the split did not change within a second of it (judge.md, rules
2, 3 and 9). How far each source was read travels with the rollout as plain JSON (`sources`):

    settled    at                 when the wanted split was last observed
    unsettled  [[from, to], …]   times in which it was not known to be applied; `to` is null while that lasts
    router     {at, began, canary: [assigned, failed], stable: […]}   the last reading used
    collector  {cursor, reporters: {canary: […], stable: […]}}        end of the last interval used
    last       {gate: [since, end]}                                    a gate's present run of evidence
    recent     [[at, assigned, failed], …]                             the stable arm's last readings, for the watch
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from monitoring.windows import Counts
from rollout.drivers.base import ArmCounts, RouterCounts
from rollout.gates.base import Arm, Interval

Sources = dict[str, Any]

CHANGE_MARGIN_SECONDS = 1.0
BEGAN_MARGIN_SECONDS = 1.0  # routers tell whole seconds
SPANS_KEPT = 50
OUTAGE_SECONDS = 5.0
OUTAGE_SHARE = 0.5
OUTAGE_REQUESTS = 10


@dataclass(frozen=True)
class Reading:
    """One interval of one source."""

    source: str
    interval: Interval


def note_weight(sources: Sources, settled: bool, now: float) -> Sources:
    """Remember when traffic was not split as wanted; evidence that touches such a time is dropped.

    A change happens somewhere between two looks: it counts from the last look that was as wanted to the next one.
    """
    spans = [list(span) for span in sources.get("unsettled", [])]
    changing = bool(spans) and spans[-1][1] is None
    if settled and changing:
        spans[-1][1] = now
    elif not settled and not changing:
        spans.append([sources.get("settled", now), None])
    kept = {**sources, "unsettled": spans[-SPANS_KEPT:]}
    return {**kept, "settled": now} if settled else kept


def _touches_change(sources: Sources, start: float, end: float) -> bool:
    margin = CHANGE_MARGIN_SECONDS
    return any(
        end > since - margin and (to is None or start < to + margin)
        for since, to in sources.get("unsettled", [])
    )


def from_router(sources: Sources, counts: RouterCounts) -> tuple[Sources, Reading | None]:
    """The interval since the last reading; None for the first, after a router's restart, and around a change."""
    now = {
        "at": counts.at,
        "began": counts.began,
        "canary": _begun(counts.canary),
        "stable": _begun(counts.stable),
    }
    last = sources.get("router")
    fresh = {**sources, "router": now}
    if last is None or counts.began > last["at"] - BEGAN_MARGIN_SECONDS or counts.at <= last["at"]:
        return fresh, None
    canary, stable = _delta(last["canary"], counts.canary), _delta(last["stable"], counts.stable)
    if canary is None or stable is None or _touches_change(sources, last["at"], counts.at):
        return fresh, None
    used = {**now, "canary": _used(last["canary"], canary), "stable": _used(last["stable"], stable)}
    return {**sources, "router": used}, Reading("router", Interval(last["at"], counts.at, canary, stable))


def _begun(counts: ArmCounts) -> list[int]:
    """Where an interval begins: what may have failed before it is never counted in it."""
    return [counts.assigned, counts.failed + counts.unsure]


def _delta(last: Sequence[int], counts: ArmCounts) -> Arm | None:
    """What an arm did since the last reading; None when its counter went back.

    A failure is counted once and never in an interval without the request: readings that are a request apart
    leave the rest for the next interval.
    """
    n = counts.assigned - last[0]
    if n < 0:
        return None
    return Arm(n, min(n, max(0, counts.failed - last[1])))


def _used(last: Sequence[int], arm: Arm) -> list[int]:
    return [last[0] + arm.n, last[1] + arm.errors]


def from_collectors(
    sources: Sources, canary: Iterable[Counts], stable: Iterable[Counts], now: float, grace_seconds: float
) -> tuple[Sources, list[Reading]]:
    """Every closed interval after the cursor, in order.

    An interval is closed once every reporter of the last one has reported again in both arms, or `grace_seconds`
    after its end; what comes later does not count. One whose other arm is missing contributes nothing.
    """
    state = dict(sources.get("collector", {}))
    arms = {"canary": _by_interval(canary), "stable": _by_interval(stable)}
    readings: list[Reading] = []
    for start, end in sorted(arms["canary"].keys() | arms["stable"].keys()):
        if start < state.get("cursor", 0):
            continue
        found = {role: counts[(start, end)] for role, counts in arms.items() if (start, end) in counts}
        if now < end + grace_seconds and not _all_reported(state.get("reporters", {}), found):
            break
        state["cursor"] = end
        if len(found) == 2:
            state["reporters"] = {role: sorted(counts.reporters) for role, counts in found.items()}
            if not _touches_change(sources, start, end):
                interval = Interval(start, end, _arm(found["canary"]), _arm(found["stable"]))
                readings.append(Reading("collector", interval))
    return {**sources, "collector": state}, readings


def _by_interval(found: Iterable[Counts]) -> dict[tuple[float, float], Counts]:
    return {(counts.start.timestamp(), counts.end.timestamp()): counts for counts in found}


def _all_reported(expected: Mapping[str, Sequence[str]], found: Mapping[str, Counts]) -> bool:
    return bool(expected) and all(
        role in found and found[role].reporters >= frozenset(names) for role, names in expected.items()
    )


def _arm(counts: Counts) -> Arm:
    return Arm(
        counts.n,
        counts.errors,
        confidence=tuple(int(c) for c in counts.confidence),
        latency=tuple(int(c) for c in counts.latency),
    )


def note_use(sources: Sources, gate: str, interval: Interval, patience_seconds: float) -> Sources:
    """Remember since when, and until when, a gate has had requests of both arms; longer silence begins a new run."""
    if interval.canary.n == 0 or interval.stable.n == 0:
        return sources
    runs: dict[str, list[float]] = sources.get("last", {})
    since, end = runs.get(gate, [interval.start, interval.start])
    if interval.end - end > patience_seconds:
        since = interval.start
    return {**sources, "last": {**runs, gate: [since, interval.end]}}


def most_silent(sources: Sources, gates: Sequence[str]) -> tuple[str, float | None]:
    """The gate whose evidence is oldest, and when it was (unix seconds; None: never)."""
    runs: Mapping[str, Sequence[float]] = sources.get("last", {})
    gate = min(gates, key=lambda name: runs[name][1] if name in runs else -math.inf, default="")
    return gate, runs[gate][1] if gate in runs else None


def flowing_since(sources: Sources, gates: Sequence[str]) -> float | None:
    """Since when all of the gates have had evidence (unix seconds); None while one has had none."""
    runs: Mapping[str, Sequence[float]] = sources.get("last", {})
    return max((runs[name][0] for name in gates), default=None) if set(gates) <= set(runs) else None


def note_recent(sources: Sources, counts: RouterCounts) -> Sources:
    """Keep the stable arm's readings of the last seconds."""
    kept = [r for r in sources.get("recent", []) if counts.at - 2 * OUTAGE_SECONDS <= r[0] < counts.at]
    return {**sources, "recent": [*kept, [counts.at, counts.stable.assigned, counts.stable.failed]]}


def outage(sources: Sources) -> str:
    """Whether half of the stable arm's requests failed over the last seconds; the sentence that says so, or ""."""
    recent = sources.get("recent", [])
    if not recent:
        return ""
    at, assigned, failed = recent[-1]
    past = [r for r in recent if at - r[0] >= OUTAGE_SECONDS]
    if not past:
        return ""
    n, x = assigned - past[-1][1], failed - past[-1][2]
    if n < OUTAGE_REQUESTS or x < OUTAGE_SHARE * n:
        return ""
    return f"{x} of {n} requests of the new version failed within {at - past[-1][0]:.0f} s"


def as_json(interval: Interval, needs: Sequence[str]) -> dict[str, Any]:
    """Both arms as they are kept for replay: n and the counts that the gate needs, no others."""
    return {
        role: {"n": arm.n, **{name: getattr(arm, name) for name in needs}}
        for role, arm in (("canary", interval.canary), ("stable", interval.stable))
    }


def from_json(start: float, end: float, arms: Mapping[str, Mapping[str, Any]]) -> Interval:
    """The interval that `as_json` kept."""
    return Interval(start, end, _arm_from_json(arms["canary"]), _arm_from_json(arms["stable"]))


def _arm_from_json(kept: Mapping[str, Any]) -> Arm:
    """Histograms come back from JSON as lists."""
    histograms = {name: tuple(kept[name]) for name in ("confidence", "latency") if kept.get(name) is not None}
    return Arm(kept["n"], kept.get("errors", 0), **histograms)
