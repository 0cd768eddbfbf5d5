"""What do the plan's holds say now? Each is asked when its last answer is old or was given at another step.

Answers travel with the rollout as plain JSON:

    {name: {at, step, verdict, reason, value, bound, asks_people}}     step: the one that is asked for
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from rollout import holds, phases
from rollout.gates.base import GateSpec, GateVerdict, Verdict
from rollout.holds.base import Question
from rollout.models import Rollout
from rollout.phases import Phase, Position
from rollout.plan import Plan

Answers = dict[str, Any]


def question(rollout: Rollout, plan: Plan, at: Position, now: datetime) -> Question:
    """May the rollout leave the step where it stands? A route's first version: may it go live?"""
    next_step = 0 if phases.shadowing(plan, at) else at.step + 1
    if at.phase is Phase.PENDING:
        next_step = len(plan.steps)
    weights = [step.weight_percent for step in plan.steps]
    return Question(
        rollout=rollout.pk,
        model=rollout.version.model.name,
        version=rollout.version.name,
        stable=rollout.stable.name if rollout.stable else "",
        fleet=rollout.route.fleet.name,
        step=at.step,
        weight_percent=at.weight_percent,
        next_step=next_step,
        next_weight_percent=weights[next_step] if next_step < len(weights) else 100.0,
        step_entered_at=at.step_entered_at,
        now=now,
        started_by=rollout.started_by,
    )


def ask(plan: Plan, asked: Question, kept: Mapping[str, Any]) -> Answers:
    """The answers that count now: those kept that are fresh, and new ones. Calls out: never inside a transaction."""
    answers = still(asked, kept)
    for spec in plan.holds:
        last = answers.get(spec.name)
        if last is None or not 0 <= asked.now.timestamp() - last["at"] < _every_seconds(spec):
            answer = holds.get(spec.name).ask(spec.settings, asked)
            answers[spec.name] = {"at": asked.now.timestamp(), "step": asked.next_step, **asdict(answer)}
    return answers


def still(asked: Question, kept: Mapping[str, Any]) -> Answers:
    """The kept answers that were given to this question, at whatever time."""
    return {name: answer for name, answer in kept.items() if answer["step"] == asked.next_step}


def _every_seconds(spec: GateSpec) -> float:
    return float(spec.settings.get("every_seconds", holds.get(spec.name).every_seconds))


def verdicts(plan: Plan, answers: Mapping[str, Any]) -> tuple[GateVerdict, ...]:
    """The answers as gates show them: without evidence, n is 0."""
    return tuple(_verdict(spec, answers[spec.name]) for spec in plan.holds if spec.name in answers)


def _verdict(spec: GateSpec, answer: Mapping[str, Any]) -> GateVerdict:
    return GateVerdict(
        spec.name,
        Verdict(answer["verdict"]),
        answer["value"],
        answer["bound"],
        0,
        answer["reason"],
        required=spec.required,
        dry_run=spec.dry_run,
        asks_people=answer["asks_people"],
    )


def objection(plan: Plan, answered: Iterable[GateVerdict], on_fail: str) -> GateVerdict | None:
    """The first FAIL of a hold whose plan wants `on_fail` then: "hold" or "rollback". A dry run objects to nothing."""
    wanted = {spec.name for spec in plan.holds if spec.on_fail == on_fail and not spec.dry_run}
    return next((v for v in answered if v.verdict is Verdict.FAIL and v.name in wanted), None)
