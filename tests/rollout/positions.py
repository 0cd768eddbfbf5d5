"""Where a rollout stands and what is seen of it, for the tests of the state machine: healthy unless told otherwise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from rollout import phases
from rollout.gates.base import GateSpec, GateVerdict, Verdict
from rollout.phases import Phase, Position, Seen
from rollout.plan import Plan, Step

NOW = datetime(2026, 11, 20, 3, 0, tzinfo=UTC)
PLAN = Plan(
    "test",
    steps=(Step(5, 10), Step(50, 10)),
    gates=(GateSpec("errors", 1.0), GateSpec("latency", 1.0)),
    patience_seconds=60,
    watch_seconds=30,
)
COMMANDS = ("abort", "rollback", "pause", "resume", "promote")


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def at(phase: Phase = Phase.RUNNING, weight: float = 5, step: int = 0, **more: Any) -> Position:
    return Position(phase, step, weight, entered_at=NOW, step_entered_at=NOW, **more)


def gate(verdict: Verdict = Verdict.PASS, name: str = "errors", **more: Any) -> GateVerdict:
    return GateVerdict(name, verdict, 0.1, 0.5, 1000, "canary 1 of 1,000 requests failed", **more)


PASSED = (gate(), gate(name="latency"))
UNDECIDED = (gate(), gate(Verdict.INCONCLUSIVE, "latency"))


def seen(seconds: float = 20, observed: float | None = 5, **more: Any) -> Seen:
    """A healthy look: ready, the weight as asked, evidence up to now, every gate passed."""
    now = later(seconds)
    facts: dict[str, Any] = {"gates": PASSED, "last_evidence_at": now, "evidence_since": NOW}
    return Seen(now=now, canary_ready=True, observed_percent=observed, **facts | more)


def decide(position: Position, look: Seen, plan: Plan = PLAN) -> Position:
    return phases.decide(plan, position, look)
