"""Given where a rollout stands and what is seen now, what happens next? The state machine. PURE.

Silence never promotes: every way forward needs a PASS of each required gate, a ready canary and an observed weight.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from rollout.gates.base import GateVerdict, Verdict
from rollout.plan import Plan


class Phase(StrEnum):
    """The states of a rollout (api.md)."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    HELD = "held"
    PROMOTING = "promoting"
    WATCHING = "watching"
    PROMOTED = "promoted"
    ROLLING_BACK = "rolling_back"
    ROLLED_BACK = "rolled_back"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"
    FAILED = "failed"


TERMINAL = frozenset({Phase.PROMOTED, Phase.ROLLED_BACK, Phase.ABORTED, Phase.SUPERSEDED, Phase.FAILED})
_NO_GATE = "evidence"  # what is waited for before any gate has spoken
JUDGED = frozenset({Phase.RUNNING, Phase.PAUSED, Phase.HELD})


@dataclass(frozen=True)
class Position:
    """Where a rollout stands. `promoted_roles` is true once the new version is the route's stable one."""

    phase: Phase
    step: int
    weight_percent: float
    entered_at: datetime  # of the phase
    step_entered_at: datetime
    ending: Phase | None = None  # what ROLLING_BACK ends as
    promoted_roles: bool = False
    direct: bool = False  # was stable a short while ago: steps and analysis are skipped
    reason: str = ""


@dataclass(frozen=True)
class Seen:
    """What one tick saw. `observed_percent` is of the canary slot under the route's present roles."""

    now: datetime
    canary_ready: bool
    observed_percent: float | None
    first_version: bool = False  # the route has no stable version: there is nothing to compare with
    blocked_by: str = ""  # another rollout of the route that is not over yet
    trouble: str = ""  # the driver's error
    refused: str = ""  # what no further attempt changes, in words: the version, the fleet, its refusal
    failed: GateVerdict | None = None
    held_by: GateVerdict | None = None  # a hold that says no
    changed_by_hand: str = ""  # somebody else moved the route's weight: what was seen, in words
    gates: tuple[GateVerdict, ...] = ()  # those that count where the rollout stands
    last_evidence_at: datetime | None = None  # of the required gate that has been silent longest
    silent_gate: str = ""
    evidence_since: datetime | None = None  # when the present unbroken run of evidence began
    outage: str = ""  # in WATCHING: the new version fails outright and the old one is ready


def decide(plan: Plan, at: Position, seen: Seen) -> Position:
    """The next position; the same object when nothing changes. Every change carries a reason for 3 a.m."""
    match at.phase:
        case Phase.PENDING:
            return _pending(plan, at, seen)
        case Phase.RUNNING | Phase.HELD | Phase.PAUSED:
            return _judged(plan, at, seen)
        case Phase.PROMOTING:
            return _promoting(plan, at, seen)
        case Phase.WATCHING:
            return _watching(plan, at, seen)
        case Phase.ROLLING_BACK:
            return _rolling_back(at, seen)
        case _:
            return at


def _to(at: Position, phase: Phase, now: datetime, reason: str, **changes: object) -> Position:
    return replace(at, phase=phase, entered_at=now, reason=reason, **changes)  # type: ignore[arg-type]


def _say(at: Position, reason: str) -> Position:
    return at if at.reason == reason else replace(at, reason=reason)


def _pending(plan: Plan, at: Position, seen: Seen) -> Position:
    if seen.blocked_by:
        return _say(at, f"waits for {seen.blocked_by} to be over")
    if seen.refused:
        ended = "it got no traffic, the rollout is over; correct that and start it again"
        return _to(at, Phase.FAILED, seen.now, f"{seen.refused}; {ended}")
    if not seen.canary_ready:
        waiting = seen.trouble or "the slot is loading the version"
        return _say(at, f"waits at weight 0 until the version is ready: {waiting}")
    if seen.first_version and seen.failed is not None:
        return _to(at, Phase.ROLLED_BACK, seen.now, f"it got no traffic: {seen.failed.reason}")
    if seen.first_version and _not_passed(seen):
        return _say(at, f"the version is ready and waits at weight 0 for {_people_waited_for(at, seen)}")
    if seen.first_version:
        reason = (
            "first version of this route: goes live without analysis, there is nothing to compare it with"
        )
        return _to(at, Phase.PROMOTING, seen.now, reason, promoted_roles=True)
    if at.direct:
        reason = "it was stable a short while ago: steps and analysis are skipped"
        return promote(plan, at, seen.now, reason)
    if plan.shadow is not None:
        reason = f"the version is ready: {plan.shadow.percent:g} % of live requests are mirrored to it"
        weight = 0.0
    else:
        weight = plan.steps[0].weight_percent
        reason = f"the version is ready: step 1 of {len(plan.steps)} at {weight:g} %"
    return _to(at, Phase.RUNNING, seen.now, reason, step=0, weight_percent=weight, step_entered_at=seen.now)


def shadowing(plan: Plan, at: Position) -> bool:
    """Whether live requests are only mirrored to the canary: the stage before the first step."""
    return plan.shadow is not None and at.phase in JUDGED and at.weight_percent == 0


def _judged(plan: Plan, at: Position, seen: Seen) -> Position:
    if seen.failed is not None:
        return roll_back(at, seen.now, seen.failed.failed_because, Phase.ROLLED_BACK)
    if at.phase is Phase.PAUSED:
        return at
    if seen.changed_by_hand and plan.on_hand_change == "hold" and seen.observed_percent is not None:
        reason = f"paused: {seen.changed_by_hand}; resume it to go on from there"
        return _to(at, Phase.PAUSED, seen.now, reason, weight_percent=seen.observed_percent)
    if seen.held_by is not None:
        reason = f"{seen.held_by.name} says no: {seen.held_by.reason}"
        return _say(at, reason) if at.phase is Phase.HELD else _to(at, Phase.HELD, seen.now, reason)
    waiting = _what_is_missing(plan, at, seen)
    if not waiting:
        return advance(plan, at, seen.now, _passed(plan, at, seen))
    stuck = _stuck_reason(plan, at, seen)
    if stuck and plan.on_silence == "rollback":
        return roll_back(at, seen.now, f"{stuck}; the plan rolls back on silence", Phase.ROLLED_BACK)
    if stuck:
        if at.phase is Phase.HELD:
            return _say(at, stuck)
        return _to(at, Phase.HELD, seen.now, stuck)
    if at.phase is Phase.HELD:
        return _to(at, Phase.RUNNING, seen.now, f"goes on: {waiting}")
    return _say(at, waiting)


def _passed(plan: Plan, at: Position, seen: Seen) -> str:
    """Why the step is left; where nothing had to pass while requests were mirrored, none is said to have passed."""
    if not shadowing(plan, at):
        return f"every gate passed at {at.weight_percent:g} %"
    lasted = f"mirrored for {(seen.now - at.step_entered_at).total_seconds():.0f} s"
    required = any(g.required and not g.dry_run for g in seen.gates)
    return f"{lasted}, every gate of it passed" if required else lasted


def _what_is_missing(plan: Plan, at: Position, seen: Seen) -> str:
    """Why the step cannot be left now; empty when it can."""
    if seen.trouble:
        return seen.trouble
    if not seen.canary_ready:
        return "the canary slot is not ready; its share falls back to stable"
    if not _observed(at, seen):
        shown = "unconfirmed" if seen.observed_percent is None else f"{seen.observed_percent:g} %"
        return f"asked for {at.weight_percent:g} %, observed {shown}"
    where = "mirroring" if shadowing(plan, at) else f"step {at.step + 1} at {at.weight_percent:g} %"
    undecided = _undecided(seen)
    if undecided and not (undecided == _NO_GATE and shadowing(plan, at)):
        return f"{where}: waits for {_undecided(seen, people=False) or _people_waited_for(at, seen)}"
    dwell = (
        plan.shadow.least_seconds
        if plan.shadow and shadowing(plan, at)
        else plan.steps[at.step].dwell_seconds
    )
    left = dwell - (seen.now - at.step_entered_at).total_seconds()
    return f"{where}: every gate passed, dwell has {left:.0f} s left" if left > 0 else ""


def _observed(at: Position, seen: Seen) -> bool:
    return seen.observed_percent is not None and abs(seen.observed_percent - at.weight_percent) <= 0.01


def _not_passed(seen: Seen) -> list[GateVerdict]:
    """The required gates that have spoken and have not passed."""
    return [g for g in seen.gates if g.required and not g.dry_run and g.verdict is not Verdict.PASS]


def _undecided(seen: Seen, *, people: bool = True) -> str:
    """The required gates that have not passed, in words; "evidence" before any gate has spoken.

    Without `people`, those that wait for a person are left out: waiting for them is not being stuck.
    """
    waiting = [g.name for g in _not_passed(seen) if people or not g.asks_people]
    spoken = any(g.required and not g.dry_run for g in seen.gates)
    return ", ".join(waiting) or ("" if spoken else _NO_GATE)


def _people_waited_for(at: Position, seen: Seen) -> str:
    """What the gates that ask people say: who may answer. A first version asks nobody else, nor is it judged."""
    asked = [g for g in _not_passed(seen) if g.asks_people or at.phase is Phase.PENDING]
    return "; ".join(f"{g.name}: {g.reason}" for g in asked)


def asks_people(at: Position, seen: Seen, *, asked_before: bool) -> str:
    """What people are asked, once a rollout waits for nothing else; empty where it does not wait for them.

    With `asked_before` they stay asked though another gate wavers: nobody is paged once for each wavering.
    """
    if at.phase not in (Phase.PENDING, Phase.RUNNING):
        return ""
    alone = asked_before or at.phase is Phase.PENDING or not _undecided(seen, people=False)
    return _people_waited_for(at, seen) if alone else ""


def _patience_seconds(plan: Plan, seen: Seen) -> float:
    """The shortest patience among the gates that are waited for, each its own or the plan's; nobody hurries people."""
    waiting = {g.name for g in _not_passed(seen) if not g.asks_people}
    own = {g.name: g.patience_seconds or plan.patience_seconds for g in plan.gates}
    return min((own[name] for name in waiting if name in own), default=plan.patience_seconds)


def _stuck_reason(plan: Plan, at: Position, seen: Seen) -> str:
    """Why the rollout has waited longer than its patience: silence, or evidence that settles nothing; else empty.

    Time before a pause ended does not count; nor does, for indecision, time before telemetry came back.
    """
    patience = timedelta(seconds=_patience_seconds(plan, seen))
    begun = at.step_entered_at if at.phase is Phase.HELD else max(at.step_entered_at, at.entered_at)
    heard = max(filter(None, (begun, seen.last_evidence_at)))
    decides = max(filter(None, (begun, seen.evidence_since)))
    undecided = _undecided(seen, people=False)
    if seen.now - heard > patience:
        silent = f" for {seen.silent_gate}" if seen.silent_gate else ""
        stuck = f"no evidence{silent} since {heard:%H:%M:%S} UTC"
    elif undecided and seen.now - decides > patience:
        stuck = f"no verdict for {undecided} since {decides:%H:%M:%S} UTC"
    else:
        return ""
    because = seen.trouble or ("" if seen.canary_ready else "the canary slot is not ready")
    return f"{stuck}; held at {at.weight_percent:g} %" + (f": {because}" if because else "")


def advance(plan: Plan, at: Position, now: datetime, reason: str) -> Position:
    """To the next step, or to promotion after the last; from mirroring to the first."""
    if shadowing(plan, at):
        weight = plan.steps[0].weight_percent
        reason = f"{reason}: step 1 of {len(plan.steps)} at {weight:g} %"
        return _to(at, Phase.RUNNING, now, reason, weight_percent=weight, step_entered_at=now)
    if at.step + 1 == len(plan.steps):
        return promote(plan, at, now, f"{reason}: promoting")
    weight = plan.steps[at.step + 1].weight_percent
    reason = f"{reason}: step {at.step + 2} of {len(plan.steps)} at {weight:g} %"
    return _to(at, Phase.RUNNING, now, reason, step=at.step + 1, weight_percent=weight, step_entered_at=now)


def promote(plan: Plan, at: Position, now: datetime, reason: str) -> Position:
    """All traffic but the plan's holdback to the canary slot first; roles swap once that is observed."""
    return _to(at, Phase.PROMOTING, now, reason, weight_percent=100.0 - plan.holdback_percent)


def _promoting(plan: Plan, at: Position, seen: Seen) -> Position:
    """Roles swap once all traffic is observed on a ready new version; a swap that does not come is held and told."""
    if seen.trouble:
        waiting = seen.trouble
    elif not _observed(at, seen):
        waiting = ""
    elif seen.first_version or at.promoted_roles:
        return _to(at, Phase.PROMOTED, seen.now, at.reason)
    elif not seen.canary_ready:
        waiting = "the new version's slot is not ready; the old version stays stable"
    else:
        watch = f"{_all_but(at)} observed on the new version; watched for {plan.watch_seconds:g} s"
        held_back = 100.0 - at.weight_percent  # the old version has the canary's role now
        return _to(at, Phase.WATCHING, seen.now, watch, promoted_roles=True, weight_percent=held_back)
    if not at.promoted_roles and overdue(plan, at, seen.now):
        reason = f"not promoted within {plan.patience_seconds:g} s: {waiting or 'the weight is unconfirmed'}"
        return _to(at, Phase.HELD, seen.now, reason)
    return _say(at, f"promoting: {waiting}") if waiting else at


def _all_but(at: Position) -> str:
    return "all traffic" if at.weight_percent == 100 else f"{at.weight_percent:g} % of the traffic"


def overdue(plan: Plan, at: Position, now: datetime) -> bool:
    """Whether a phase that should pass by itself has lasted longer than the plan's patience."""
    passing = at.phase in (Phase.PENDING, Phase.PROMOTING, Phase.ROLLING_BACK)
    return passing and now - at.entered_at > timedelta(seconds=plan.patience_seconds)


def _watching(plan: Plan, at: Position, seen: Seen) -> Position:
    if seen.outage:
        return roll_back(at, seen.now, seen.outage, Phase.ROLLED_BACK)
    if seen.failed is not None:
        return roll_back(
            at, seen.now, f"{seen.failed.failed_because}, seen after the promotion", Phase.ROLLED_BACK
        )
    if seen.now - at.entered_at >= timedelta(seconds=plan.watch_seconds):
        over = f"promoted; {plan.watch_seconds:g} s of watching are over"
        return _to(at, Phase.PROMOTED, seen.now, over, weight_percent=0.0)
    return at


def roll_back(at: Position, now: datetime, reason: str, ending: Phase) -> Position:
    """Weight 0 at once, whatever else is true; after a promotion the roles swap back. Ends once 0 is observed."""
    return _to(at, Phase.ROLLING_BACK, now, reason, ending=ending, weight_percent=0.0, promoted_roles=False)


def _rolling_back(at: Position, seen: Seen) -> Position:
    if _observed(at, seen):
        return _to(at, at.ending or Phase.ROLLED_BACK, seen.now, at.reason)
    return at


class CommandRefusedError(ValueError):
    """A person's command that makes no sense where the rollout stands."""


def command(plan: Plan, at: Position, name: str, now: datetime, reason: str) -> Position:
    """What a person's command does. Abort is always allowed and beats a promotion in flight.

    Raises CommandRefusedError. Repeating a command changes nothing.
    """
    if at.phase in TERMINAL:
        if at.phase is not Phase.PROMOTED and name in ("abort", "rollback"):
            return at  # its weight is 0 already
        raise CommandRefusedError(f"the rollout is over ({at.phase}); start another")
    match name:
        case "abort" | "rollback":
            if at.phase is Phase.ROLLING_BACK:
                return at
            ending = Phase.ABORTED if name == "abort" else Phase.ROLLED_BACK
            if at.phase is Phase.PENDING:  # has no traffic yet, and another rollout may still have the route
                return _to(at, ending, now, reason)
            return roll_back(at, now, reason, ending)
        case "pause" if at.phase in JUDGED:
            return at if at.phase is Phase.PAUSED else _to(at, Phase.PAUSED, now, f"paused: {reason}")
        case "resume" if at.phase in JUDGED:
            return at if at.phase is not Phase.PAUSED else _to(at, Phase.RUNNING, now, f"resumed: {reason}")
        case "promote" if at.phase in JUDGED:
            return promote(plan, at, now, f"promoted by a person: {reason}")
        case "promote" if at.phase in (Phase.PROMOTING, Phase.WATCHING):
            return at
    raise CommandRefusedError(f"cannot {name} while {at.phase}")


def supersede(at: Position, now: datetime, reason: str) -> Position:
    """Make way for another version: weight 0 first; one that is only watched is promoted, a pending one just ends."""
    match at.phase:
        case Phase.PENDING:
            return _to(at, Phase.SUPERSEDED, now, reason)
        case Phase.WATCHING:
            return _to(
                at, Phase.PROMOTED, now, f"promoted; the watch was closed: {reason}", weight_percent=0.0
            )
        case Phase.ROLLING_BACK:
            return at
        case _:
            return roll_back(at, now, reason, Phase.SUPERSEDED)
