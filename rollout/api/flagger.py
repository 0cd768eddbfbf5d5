"""JSON for Flagger: its webhooks ask the judge, and the status of the answer is the verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import ConfigDict, Field

from controlplane import access, http, problems
from controlplane.problems import Problem
from rollout import judge_alone, judgements
from rollout.api.judgements import STRICTEST_PERCENT
from rollout.gates.base import State, Verdict
from rollout.judgements import Answer

router = Router()

ALPHA = 0.01
GATES: list[dict[str, Any]] = [{"name": "errors"}]  # what two counters can tell
INCREASE = "confirm-traffic-increase"
Hook = Literal["confirm-traffic-increase", "confirm-promotion", "rollback"]


class FlaggerHook(http.Body):
    """What Flagger posts to a webhook; what its versions add is let through."""

    model_config = ConfigDict(extra="allow")

    name: str = Field(min_length=1, max_length=253)
    namespace: str = Field(min_length=1, max_length=63)
    phase: str = ""
    checksum: str = Field(default="", max_length=64)
    metadata: dict[str, str]


@router.post("/judgements/flagger/{hook}", auth=None)
def judge_for_flagger(request: HttpRequest, hook: Hook, body: FlaggerHook) -> HttpResponse:
    """A hook of that type: 200 is yes, 409 no, with the reason. `metadata` has token and queries, for Flagger sends no
    headers of one's own: token, stable_n, stable_errors, canary_n, canary_errors, and optionally weight_percent and
    prometheus.

    confirm-traffic-increase, confirm-promotion: yes on PASS. The first increase needs none, there is no traffic yet.
    rollback: yes on FAIL.
    """
    actor, now = _actor(body), timezone.now()
    weight = _weight(body)
    terms = judge_alone.terms(GATES, ALPHA, "request")
    url = body.metadata.get("prometheus")
    reading = judge_alone.read_counters(_queries(body), url, "/metadata/prometheus", now)
    said_yes = False

    def judge(state: State | None) -> Answer:
        nonlocal said_yes
        answer = judgements.from_counters(judge_alone.ready(state, terms, weight), reading)
        first = hook == INCREASE and not answer.state.get("increased")
        said_yes = _yes(hook, answer.verdict) or (first and answer.verdict is not Verdict.FAIL)
        if hook == INCREASE and said_yes:  # the split changes now: the next step needs evidence of its own
            return replace(answer, state={**judgements.enter_step(answer.state, weight), "increased": True})
        return answer

    key = f"flagger/{body.namespace}/{body.name}/{body.checksum}"
    answer = judge_alone.update(actor, key[:255], judge, anew_seconds=judge_alone.ANEW_SECONDS, now=now)
    if not said_yes:
        raise Problem(409, answer.verdict.lower(), f"{answer.verdict}: {answer.reason}")
    return JsonResponse(judge_alone.answer_json(answer, None))


def _yes(hook: Hook, verdict: Verdict) -> bool:
    return verdict is (Verdict.FAIL if hook == "rollback" else Verdict.PASS)


def _actor(body: FlaggerHook) -> str:
    """The user of the token in the metadata: 401 without a good one, 403 where it may neither read nor deploy."""
    identity = access.authenticate_token(body.metadata.get("token", ""), timezone.now())
    if identity is None:
        raise Problem(401, "not_authenticated", "needs a token `dvy_…` as metadata.token")
    if not (identity.allows("read") or identity.allows("deploy")):
        raise Problem(403, "missing_scope", "needs the scope read or deploy")
    return identity.user.get_username()


def _queries(body: FlaggerHook) -> dict[str, tuple[str, str]]:
    def query(name: str) -> str:
        text = body.metadata.get(name, "").strip()
        if not text:
            raise problems.field(f"/metadata/{name}", "required", "PromQL for a counter is needed")
        return text

    return {arm: (query(f"{arm}_n"), query(f"{arm}_errors")) for arm in judge_alone.ARMS}


def _weight(body: FlaggerHook) -> float:
    """What the metadata says; the tightest margins where it says nothing."""
    text = body.metadata.get("weight_percent", str(STRICTEST_PERCENT))
    try:
        weight = float(text)
    except ValueError:
        weight = -1.0
    if not 0.01 <= weight <= 99.99:
        raise problems.field(
            "/metadata/weight_percent", "bad_weight", "a weight from 0.01 to 99.99 is needed"
        )
    return weight
