"""Has a person said that the rollout may go on? Four eyes: who started it does not approve it alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any, ClassVar

from django.db.models import Q, QuerySet

from controlplane.models import Role, User
from rollout.gates.base import Verdict
from rollout.holds import settings as read
from rollout.holds.base import NOT_ASKED, Answer, Question, sentence
from rollout.models import Approval

RISING = (Role.ENGINEER, Role.APPROVER, Role.ADMIN)  # roles that may act, each with what those before may
NAMES_SHOWN = 5
MOST_APPROVERS = 20


@dataclass(frozen=True)
class Terms:
    """How many of whom have to say yes."""

    least: int
    role: str  # this one or a higher one; "" where people are named
    names: tuple[str, ...]
    own: bool  # whether who started the rollout may approve it alone


def terms(settings: Mapping[str, Any]) -> Terms:
    """The plan's terms. Raises ValueError("<key>: …") for what cannot be."""
    read.check_known(settings, ("before", "least", "approvers", "own"))
    read.check_before(settings)
    read.check_number(settings, "least", 1, MOST_APPROVERS)
    least, own, approvers = settings.get("least", 1), settings.get("own", False), settings.get("approvers")
    if not isinstance(least, int):
        raise ValueError(f"least: {least!r} is not a whole number")
    if not isinstance(own, bool):
        raise ValueError("own: true or false is needed")
    if approvers is None or isinstance(approvers, str):
        role = approvers or str(Role.APPROVER)
        if role not in RISING:
            raise ValueError(f"approvers: no role {role!r} that may act; there are {', '.join(RISING)}")
        return Terms(least, role, (), own)
    if not isinstance(approvers, list | tuple) or not approvers:
        raise ValueError("approvers: a role, or a list of user names")
    for i, name in enumerate(approvers):
        if not isinstance(name, str) or name in approvers[:i]:
            raise ValueError(f"approvers/{i}: a user name, and each once, is needed")
    if least > len(approvers):
        raise ValueError(f"least: {least} have to approve, but only {len(approvers)} may")
    return Terms(least, "", tuple(approvers), own)


def people(wanted: Terms) -> QuerySet[User]:
    """Those who may approve now."""
    roles = RISING[RISING.index(Role(wanted.role)) :] if wanted.role else RISING
    able = Q(role__in=roles) | Q(is_superuser=True)
    found = User.objects.filter(able, is_active=True).order_by("username")
    return found if wanted.role else found.filter(username__in=wanted.names)


def refusal(wanted: Terms, user: User, started_by: str) -> str:
    """Why this person's yes would not do; "" when it would."""
    if not people(wanted).filter(pk=user.pk).exists():
        return f"{user.username} may not approve this; {whom(wanted, started_by)} may"
    if user.username in _barred(wanted, started_by):
        return f"{user.username} started this rollout; {whom(wanted, started_by)} may approve it"
    return ""


def whom(wanted: Terms, started_by: str) -> str:
    """Who may approve, in words; names at most NAMES_SHOWN of them."""
    barred = _barred(wanted, started_by)
    names = [name for name in people(wanted).values_list("username", flat=True) if name not in barred]
    shown = ", ".join(names[:NAMES_SHOWN]) or "nobody yet"
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    higher = "" if wanted.role == Role.ADMIN else " or higher"
    notes = [f"role {wanted.role}{higher}"] if wanted.role else []
    notes += [f"not {name}, who started it" for name in barred]
    return f"{shown}{more}" + (f" ({'; '.join(notes)})" if notes else "")


def _barred(wanted: Terms, started_by: str) -> list[str]:
    """With two or more approvers somebody else says yes anyway."""
    alone = wanted.least == 1 and not wanted.own and started_by
    return [started_by] if alone else []


def applies(settings: Mapping[str, Any], question: Question) -> bool:
    """Whether somebody has to approve what comes next."""
    return read.asked(settings, question, read.PROMOTION)


def what(question: Question) -> str:
    """What would be approved, in words."""
    to = question.next_weight_percent
    return "the promotion" if to == read.PROMOTION_PERCENT else f"the step to {to:g} %"


class ApprovalHold:
    """Settings: before (default: the promotion), least (1), approvers (a role or user names; approver), own (false)."""

    name: ClassVar[str] = "approval"
    every_seconds: ClassVar[float] = 0.0

    def check(self, settings: Mapping[str, Any]) -> None:
        """Raises ValueError("<key>: …"), also for people who are not there or whose role may not act."""
        wanted = terms(settings)
        there = set(people(wanted).values_list("username", flat=True))
        for i, name in enumerate(wanted.names):
            if name not in there:
                raise ValueError(f"approvers/{i}: no active user {name!r} whose role may act")

    def ask(self, settings: Mapping[str, Any], question: Question) -> Answer:
        """FAIL while somebody's no stands, PASS with enough yeses; value: how many of `bound`."""
        if not applies(settings, question):
            return NOT_ASKED
        wanted = terms(settings)
        asked = Approval.objects.filter(rollout=question.rollout, step=question.next_step)
        decisions = list(asked.order_by("at", "pk"))
        given = [d for d in decisions if d.decision == Approval.Decision.APPROVE]
        against = [d for d in decisions if d.decision == Approval.Decision.REJECT]
        count, needed = float(len(given)), float(wanted.least)
        if against:
            no = against[-1]
            at = no.at.astimezone(UTC)
            said = f"{no.actor} rejected {what(question)} at {at:%Y-%m-%d %H:%M:%S} UTC: {no.reason}"
            return Answer(Verdict.FAIL, sentence(said), count, needed)
        said = "; ".join(f"{yes.actor} approved {what(question)}: {yes.reason}" for yes in given)
        if len(given) >= wanted.least:
            return Answer(Verdict.PASS, sentence(said), count, needed)
        missing = f"{len(given)} of {wanted.least} approvals for {what(question)}"
        waits = f"{missing}; may approve: {whom(wanted, question.started_by)}" + (f"; {said}" if said else "")
        return Answer(Verdict.INCONCLUSIVE, sentence(waits), count, needed, asks_people=True)
