"""Which plans are there, and which edit of each applies? Stored and numbered; nothing is ever overwritten.

An edit makes a new number. A rollout keeps the copy that it was started with, so that an edit applies to the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import QuerySet

from controlplane import audit, problems, registry
from controlplane.problems import Problem
from rollout import gates, holds, plan
from rollout.models import StoredPlan
from rollout.plan import Plan
from rollout.plans import templates

DEFAULT = "standard"


def read(given: str | Mapping[str, Any] | None) -> Plan:
    """The plan of that name (None: standard), or an inline one. A problem names the wrong field under /plan.

    Names of stored plans come first; those of shipped plans cannot be taken.
    """
    if given is not None and not isinstance(given, str):
        return check(given, "/plan")
    row = _latest(given or DEFAULT)
    if row is None:
        return check(_shipped(given or DEFAULT), "/plan")
    if row.retired_at is not None:
        raise problems.field("/plan", "retired", f"plan {row.name} is retired", status=409)
    return replace(check(row.body, "/plan"), number=row.number)


def check(raw: Mapping[str, Any], at: str = "") -> Plan:
    """The plan that `raw` describes; a problem names the first wrong field by its pointer under `at`."""
    try:
        found = plan.parse(raw, check_gate)
    except plan.PlanError as err:
        raise problems.field(f"{at}{err.pointer}", "bad_plan", err.detail) from None
    for i, gate in enumerate(found.gates):
        counted = gate.kind == "statistical" and gates.get(gate.name).source in ("router", "collector")
        if gate.segments and not counted:
            detail = f"{gate.name} is not counted by segment; only what collectors count is"
            raise problems.field(f"{at}/gates/{i}/segments", "bad_plan", detail)
    return found


def check_gate(name: str, settings: Mapping[str, Any]) -> str:
    """The gate's kind; LookupError for a name that is neither a gate nor a hold, ValueError for bad settings."""
    if name in holds.HOLDS:
        return holds.check(name, settings)
    if name not in gates.GATES:
        raise LookupError(f"no gate {name!r}; there are {', '.join([*gates.GATES, *holds.HOLDS])}")
    return gates.check(name, settings)


def is_shipped(name: str) -> bool:
    """Whether the plan came with Davy: it cannot be changed, and its name cannot be taken."""
    return name in templates.TEMPLATES


def stored() -> QuerySet[StoredPlan]:
    """The latest number of every stored plan that is not retired."""
    latest = StoredPlan.objects.order_by("name", "-number").distinct("name").values("pk")
    return StoredPlan.objects.filter(pk__in=latest, retired_at=None)


def find(name: str, number: int | None = None) -> StoredPlan:
    """A stored plan as it is now, or one of its numbers, retired or not. A 404 problem at /plan for any other."""
    row = _latest(name) if number is None else StoredPlan.objects.filter(name=name, number=number).first()
    if row is not None:
        return row
    if number is not None and StoredPlan.objects.filter(name=name).exists():
        raise problems.field("/number", "unknown_number", f"plan {name} has no number {number}", status=404)
    raise _unknown(name)


def create(body: Mapping[str, Any], *, actor: str, now: datetime) -> tuple[StoredPlan, bool]:
    """Store a new plan; return it and whether it is new.

    The same body again returns the plan there is; another body is a 409. A retired name goes on with the next number.
    """
    name = _name_of(body)
    check(body)
    with transaction.atomic():
        last = _lock(name)
        if last is not None and last.retired_at is None:
            if last.body == body:
                return last, False
            detail = f"plan {name} exists (number {last.number}); change it by PUT or PATCH /plans/{name}"
            raise problems.field("/name", "plan_exists", detail, status=409)
        try:
            return _add(name, body, last, actor, now), True
        except IntegrityError:
            raise problems.field(
                "/name", "plan_exists", f"plan {name} was made meanwhile", status=409
            ) from None


def change(name: str, body: Mapping[str, Any], seen: StoredPlan, *, actor: str, now: datetime) -> StoredPlan:
    """Give the plan a new number with this body, where `seen` is still its latest; the same body changes nothing.

    Raises a 412 problem when somebody else changed or retired it meanwhile.
    """
    if body.get("name", name) != name:
        raise problems.field("/name", "name_differs", f"a plan keeps its name, {name}")
    whole = {**body, "name": name}
    check(whole)
    with transaction.atomic():
        last = _lock(name)
        if last is None or last.pk != seen.pk or last.retired_at is not None:
            raise _changed_meanwhile()
        try:
            return last if last.body == whole else _add(name, whole, last, actor, now)
        except IntegrityError:  # the other one inserted while we waited for the lock
            raise _changed_meanwhile() from None


def retire(name: str, *, actor: str, now: datetime) -> StoredPlan:
    """End a plan for rollouts to come; its numbers stay readable. Retiring it again changes nothing."""
    with transaction.atomic():
        last = _lock(name)
        if last is None:
            raise _unknown(name)
        if last.retired_at is None:
            last.retired_at = now
            last.save(update_fields=["retired_at"])
            audit.record(actor, "plan.retire", f"plan {name}", detail={"number": last.number})
    return last


def _name_of(body: Mapping[str, Any]) -> str:
    name = body.get("name")
    if not isinstance(name, str):
        raise problems.field("/name", "required", "a plan that is stored needs a name")
    registry.check_name(name, "/name")
    if is_shipped(name):
        raise problems.field(
            "/name", "name_taken", f"{name} is a shipped plan; choose another name", status=409
        )
    return name


def _latest(name: str) -> StoredPlan | None:
    return StoredPlan.objects.filter(name=name).order_by("-number").first()


def _lock(name: str) -> StoredPlan | None:
    return StoredPlan.objects.select_for_update().filter(name=name).order_by("-number").first()


def _add(
    name: str, body: Mapping[str, Any], last: StoredPlan | None, actor: str, now: datetime
) -> StoredPlan:
    """The next number. Raises IntegrityError where two are made at once: the unique constraint lets one."""
    number = 1 if last is None else last.number + 1
    with transaction.atomic():
        row = StoredPlan.objects.create(
            name=name, number=number, body=dict(body), created_by=actor, created_at=now
        )
    audit.record(
        actor, "plan.create" if number == 1 else "plan.change", f"plan {name}", detail={"number": number}
    )
    return row


def _shipped(name: str) -> dict[str, Any]:
    try:
        return templates.template(name)
    except LookupError:
        raise _unknown(name) from None


def _unknown(name: str) -> Problem:
    there = [*templates.names(), *stored().order_by("name").values_list("name", flat=True)[:50]]
    detail = f"no plan {name!r}; there are {', '.join(there)}"
    return problems.field("/plan", "unknown_plan", detail, status=404)


def _changed_meanwhile() -> Problem:
    return Problem(412, "changed_meanwhile", "it has changed since: read it again")
