"""How many requests did Envoy assign to each arm, how many first attempts failed, and how long did they take?

A first attempt is good when the arm's own server answered it well (`rq_success` of the endpoint in the cluster that
only this arm uses); everything else that the split assigned failed: 5xx, timeouts, resets, closed ports, and what went
straight to the fallback because the server was ejected.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from davy.counting import LATENCY_BINS, LATENCY_EDGES_SECONDS

from rollout.drivers.base import ArmCounts, RouteSpec
from rollout.drivers.envoy import routes
from rollout.drivers.envoy.admin import Admin
from rollout.drivers.envoy.routes import Json

_COMPLETED = "external.upstream_rq_completed"
_RETRIED = "upstream_rq_retry"
_MILLISECONDS = "external.upstream_rq_time"


@dataclass(frozen=True)
class Counted:
    """Both arms of one or more Envoys; `uptime_seconds` of the one that started last."""

    uptime_seconds: int
    canary: ArmCounts
    stable: ArmCounts

    def plus(self, other: Counted) -> Counted:
        """Both together."""
        uptime = min(self.uptime_seconds, other.uptime_seconds)
        return Counted(uptime, _added(self.canary, other.canary), _added(self.stable, other.stable))


def read(admin: Admin, route: RouteSpec) -> Counted:
    """Both arms of one Envoy. Raises DriverError.

    Envoy reads the clusters' counters before the endpoints', and requests complete in between: within one
    reading they look good and not assigned, from the first to the second one assigned and not good.
    """
    arms = rf"cluster\.{re.escape(route.model)}/(canary|stable)/.-then-."
    answered = rf"{arms}/own\.endpoint\..*\.rq_success"
    wanted = rf"^(server\.uptime|{arms}\.({re.escape(_COMPLETED)}|{re.escape(_RETRIED)})|{answered})$"
    first, second = admin.counters(wanted), admin.counters(wanted)
    histograms = admin.histograms(rf"^{arms}\.{re.escape(_MILLISECONDS)}$")
    canary, stable = (
        _arm(first, second, histograms, route.model, slot) for slot in (route.canary_slot, route.stable_slot)
    )
    return Counted(second.get("server.uptime", 0), canary, stable)


def latency_bins(buckets: Iterable[Json]) -> tuple[int, ...]:
    """Envoy's buckets of whole milliseconds, {lower_bound, width, count}, as the 96 bins of davy.counting.

    A request of 5.9 ms is in Envoy's bucket 5, one of 117 ms in the bucket from 110, 10 wide: each bucket is counted
    where its middle lies, so that a request stands at most half a millisecond, or 5 % above 100 ms, beside its place.
    Below 1 ms nothing is told apart. Both arms are shifted alike.
    """
    bins = np.zeros(LATENCY_BINS, np.int64)
    for bucket in buckets:
        middle_seconds = (bucket["lower_bound"] + max(bucket["width"], 1) / 2) / 1000
        bins[np.searchsorted(LATENCY_EDGES_SECONDS[1:-1], middle_seconds, side="right")] += bucket["count"]
    return tuple(int(count) for count in bins)


def _arm(
    first: Mapping[str, int],
    second: Mapping[str, int],
    histograms: Mapping[str, list[Json]] | None,
    model: str,
    slot: str,
) -> ArmCounts:
    """One slot's counts, in either role, at the second of two readings of one Envoy."""
    arms = [f"cluster.{routes.arm_cluster(model, role, slot)}" for role in routes.ROLES]
    assigned = tuple(f"{arm}.{_COMPLETED}" for arm in arms)
    answered = tuple(f"{arm}/own.endpoint." for arm in arms)
    n, good = ([_sum(reading, names) for reading in (first, second)] for names in (assigned, answered))
    failed = max(0, n[0] - good[0], n[1] - good[1])
    retried = _sum(second, tuple(f"{arm}.{_RETRIED}" for arm in arms))
    latency = None
    if histograms is not None:  # one without requests is not there yet
        buckets = (histograms.get(f"{arm}.{_MILLISECONDS}", []) for arm in arms)
        latency = latency_bins(bucket for each in buckets for bucket in each)
    return ArmCounts(n[1], failed, max(0, n[1] - good[0] - failed), retried, latency)


def _sum(reading: Mapping[str, int], beginnings: tuple[str, ...]) -> int:
    return sum(count for name, count in reading.items() if name.startswith(beginnings))


def _added(one: ArmCounts, other: ArmCounts) -> ArmCounts:
    latency = None
    if one.latency is not None and other.latency is not None:
        latency = tuple(a + b for a, b in zip(one.latency, other.latency, strict=True))
    return ArmCounts(
        one.assigned + other.assigned,
        one.failed + other.failed,
        one.unsure + other.unsure,
        one.retried + other.retried,
        latency,
    )
