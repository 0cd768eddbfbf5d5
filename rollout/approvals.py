"""Who said yes or no to a step, and whose word is still missing?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from controlplane import audit
from controlplane.models import User
from controlplane.problems import Problem
from rollout import asking, journal
from rollout.holds import approval
from rollout.holds.base import Question
from rollout.models import Approval, Rollout, RolloutEvent
from rollout.phases import JUDGED, Phase, Position
from rollout.plan import Plan
from rollout.plan import load as load_plan

DONE = {Approval.Decision.APPROVE: "approved", Approval.Decision.REJECT: "rejected"}


def decide(
    rollout: Rollout, user: User, decision: str, *, reason: str, now: datetime, weight_percent: float | None
) -> None:
    """Store the person's word on the next step, with audit and log; call inside a transaction, the row locked.

    The same word again changes nothing; another one replaces it. `weight_percent` is where the person saw the
    rollout. Raises Problem: 403 for who may not, 409 where nothing is asked or the rollout has moved on.
    """
    settings, asked = _asked(rollout, now)
    if weight_percent is not None and abs(weight_percent - asked.weight_percent) > 0.01:
        moved = f"it is at {asked.weight_percent:g} % now, not at {weight_percent:g} %; look again"
        raise Problem(409, "moved_on", moved)
    why_not = approval.refusal(approval.terms(settings), user, rollout.started_by)
    if why_not:
        raise Problem(403, "not_an_approver", why_not)
    key: dict[str, Any] = {"rollout": rollout, "step": asked.next_step, "actor": user.username}
    if Approval.objects.filter(**key, decision=decision).exists():
        return
    Approval.objects.update_or_create(**key, defaults={"decision": decision, "reason": reason, "at": now})
    detail = {"decision": decision, "before_percent": asked.next_weight_percent}
    audit.record(user.username, f"rollout.{decision}", f"rollout {rollout.pk}", reason, detail)
    RolloutEvent.objects.create(
        rollout=rollout,
        at=now,
        kind="approval",
        state=rollout.state,
        step=rollout.step,
        weight_percent=rollout.weight_percent,
        actor=user.username,
        reason=f"{DONE[Approval.Decision(decision)]} {approval.what(asked)}: {reason}",
        detail=detail,
    )


def wanted_from(rollout: Rollout, user: User, now: datetime) -> bool:
    """Whether this person may say yes or no now."""
    if not any(gate.get("name") == approval.ApprovalHold.name for gate in rollout.plan.get("gates", [])):
        return False
    try:
        settings, _ = _asked(rollout, now)
    except Problem:
        return False
    return not approval.refusal(approval.terms(settings), user, rollout.started_by)


def _asked(rollout: Rollout, now: datetime) -> tuple[Mapping[str, Any], Question]:
    """The plan's terms and the question that is open; a 409 problem when none is."""
    plan, at = load_plan(rollout.plan), journal.position(rollout)
    settings = _settings(plan)
    if settings is None:
        raise Problem(409, "nothing_to_approve", f"the plan {plan.name} asks for no approval")
    goes_live = (
        at.phase is Phase.PENDING and rollout.route.stable_id is None
    )  # without steps, not without a yes
    if at.phase not in JUDGED and not goes_live:
        raise Problem(409, "not_now", f"the rollout is {at.phase}: nothing waits for approval")
    asked = asking.question(rollout, plan, at, now)
    if not approval.applies(settings, asked):
        raise Problem(409, "nothing_to_approve", f"{approval.what(asked)} needs no approval")
    return settings, asked


def _settings(plan: Plan, *, binding: bool = False) -> Mapping[str, Any] | None:
    """What the plan's approval says; with `binding` only one that the rollout cannot go on without."""
    for spec in plan.holds:
        if spec.name == approval.ApprovalHold.name and not (binding and (spec.dry_run or not spec.required)):
            return spec.settings
    return None


def check_promotion(rollout: Rollout, plan: Plan, at: Position, actor: str, now: datetime) -> None:
    """Let a promotion by hand skip gates, but no approval: whoever promotes has said yes by it, the others have to.

    Raises Problem: 403 while a yes is missing before any of the steps left, 409 while somebody's no stands.
    """
    settings = _settings(plan, binding=True)
    if settings is None or at.phase not in JUDGED:
        return
    terms, user = approval.terms(settings), User.objects.filter(username=actor, is_active=True).first()
    able = user is not None and not approval.refusal(terms, user, rollout.started_by)
    for asked in _left(asking.question(rollout, plan, at, now), plan):
        if not approval.applies(settings, asked):
            continue
        said = Approval.objects.filter(rollout=rollout, step=asked.next_step)
        no = said.filter(decision=Approval.Decision.REJECT).exclude(actor=actor if able else "").first()
        if no is not None:
            raise Problem(409, "rejected", f"{no.actor} rejected {approval.what(asked)}: {no.reason}")
        yes = {row.actor for row in said if row.decision == Approval.Decision.APPROVE}
        yes |= {actor} if able else set()
        if len(yes) < terms.least:
            missing = f"{len(yes)} of {terms.least} approvals for {approval.what(asked)}"
            whom = approval.whom(terms, rollout.started_by)
            raise Problem(403, "needs_approval", f"{missing}; may approve: {whom}")


def _left(asked: Question, plan: Plan) -> list[Question]:
    """The questions before each step that is left, the promotion last."""
    weights = [*(step.weight_percent for step in plan.steps), 100.0]
    return [
        replace(asked, next_step=step, next_weight_percent=weights[step])
        for step in range(asked.next_step, len(weights))
    ]
