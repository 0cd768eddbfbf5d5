"""How is the judge lent to other tools? Their gates are checked, counters read, and the state kept or signed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from django.core import signing
from django.db import transaction

from controlplane import problems
from rollout import judgements, prometheus
from rollout.gates.base import State
from rollout.judgements import Answer, Reading, Terms
from rollout.models import KeptJudgement
from rollout.plans import stored
from rollout.prometheus import PrometheusError

ARMS = ("stable", "canary")
STATE_CHARACTERS = 65_536  # of a signed state
ANEW_SECONDS = 3600.0
FORGET_AFTER = timedelta(days=30)
_SALT = "davy.judgement"


def terms(gates: Sequence[Mapping[str, Any]], alpha: float, assignment: str) -> Terms:
    """The gates as a plan's; a problem names the wrong field under /gates, or /alpha."""
    steps = [{"weight_percent": 50.0}]  # a plan needs one; the weight of a judgement is its own
    chosen = stored.check({"steps": steps, "gates": list(gates), "alpha": alpha})
    for i, gate in enumerate(chosen.gates):
        if gate.kind != "statistical":
            detail = f"{gate.name} asks somebody; only gates with evidence can be judged alone"
            raise problems.field(f"/gates/{i}/name", "not_statistical", detail)
    return Terms(chosen.gates, chosen.alpha, assignment)


def ready(state: State | None, terms: Terms, weight_percent: float) -> State:
    """The state to go on with at this weight: begun anew for None; a 422 problem where it was begun otherwise."""
    if state is None:
        return judgements.begin(terms, weight_percent)
    wrong = judgements.differs(state, terms)
    if wrong:
        raise problems.field(
            f"/{wrong}", "differs", f"this judgement was begun with other {wrong}; begin another"
        )
    if weight_percent == state["weight_percent"]:
        return state
    return judgements.enter_step(state, weight_percent)


def read_counters(
    queries: Mapping[str, tuple[str, str]], url: str | None, pointer: str, now: datetime
) -> Reading:
    """Both arms' counters at `now`: {arm: (PromQL for requests, for errors)} → a reading.

    url  one of DAVY_PROMETHEUS_URLS, None for the first. A problem at `pointer` for another, 502 when it does not
    answer with one number per query. Calls out: never inside a transaction.
    """
    try:
        server = prometheus.server(url)
    except ValueError as err:
        detail = str(err).removeprefix("url: ")
        raise problems.field(pointer, "no_such_prometheus", detail) from None
    at = now.timestamp()
    try:
        found = {arm: [prometheus.instant(server, query, at=at) for query in queries[arm]] for arm in ARMS}
    except PrometheusError as err:
        raise problems.Problem(502, "prometheus", str(err)) from None
    return {"at": at, **found}


def sign(state: State) -> str:
    """The state as text that only this Davy can make. A 422 problem where it would be too long."""
    text = signing.dumps(state, salt=_SALT, compress=True)
    if len(text) > STATE_CHARACTERS:
        raise problems.field(
            "/gates", "too_large", "these gates' state is too long to be sent along; use `key`"
        )
    return text


def verify(text: str) -> State:
    """The state again. A 422 problem at /state for anything that this Davy did not sign."""
    try:
        state: State = signing.loads(text, salt=_SALT)
    except signing.BadSignature:
        raise problems.field(
            "/state", "bad_state", "not a state that this Davy signed; begin without"
        ) from None
    return state


def update(
    actor: str, key: str, judge: Callable[[State | None], Answer], *, anew_seconds: float, now: datetime
) -> Answer:
    """Judge with the state that is kept under the key, and keep the new one; two at once wait for each other.

    A state that nobody asked for within `anew_seconds` is not used: a new attempt has fresh evidence and a fresh α.
    """
    with transaction.atomic():
        KeptJudgement.objects.filter(actor=actor, updated_at__lt=now - FORGET_AFTER).delete()
        made, _ = KeptJudgement.objects.get_or_create(
            actor=actor, key=key, defaults={"state": {}, "updated_at": now}
        )
        row = KeptJudgement.objects.select_for_update().get(pk=made.pk)
        idle = now - row.updated_at > timedelta(seconds=anew_seconds)
        answer = judge(row.state if row.state and not idle else None)
        row.state, row.updated_at = answer.state, now
        row.save(update_fields=["state", "updated_at"])
    return answer


def answer_json(answer: Answer, signed: str | None) -> dict[str, Any]:
    """A judgement as REST shows it."""
    return {
        "verdict": answer.verdict,
        "E": judgements.e_value(answer.log_e),
        "log_e": answer.log_e,
        "reason": answer.reason,
        "gates": [asdict(gate) for gate in answer.gates],
        "used": answer.used,
        "weight_percent": answer.state["weight_percent"],
        "state": signed,
    }
