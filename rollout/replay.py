"""What would the judge have said of a recorded rollout: again under its own plan, or under another one? PURE.

The record is a rollout's evidence. Its traffic split was that of the plan it ran under; a replay cannot change it, so
times under another plan are those of the recorded requests.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby

from rollout import judge, phases
from rollout.gates.base import Arm, GateVerdict, Interval, State, Verdict
from rollout.judge import Judgement, dispersion
from rollout.phases import Phase, Position, Seen
from rollout.plan import Plan

DECIDED = {Phase.PROMOTING: "promoted", Phase.ROLLING_BACK: "rolled_back"}


@dataclass(frozen=True)
class Record:
    """One interval that was evidence for one gate, and where the rollout stood then."""

    gate: str
    step: int
    weight_percent: float
    interval: Interval


@dataclass(frozen=True)
class Turn:
    """A change of the replayed rollout. `recorded_percent` is the canary's weight in the record at that time."""

    at: datetime
    phase: Phase
    step: int
    weight_percent: float
    recorded_percent: float
    reason: str


@dataclass(frozen=True)
class Replay:
    """How it went: "promoted", "rolled_back", or "undecided" where the record ends before the plan does."""

    outcome: str
    turns: tuple[Turn, ...]
    gates: tuple[GateVerdict, ...]
    notes: tuple[str, ...]


def again(plan: Plan, records: Sequence[Record]) -> Judgement:
    """The last judgement of the record under the plan that it ran under: steps begin where they began.

    records  in the order in which they were absorbed
    """
    state = _told(judge.start(plan.statistical), records)
    weight: float | None = None
    for record in records:
        if record.weight_percent != weight:
            weight = record.weight_percent
            state = judge.enter_step(state, weight)
        state = judge.absorb(state, record.gate, record.interval)
    return judge.conclude(state, plan.alpha)


def under(plan: Plan, records: Sequence[Record]) -> Replay:
    """Run the record through another plan's gates and steps, deciding at the end of every recorded tick.

    records  at least one, in the order in which they were absorbed
    """
    first = next((record for record in records if record.interval.known is None), None)
    if first is None:
        raise ValueError("a record without evidence")
    asked = {gate.name for gate in plan.statistical}
    at = _begin(plan, first)
    state = _told(judge.enter_step(judge.start(plan.statistical), at.weight_percent), records)
    turns = [_turn(at, first, at.entered_at)]
    heard: dict[str, tuple[float, float]] = {}
    verdicts: tuple[GateVerdict, ...] = ()
    for now, tick in _ticks(records):
        for record in tick:
            if record.gate in asked:
                state = judge.absorb(state, record.gate, record.interval)
                heard = _heard(heard, record, plan.patience_seconds)
        found = judge.conclude(state, plan.alpha)
        verdicts = found.gates
        after = phases.decide(plan, at, _seen(plan, at, found, heard, now))
        if (after.phase, after.step) != (at.phase, at.step):
            turns.append(_turn(after, tick[-1], now))
        if after.phase in DECIDED:
            return Replay(DECIDED[after.phase], tuple(turns), verdicts, _notes(plan, records))
        if after.weight_percent != at.weight_percent:
            state = judge.enter_step(state, after.weight_percent)
        at = after
    return Replay(
        "undecided", tuple(turns), verdicts, (*_notes(plan, records), _where_it_ends(plan, at, verdicts))
    )


def _begin(plan: Plan, first: Record) -> Position:
    """At the first step, as if the version had just become ready; mirroring before it is not replayed."""
    weight, started = plan.steps[0].weight_percent, _utc(first.interval.start)
    reason = f"step 1 of {len(plan.steps)} at {weight:g} %"
    return Position(Phase.RUNNING, 0, weight, entered_at=started, step_entered_at=started, reason=reason)


def _told(state: State, records: Sequence[Record]) -> State:
    """Gates whose events may cluster hear that requests were assigned one by one, unless a record says else."""
    known = {record.gate for record in records if record.interval.known is not None}
    one_by_one = {"assignment": dispersion.Assignment.REQUEST.value, "history": dispersion.fresh()}
    for gate in judge.unassumed(state):
        if gate not in known:
            state = judge.absorb(state, gate, Interval(0.0, 1.0, Arm(0), Arm(0), known=one_by_one))
    return state


def _ticks(records: Sequence[Record]) -> Iterator[tuple[datetime, list[Record]]]:
    """What was absorbed together: a tick ends with the latest interval that it saw."""
    ends: list[float] = []
    for record in records:
        ends.append(max(record.interval.end, ends[-1] if ends else record.interval.end))
    for end, group in groupby(zip(ends, records, strict=True), key=lambda pair: pair[0]):
        yield _utc(end), [record for _, record in group]


def _heard(
    heard: dict[str, tuple[float, float]], record: Record, patience_seconds: float
) -> dict[str, tuple[float, float]]:
    """Per gate the present run of evidence (since, until); longer silence begins a new one."""
    interval = record.interval
    if interval.aside or interval.known is not None or not (interval.canary.n and interval.stable.n):
        return heard
    since, until = heard.get(record.gate, (interval.start, interval.start))
    if interval.end - until > patience_seconds:
        since = interval.start
    return {**heard, record.gate: (since, interval.end)}


def _seen(
    plan: Plan, at: Position, found: Judgement, heard: dict[str, tuple[float, float]], now: datetime
) -> Seen:
    """What a tick would have seen on a fleet that obeys at once."""
    required = [gate.name for gate in plan.statistical if gate.required and not gate.dry_run]
    silent = min(required, key=lambda name: heard[name][1] if name in heard else 0.0, default="")
    flowing = bool(required) and all(name in heard for name in required)
    return Seen(
        now=now,
        canary_ready=True,
        observed_percent=at.weight_percent,
        failed=found.failed,
        gates=found.gates,
        last_evidence_at=_utc(heard[silent][1]) if silent in heard else None,
        silent_gate=silent,
        evidence_since=_utc(max(heard[name][0] for name in required)) if flowing else None,
    )


def _turn(at: Position, record: Record, now: datetime) -> Turn:
    return Turn(now, at.phase, at.step, at.weight_percent, record.weight_percent, at.reason)


def _notes(plan: Plan, records: Sequence[Record]) -> tuple[str, ...]:
    """What a reader must know to believe the replay as far as it goes, and no further."""
    weights = sorted({record.weight_percent for record in records})
    split = ", ".join(f"{weight:g} %" for weight in weights)
    notes = [
        f"the record's split was that of the plan it ran under ({split}); under this plan the canary would have had "
        "more or fewer requests, and verdicts would have come sooner or later"
    ]
    missing = [gate.name for gate in plan.statistical if gate.name not in {record.gate for record in records}]
    if missing:
        notes.append(f"the record holds no evidence for {', '.join(missing)}")
    if plan.holds:
        notes.append(f"taken as passed: {', '.join(gate.name for gate in plan.holds)}")
    if plan.shadow is not None:
        notes.append("mirroring before the first step is not replayed")
    return tuple(notes)


def _where_it_ends(plan: Plan, at: Position, verdicts: Sequence[GateVerdict]) -> str:
    waiting = [v.name for v in verdicts if v.required and not v.dry_run and v.verdict is not Verdict.PASS]
    waits = f"waiting for {', '.join(waiting)}" if waiting else "waiting for the dwell to pass"
    return f"the record ends at step {at.step + 1} of {len(plan.steps)} ({at.weight_percent:g} %), {waits}"


def _utc(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, tz=UTC)
