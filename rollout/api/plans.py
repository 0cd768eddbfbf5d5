"""JSON for plans: the shipped ones, stored ones with their numbers, and what a plan would have done."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import ConfigDict

from controlplane import http, problems
from rollout import commands, replay
from rollout.evidence import sources
from rollout.models import Evidence, Rollout, StoredPlan
from rollout.plan import Plan
from rollout.plans import stored, templates
from rollout.replay import Record, Replay

router = Router()

MOST_EVIDENCE = 50_000  # rows of one simulation, some 5,000 a second: it runs while the caller waits


class AnyPlan(http.Body):
    """A plan; rollout.plan checks every field, and names the first wrong one."""

    model_config = ConfigDict(extra="allow")

    def given(self) -> dict[str, Any]:
        """The body as it came."""
        return dict(self.model_extra or {})


class Simulated(http.Body):
    """POST /plans/{plan}/simulate."""

    rollout: int


@router.get("/plans", auth=http.scope("read"))
def list_plans(request: HttpRequest) -> HttpResponse:
    """All plans: the shipped ones on the first page, then the latest number of each stored one, by name."""
    shipped = [] if "cursor" in request.GET else [_shipped_json(name) for name in templates.names()]
    return http.paginate(request, stored.stored(), _stored_json, order="name", before=shipped)


@router.post("/plans", auth=http.scope("deploy"))
def create_plan(request: HttpRequest, body: AnyPlan) -> HttpResponse:
    """Store a plan: 201, or 200 when it is there already with this body."""
    row, created = stored.create(body.given(), actor=http.actor(request), now=timezone.now())
    return _answer(row, 201 if created else 200)


@router.get("/plans/{plan}", auth=http.scope("read"))
def show_plan(request: HttpRequest, plan: str) -> HttpResponse:
    """One plan as it is now, or one of its numbers (?number=), with the ETag that a change needs."""
    number = _number(request)
    if stored.is_shipped(plan) and number in (None, 0):
        return JsonResponse(_shipped_json(plan))
    return _answer(stored.find(plan, number))


@router.put("/plans/{plan}", auth=http.scope("deploy"))
def replace_plan(request: HttpRequest, plan: str, body: AnyPlan) -> HttpResponse:
    """Give the plan that If-Match names a new number with this body: 428 without it, 412 when it changed meanwhile."""
    seen = _matched(request, plan)
    row = stored.change(plan, body.given(), seen, actor=http.actor(request), now=timezone.now())
    return _answer(row)


@router.patch("/plans/{plan}", auth=http.scope("deploy"))
def change_plan(request: HttpRequest, plan: str, body: AnyPlan) -> HttpResponse:
    """Like PUT, but only the fields that are given are replaced; null takes one away."""
    seen = _matched(request, plan)
    merged = {key: value for key, value in {**seen.body, **body.given()}.items() if value is not None}
    row = stored.change(plan, merged, seen, actor=http.actor(request), now=timezone.now())
    return _answer(row)


@router.delete("/plans/{plan}", auth=http.scope("deploy"))
def retire_plan(request: HttpRequest, plan: str) -> HttpResponse:
    """Retire a plan: no rollout can start by it; those that run go on with their copy, its numbers stay readable."""
    _refuse_shipped(plan)
    if "If-Match" in request.headers:
        http.require_match(request, _etag(stored.find(plan)))
    return _answer(stored.retire(plan, actor=http.actor(request), now=timezone.now()))


@router.post("/plans/{plan}/simulate", auth=http.scope("read"))
def simulate_plan(request: HttpRequest, plan: str, body: Simulated) -> HttpResponse:
    """Run a past rollout's evidence through this plan: when it would have stepped, been promoted or rolled back."""
    chosen = stored.read(plan)
    rollout = commands.find(body.rollout)
    found = replay.under(chosen, _records(rollout))
    return JsonResponse(_replay_json(found, chosen, rollout))


def _matched(request: HttpRequest, name: str) -> StoredPlan:
    """The latest number of a stored plan, where If-Match names it."""
    _refuse_shipped(name)
    seen = stored.find(name)
    http.require_match(request, _etag(seen))
    if seen.retired_at is not None:
        raise problems.field(
            "/plan", "retired", f"plan {name} is retired; POST /plans takes it up again", status=409
        )
    return seen


def _refuse_shipped(name: str) -> None:
    if stored.is_shipped(name):
        detail = f"{name} is a shipped plan: store a copy under another name and change that"
        raise problems.field("/plan", "shipped", detail, status=409)


def _number(request: HttpRequest) -> int | None:
    text = request.GET.get("number")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise problems.field("/number", "bad_number", "the number of an edit, from 1")
    return int(text)


def _etag(row: StoredPlan) -> str:
    return f'"{row.name}-{row.number}{"-retired" if row.retired_at else ""}"'


def _answer(row: StoredPlan, status: int = 200) -> HttpResponse:
    return JsonResponse(_stored_json(row), status=status, headers={"ETag": _etag(row)})


def _stored_json(row: StoredPlan) -> dict[str, Any]:
    return {
        "name": row.name,
        "number": row.number,
        "shipped": False,
        "plan": row.body,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "retired_at": row.retired_at,
    }


def _shipped_json(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "number": 0,
        "shipped": True,
        "plan": templates.template(name),
        "created_at": None,
        "created_by": "davy",
        "retired_at": None,
    }


def _records(rollout: Rollout) -> list[Record]:
    """The rollout's evidence in the order in which it was absorbed."""
    rows = Evidence.objects.filter(rollout=rollout).order_by("id")
    count = rows.count()
    if not count:
        raise problems.field("/rollout", "no_evidence", f"rollout {rollout.pk} has no evidence to replay")
    if count > MOST_EVIDENCE:
        detail = (
            f"rollout {rollout.pk} has {count:,} rows of evidence; at most {MOST_EVIDENCE:,} are replayed"
        )
        raise problems.field("/rollout", "too_long", detail)
    return [
        Record(
            row.gate,
            row.step,
            row.weight_percent,
            sources.from_json(row.start.timestamp(), row.end.timestamp(), row.arms),
        )
        for row in rows
    ]


def _replay_json(found: Replay, chosen: Plan, rollout: Rollout) -> dict[str, Any]:
    started = found.turns[0].at
    return {
        "plan": chosen.to_json(),
        "outcome": found.outcome,
        "seconds": (found.turns[-1].at - started).total_seconds() if found.outcome != "undecided" else None,
        "turns": [
            {
                "at": turn.at,
                "seconds": (turn.at - started).total_seconds(),
                "state": turn.phase,
                "step": turn.step,
                "weight_percent": turn.weight_percent,
                "recorded_weight_percent": turn.recorded_percent,
                "reason": turn.reason,
            }
            for turn in found.turns
        ],
        "gates": [asdict(verdict) for verdict in found.gates],
        "notes": found.notes,
        "recorded": {
            "rollout": rollout.pk,
            "plan": rollout.plan_name,
            "state": rollout.state,
            "reason": rollout.reason,
        },
    }
