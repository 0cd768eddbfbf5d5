"""What did collectors see of both arms in each closed interval, and what of it do the plan's gates read?

How far they were read travels in `sources` (see evidence), under "collector":
    cursor     end of the last interval used
    reporters  {canary: […], stable: […]} who reported it
    segments   {"device": ["nano", …]} the values that are told apart, the same in both arms and for all time
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from controlplane.models import ModelVersion
from monitoring import intervals
from monitoring.intervals import EMBEDDING, HISTOGRAMS, Observed
from rollout import gates
from rollout.evidence.sources import Reading, Sources, as_json, touches_change
from rollout.gates import embedding_shift
from rollout.gates.base import Arm, Dispersed, GateSpec, Interval, State, key_buckets
from rollout.judge import dispersion
from rollout.judge.dispersion import Assignment

SOURCE = "collector"
MOST_VALUES = 32  # of one segment key; the others are "other"
OTHER = "other"
HISTORY = timedelta(hours=24)  # in which clusters of errors are looked for

Span = tuple[float, float]  # unix seconds


class Reported(Protocol):
    """An interval and who has reported of it."""

    @property
    def start(self) -> datetime: ...
    @property
    def end(self) -> datetime: ...
    @property
    def reporters(self) -> frozenset[str]: ...


@dataclass(frozen=True)
class Wanted:
    """What to read: columns of windows, and segment keys."""

    columns: tuple[str, ...]
    keys: tuple[str, ...]

    @classmethod
    def by(cls, specs: Sequence[GateSpec], sources: Mapping[str, str], assignment: str) -> Wanted:
        """What these gates read, {gate: source}: of those with another source only segments, and errors by key.

        Errors by key are not read where requests are assigned one by one: they would change nothing.
        """
        columns: set[str] = set()
        for spec in specs:
            gate = gates.get(spec.name)
            if sources[spec.name] == SOURCE or spec.segments:
                columns.update(gate.needs)
            if assignment != Assignment.REQUEST and isinstance(gate, Dispersed):
                columns.add(gate.events_by_key)
        known = (*HISTOGRAMS, EMBEDDING)
        keys = {spec.segments for spec in specs if spec.segments}
        return cls(tuple(name for name in known if name in columns), tuple(sorted(keys)))


def read(
    sources: Sources,
    canary: ModelVersion,
    stable: ModelVersion,
    wanted: Wanted,
    since: datetime,
    now: datetime,
    grace_seconds: float,
    fleet: str,
) -> tuple[Sources, list[Reading]]:
    """Every interval of the fleet's that has closed since the last one used (at first since `since`), in order."""
    cursor = sources.get(SOURCE, {}).get("cursor")
    since = datetime.fromtimestamp(cursor, tz=UTC) if cursor else since
    versions = (canary, stable)
    heard = intervals.heard(versions, since, now, fleet=fleet)
    sources, spans = close(sources, heard[0], heard[1], now.timestamp(), grace_seconds)
    if not spans:
        return sources, []
    first, last = (datetime.fromtimestamp(at, tz=UTC) for at in (spans[0][0], spans[-1][1]))
    bins = [_bins(version) for version in versions] if EMBEDDING in wanted.columns else ()
    arms = intervals.read(versions, first, last, wanted.columns, by=wanted.keys, bins=bins, fleet=fleet)
    return readings(sources, spans, arms[0], arms[1])


def _bins(version: ModelVersion) -> intervals.Coarse | None:
    return intervals.coarse(version, tuple(embedding_shift.QUANTILES.tolist()), embedding_shift.ROWS)


def close(
    sources: Sources, canary: Iterable[Reported], stable: Iterable[Reported], now: float, grace_seconds: float
) -> tuple[Sources, list[Span]]:
    """The intervals that are evidence now, in order.

    An interval is closed once every reporter of the last one has reported again in both arms, or `grace_seconds`
    after its end; what comes later does not count. One whose other arm is missing, or that touches a change of
    weight, contributes nothing.
    """
    state = dict(sources.get(SOURCE, {}))
    arms = {"canary": _by_span(canary), "stable": _by_span(stable)}
    spans: list[Span] = []
    for start, end in sorted(arms["canary"].keys() | arms["stable"].keys()):
        if start < state.get("cursor", 0):
            continue
        found = {role: told[(start, end)] for role, told in arms.items() if (start, end) in told}
        if now < end + grace_seconds and not _all_reported(state.get("reporters", {}), found):
            break
        state["cursor"] = end
        if len(found) == 2:
            state["reporters"] = {role: sorted(told.reporters) for role, told in found.items()}
            if not touches_change(sources, start, end):
                spans.append((start, end))
    return {**sources, SOURCE: state}, spans


def _span(told: Reported | Observed) -> Span:
    return told.start.timestamp(), told.end.timestamp()


def _by_span(found: Iterable[Reported]) -> dict[Span, Reported]:
    return {_span(told): told for told in found}


def _all_reported(expected: Mapping[str, Sequence[str]], found: Mapping[str, Reported]) -> bool:
    return bool(expected) and all(
        role in found and found[role].reporters >= frozenset(names) for role, names in expected.items()
    )


def readings(
    sources: Sources, spans: Iterable[Span], canary: Iterable[Observed], stable: Iterable[Observed]
) -> tuple[Sources, list[Reading]]:
    """Both arms' counts of these intervals."""
    arms = [{_span(counts): counts for counts in found} for found in (canary, stable)]
    kept: list[Reading] = []
    for span in spans:
        if span not in arms[0] or span not in arms[1]:  # deleted since it was closed
            continue
        both = arms[0][span], arms[1][span]
        sources = _meet(sources, both)
        values = sources[SOURCE].get("segments", {})
        canary_arm, stable_arm = (_arm(_bounded(counts, values)) for counts in both)
        kept.append(Reading(SOURCE, Interval(*span, canary_arm, stable_arm)))
    return sources, kept


def _meet(sources: Sources, both: tuple[Observed, Observed]) -> Sources:
    """Remember new values of segment keys while there is room, those with most requests first.

    Both arms and all intervals must put the same values under "other", else it would compare different people.
    """
    requests: dict[str, int] = {}
    for counts in both:
        for label, part in counts.segments.items():
            requests[label] = requests.get(label, 0) + part.n
    if not requests:
        return sources
    known = {key: list(values) for key, values in sources[SOURCE].get("segments", {}).items()}
    for label in sorted(requests, key=lambda label: (-requests[label], label)):
        key, _, value = label.partition("=")
        values = known.setdefault(key, [])
        if value not in values and len(values) < MOST_VALUES:
            values.append(value)
    return {**sources, SOURCE: {**sources[SOURCE], "segments": known}}


def _bounded(counts: Observed, known: Mapping[str, Sequence[str]]) -> Observed:
    """The same counts with the values that have no place of their own added up as "other"."""
    parts: dict[str, list[Observed]] = {}
    for label, part in counts.segments.items():
        key, _, value = label.partition("=")
        parts.setdefault(label if value in known.get(key, ()) else f"{key}={OTHER}", []).append(part)
    return replace(counts, segments={label: reduce(Observed.plus, found) for label, found in parts.items()})


def _arm(counts: Observed) -> Arm:
    found: dict[str, Any] = {name: getattr(counts, name) for name in (*HISTOGRAMS, EMBEDDING, "reference")}
    return Arm(
        counts.n,
        counts.errors,
        reference_digest=counts.reference_digest,
        segments={label: _arm(part) for label, part in counts.segments.items()},
        **{name: _tuples(value) for name, value in found.items() if value is not None},
    )


def _tuples(counts: NDArray[np.int64]) -> tuple[Any, ...]:
    return tuple(counts.tolist()) if counts.ndim == 1 else tuple(tuple(row) for row in counts.tolist())


def history(stable: ModelVersion, now: datetime, fleet: str) -> State:
    """What the stable arm's errors of the last day say about clusters: a state of rollout.judge.dispersion."""
    found = intervals.error_history(stable, now - HISTORY, now, fleet=fleet)
    state, quiet_seconds = dispersion.fresh(), found.seconds
    for counts in found.intervals:
        seconds = (counts.end - counts.start).total_seconds()
        if counts.errors_by_key_bucket is not None:
            state = dispersion.absorb(
                state, counts.errors_by_key_bucket.tolist(), n=counts.n, seconds=seconds
            )
            quiet_seconds -= seconds
    return {**state, "seconds": state["seconds"] + max(0.0, quiet_seconds)}


def told(stable: ModelVersion | None, assignment: str, now: datetime, fleet: str) -> Interval:
    """What a gate whose events come in clusters is told before any evidence: see gates.base.Dispersed."""
    one_by_one = assignment == Assignment.REQUEST
    past = dispersion.fresh() if one_by_one or stable is None else history(stable, now, fleet)
    known = {"assignment": assignment, "history": past}
    return Interval((now - HISTORY).timestamp(), now.timestamp(), Arm(0), Arm(0), known=known)


def beside(spec: GateSpec, interval: Interval) -> Interval | None:
    """What of a collectors' interval a gate reads whose whole comes from elsewhere: segments, and errors by key."""
    parted = bool(spec.segments and interval.canary.segments and interval.stable.segments)
    return replace(interval, aside=True) if parted or _teaches(spec, interval) else None


def kept(spec: GateSpec, interval: Interval) -> dict[str, Any]:
    """The interval as a row of the gate's evidence."""
    gate = gates.get(spec.name)
    learnt_from = (gate.events_by_key,) if _teaches(spec, interval) and isinstance(gate, Dispersed) else ()
    return as_json(interval, (*gate.needs, *learnt_from), spec.segments)


def _teaches(spec: GateSpec, interval: Interval) -> bool:
    return key_buckets(gates.get(spec.name), interval.stable) is not None
