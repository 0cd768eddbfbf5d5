"""What did both arms do between two evaluations of the counters that Prometheus has scraped?

A counter in Prometheus is as old as its target's last scrape. So the counters of both arms are evaluated at one moment,
a scrape interval ago, when every scrape up to it has been stored; what they say was counted up to a scrape interval
before that moment. An interval [t, u) of them therefore holds requests of [t − scrape, u), and is dropped where the
split changed within a scrape interval and a second of it.

What stays approximate: counters of different targets (two pods, but not two counters of one gateway) are up to a scrape
interval apart, so the start of an incident of both arms may be seen in one arm's interval and only in the next one of
the other's.

How far they were read travels in `sources` (see evidence.sources), under "prometheus":
    asked          when Prometheus was last asked
    at             the last moment evaluated; absent: what comes next only says where to begin
    canary, stable [requests, failures] then
    returned_at    a counter fell or was gone: a target that was lost is back by then, if it comes back
    said           why the last reading was no evidence; "" while all is well
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.drivers.base import RouterCounts, RouteSpec
from rollout.drivers.scraped import Scraper
from rollout.evidence.sources import CHANGE_MARGIN_SECONDS, Reading, Sources, touches_change
from rollout.gates.base import Arm, Interval
from rollout.prometheus import NoSeriesError, PrometheusError

SOURCE = "prometheus"
RETURN_SECONDS = 300.0  # a target that failed to be scraped is scraped again within this time
ARMS = ("canary", "stable")
COUNTERS = ("requests", "failures")


def limits(scrape_seconds: float) -> dict[str, float]:
    """The shortest interval, and how soon an interval is there: after something happened, and after a new weight.

    What happens is scraped within one scrape interval, evaluated within another, and that moment is asked for one
    later. A new weight's first interval begins a margin, and at most one interval more, after it.
    """
    margin = scrape_seconds + CHANGE_MARGIN_SECONDS
    return {
        "smallest_interval_seconds": scrape_seconds,
        "notices_within_seconds": 3 * scrape_seconds,
        "first_within_seconds": margin + 3 * scrape_seconds,
    }


def ask(
    sources: Sources, scraper: Scraper, route: RouteSpec, versions: Mapping[str, str], now: float
) -> tuple[Sources, RouterCounts | None]:
    """Both arms' counters, once a scrape interval; None in between and where Prometheus has no number.

    versions  {slot: name of the version in it};  now  unix seconds
    """
    state = sources.get(SOURCE, {})
    if now < state.get("asked", 0.0) + scraper.scrape_seconds:
        return sources, None
    try:
        counts = scraper.counts(route, versions, now - scraper.scrape_seconds)
    except PrometheusError as err:
        lost = isinstance(err, NoSeriesError) and "at" in state
        returned_at = now + RETURN_SECONDS if lost else state.get("returned_at", 0.0)
        return {**sources, SOURCE: {"asked": now, "said": str(err), "returned_at": returned_at}}, None
    return {**sources, SOURCE: {**state, "asked": now}}, counts


def said(sources: Sources) -> str:
    """Why the last reading was no evidence, in words; "" where it was, or where it lay around a change of weight."""
    return str(sources.get(SOURCE, {}).get("said", ""))


def read(sources: Sources, counts: RouterCounts, scrape_seconds: float) -> tuple[Sources, Reading | None]:
    """The interval since the last reading; None for the first, around a change, and where the counts cannot be."""
    last = sources.get(SOURCE, {})
    now: dict[str, Any] = {
        **last,
        "at": counts.at,
        "canary": [counts.canary.assigned, counts.canary.failed],
        "stable": [counts.stable.assigned, counts.stable.failed],
        "said": "",
    }
    if "at" not in last or counts.at <= last["at"]:
        return {**sources, SOURCE: now}, None
    moved = {arm: [new - old for new, old in zip(now[arm], last[arm], strict=True)] for arm in ARMS}
    wrong = _fell(moved)
    if wrong:
        now["returned_at"] = counts.at + RETURN_SECONDS
    elif last["at"] < last.get("returned_at", 0.0):
        wrong = (
            last["said"] or f"a counter in Prometheus fell, or was gone, less than {RETURN_SECONDS:g} s ago"
        )
    wrong = wrong or _impossible(moved)
    fresh = {**sources, SOURCE: {**now, "said": wrong}}
    margin = scrape_seconds + CHANGE_MARGIN_SECONDS
    if wrong or touches_change(sources, last["at"], counts.at, margin):
        return fresh, None
    canary, stable = (Arm(*moved[arm]) for arm in ARMS)
    return fresh, Reading(SOURCE, Interval(last["at"], counts.at, canary, stable))


def _fell(moved: Mapping[str, list[int]]) -> str:
    """Which counter went back, in words; "" when none did.

    A target that is not scraped is missing from its sum; all that it ever counted is back in it with its next scrape,
    and would look like requests of that moment. So a fall costs the evidence of RETURN_SECONDS.
    """
    fallen = [
        f"{arm}'s {counter}" for arm in ARMS for counter, n in zip(COUNTERS, moved[arm], strict=True) if n < 0
    ]
    if not fallen:
        return ""
    why = "a restart, or a target that was not scraped"
    return f"the {' and '.join(fallen)} fell in Prometheus ({why}): counted again after {RETURN_SECONDS:g} s"


def _impossible(moved: Mapping[str, list[int]]) -> str:
    """Whose failures are more than its requests, in words."""
    for arm in ARMS:
        n, failures = moved[arm]
        if failures > n:
            asked = "`requests` and `failures` have to count the same requests of the same targets"
            return f"Prometheus counts {failures:,} failures of {n:,} requests of the {arm}: {asked}"
    return ""
