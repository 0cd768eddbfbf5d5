"""What did both arms do in each closed interval? Here from the router's counters; from collectors in collected.

An interval is used once, in order, and only when the split did not change within a second of it (judge.md, rules
2, 3 and 9). How far each source was read travels with the rollout as plain JSON (`sources`):

    settled    at                 when the wanted split was last observed
    unsettled  [[from, to], …]   times in which it was not known to be applied; `to` is null while that lasts
    router     {at, began, canary: [assigned, failed], stable: […]}   the last reading used
    prometheus {at, canary: [requests, failures], stable: […], …}      see evidence.scraped
    histograms {at, canary: [96], stable: [96], troubled: [..], was_troubled}   the router's latencies last read
    collector  {cursor, reporters: {…}, segments: {…}}                 see evidence.collected
    last       {gate: [since, end]}                                    a gate's present run of evidence
    odd        [hand, incident]   whether the last look saw a change by hand, and both arms failing
    recent     [[at, n, failed, n_c, failed_c], …]                     last readings of stable and canary: outages
    holds      {name: {at, step, verdict, …}}                          the holds' last answers: see rollout.asking
    split      {test, mismatch, proof, since}                          see evidence.splits
    asked      {at, percent, wait}                                     a refused weight: see rollout.tick
    labels     {cursor}, pairs {cursor}                                see evidence.labelled
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rollout.drivers.base import ArmCounts, RouterCounts
from rollout.evidence import kept_arms, kept_labels
from rollout.gates.base import Arm, Interval

Sources = dict[str, Any]

CHANGE_MARGIN_SECONDS = 1.0
BEGAN_MARGIN_SECONDS = 1.0  # routers tell whole seconds
SPANS_KEPT = 50
ROUTER_LATENCY = "router-latency"
HISTOGRAM_SECONDS = 5.0  # the least length of an interval of router latencies
HISTOGRAM_LAG_SECONDS = 5.0  # Envoy tells a latency so much later at most (its stats_flush_interval)
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


def was_settled(sources: Sources) -> bool:
    """Whether the last look found the split as wanted."""
    spans = sources.get("unsettled", [])
    return "settled" in sources and not (spans and spans[-1][1] is None)


def touches_change(sources: Sources, start: float, end: float, margin: float = CHANGE_MARGIN_SECONDS) -> bool:
    """Whether the split changed within `margin` seconds of [start, end)."""
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
    if canary is None or stable is None or touches_change(sources, last["at"], counts.at):
        return fresh, None
    used = {**now, "canary": _used(last["canary"], canary), "stable": _used(last["stable"], stable)}
    return {**sources, "router": used}, Reading("router", Interval(last["at"], counts.at, canary, stable))


def latency_from_router(sources: Sources, counts: RouterCounts) -> tuple[Sources, Reading | None]:
    """The router's latencies since the last reading, once that is 5 s ago; None where the router offers none.

    A router's latency includes retries and fallback: an interval with any of them, in either arm, is dropped. So is the
    one after it, because histograms lag behind counters.
    """
    canary, stable = counts.canary, counts.stable
    if canary.latency is None or stable.latency is None:
        return sources, None
    troubled = [canary.retried, stable.retried, canary.failed, stable.failed]
    now = {"at": counts.at, "canary": list(canary.latency), "stable": list(stable.latency)}
    last = sources.get("histograms")
    if last is None or counts.began > last["at"] - BEGAN_MARGIN_SECONDS or counts.at <= last["at"]:
        return {**sources, "histograms": {**now, "troubled": troubled, "was_troubled": True}}, None
    if counts.at - last["at"] < HISTOGRAM_SECONDS:
        return sources, None
    most = [max(pair) for pair in zip(troubled, last["troubled"], strict=True)]  # `failed` may sink a little
    is_troubled = most != last["troubled"]
    fresh = {**sources, "histograms": {**now, "troubled": most, "was_troubled": is_troubled}}
    arms = _latencies(last["canary"], canary.latency), _latencies(last["stable"], stable.latency)
    changing = touches_change(sources, last["at"] - HISTOGRAM_LAG_SECONDS, counts.at)
    if is_troubled or last["was_troubled"] or changing or arms[0] is None or arms[1] is None:
        return fresh, None
    return fresh, Reading(ROUTER_LATENCY, Interval(last["at"], counts.at, arms[0], arms[1]))


def _latencies(last: Sequence[int], now: Sequence[int]) -> Arm | None:
    """An arm's latencies since the last reading; None when a count went back."""
    bins = tuple(new - old for new, old in zip(now, last, strict=True))
    return None if min(bins) < 0 else Arm(sum(bins), latency=bins)


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


def note_recent(
    sources: Sources, counts: RouterCounts, apart_seconds: float = 0.0, since: float = 0.0
) -> Sources:
    """Keep both arms' readings of the last seconds; `apart_seconds` lie between two of them at least.

    None from before `since`, when the arms changed their names.
    """
    since = max(since, counts.at - 2 * max(OUTAGE_SECONDS, apart_seconds))
    kept = [r for r in sources.get("recent", []) if since <= r[0] < counts.at]
    canary, stable = counts.canary, counts.stable
    now = [counts.at, stable.assigned, stable.failed, canary.assigned, canary.failed]
    return {**sources, "recent": [*kept, now]}


def outage(sources: Sources) -> str:
    """Whether half of the stable arm's requests failed over the last seconds; the sentence that says so, or ""."""
    lately = _lately(sources)
    if lately is None or not _fails_outright(*lately.stable):
        return ""
    n, x = lately.stable
    return f"{x} of {n} requests of the new version failed within {lately.seconds:.0f} s"


def shared_incident(sources: Sources) -> str:
    """Whether half of *both* arms' requests failed over the last seconds; the sentence that says so, or ""."""
    lately = _lately(sources)
    if lately is None or not (_fails_outright(*lately.stable) and _fails_outright(*lately.canary)):
        return ""
    (n, x), (n_c, x_c) = lately.stable, lately.canary
    return f"both arms fail: stable {x} of {n} requests, canary {x_c} of {n_c}, within {lately.seconds:.0f} s"


@dataclass(frozen=True)
class _Lately:
    seconds: float
    stable: tuple[int, int]  # requests, failed
    canary: tuple[int, int]


def _lately(sources: Sources) -> _Lately | None:
    """Both arms over the last OUTAGE_SECONDS or a little more; None before there were so many."""
    recent = sources.get("recent", [])
    past = [r for r in recent if recent[-1][0] - r[0] >= OUTAGE_SECONDS]
    if not past:
        return None
    seconds, n, x, n_c, x_c = (now - then for now, then in zip(recent[-1], past[-1], strict=True))
    return _Lately(seconds, (n, x), (n_c, x_c))


def _fails_outright(n: int, x: int) -> bool:
    return n >= OUTAGE_REQUESTS and x >= OUTAGE_SHARE * n


def as_json(interval: Interval, needs: Sequence[str], segment_key: str = "") -> dict[str, Any]:
    """Both arms as they are kept for replay: see kept_arms."""
    kept: dict[str, Any] = {
        role: kept_arms.arm_json(arm, needs, segment_key)
        for role, arm in (("canary", interval.canary), ("stable", interval.stable))
    }
    kept |= kept_labels.to_json(interval)
    if interval.aside:
        kept["aside"] = True
    return kept if interval.known is None else {**kept, "known": dict(interval.known)}


def from_json(start: float, end: float, arms: Mapping[str, Any]) -> Interval:
    """The interval that `as_json` kept."""
    canary, stable = (kept_arms.arm_from_json(arms[role]) for role in ("canary", "stable"))
    truths = kept_labels.from_json(arms)
    return Interval(
        start, end, canary, stable, *truths, aside=arms.get("aside", False), known=arms.get("known")
    )
