"""JSON for the judge alone: both arms' counts, or Prometheus queries, in; a verdict out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from controlplane import http, problems
from monitoring.predictions import Moment
from rollout import judge_alone, judgements
from rollout.gates.base import Arm, Interval, State
from rollout.judge import EvidenceError
from rollout.judge_alone import ANEW_SECONDS, ARMS, STATE_CHARACTERS
from rollout.judgements import Answer
from rollout.prometheus import QUERY_CHARACTERS

router = Router()

MOST_REQUESTS = 10**15
STRICTEST_PERCENT = 50.0  # where nobody says the weight: the tightest margins


def _count_or_query(value: Any) -> Any:
    """A count, or PromQL for a counter."""
    if isinstance(value, str) and 0 < len(value.strip()) <= QUERY_CHARACTERS:
        return value
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_REQUESTS:
        return value
    raise ValueError("a count, or a Prometheus query, is needed")


def _number(value: Any) -> Any:
    """Argo Rollouts puts its arguments in as text: "5" is 5."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise ValueError("a number is needed") from None
    return value


Count = Annotated[int, Field(ge=0, le=MOST_REQUESTS)]
Weight = Annotated[float, BeforeValidator(_number), Field(ge=0.01, le=99.99)]
CountOrQuery = Annotated[Any, AfterValidator(_count_or_query)]
Histogram = list[Count] | None


class ArmGiven(http.Body):
    """One arm: requests and failed ones of the interval, or PromQL for two counters; histograms as in /evidence."""

    n: CountOrQuery
    errors: CountOrQuery = 0
    confidence: Annotated[Histogram, Field(min_length=100, max_length=100)] = None
    latency: Annotated[Histogram, Field(min_length=96, max_length=96)] = None
    detections: Annotated[Histogram, Field(min_length=64, max_length=64)] = None
    errors_by_key_bucket: Annotated[Histogram, Field(min_length=16, max_length=16)] = None


class Arms(http.Body):
    """Both arms."""

    stable: ArmGiven
    canary: ArmGiven


class Period(http.Body):
    """The interval in which the requests were counted."""

    begin: Moment = Field(alias="from")
    end: Moment = Field(alias="to")


class Asked(http.Body):
    """POST /judgements."""

    arms: Arms
    gates: list[dict[str, Any]]
    alpha: float = 0.01
    assignment: Literal["request", "connection", "key"] = "request"
    weight_percent: Weight | None = None
    interval: Period | None = None
    state: Annotated[str, StringConstraints(max_length=STATE_CHARACTERS)] | None = None
    key: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None
    begin_anew_after_seconds: float = Field(default=ANEW_SECONDS, ge=1, le=30 * 86400)
    prometheus: str | None = None


@router.post("/judgements", auth=http.scope("read", "deploy"))
def judge_arms(request: HttpRequest, body: Asked) -> HttpResponse:
    """PASS, FAIL or INCONCLUSIVE on all evidence so far; the state goes along signed, or is kept under `key`."""
    if body.state is not None and body.key is not None:
        raise problems.field("/state", "state_or_key", "the state is either sent along or kept under `key`")
    terms, now = judge_alone.terms(body.gates, body.alpha, body.assignment), timezone.now()
    queries = _queries(body.arms)
    reading = judge_alone.read_counters(queries, body.prometheus, "/prometheus", now) if queries else None
    interval = None if queries else _interval(body)

    def judge(state: State | None) -> Answer:
        begun = judge_alone.ready(state, terms, _weight(body, state))
        if interval is None:
            return judgements.from_counters(begun, reading or {})
        try:
            return judgements.judgement(begun, interval)
        except EvidenceError as err:
            raise problems.field("/arms", "impossible", str(err)) from None

    if body.key is None:
        answer = judge(None if body.state is None else judge_alone.verify(body.state))
        return JsonResponse(judge_alone.answer_json(answer, judge_alone.sign(answer.state)))
    actor, anew = http.actor(request), body.begin_anew_after_seconds
    answer = judge_alone.update(actor, body.key, judge, anew_seconds=anew, now=now)
    return JsonResponse(judge_alone.answer_json(answer, None))


def _queries(arms: Arms) -> dict[str, tuple[str, str]] | None:
    """{arm: (for requests, for errors)} where the arms are queries; None where they are counts; never a mixture."""
    given = {(arm, name): getattr(getattr(arms, arm), name) for arm in ARMS for name in ("n", "errors")}
    texts = [place for place, value in given.items() if isinstance(value, str)]
    if not texts:
        return None
    for (arm, name), value in given.items():
        if not isinstance(value, str):
            detail = "some of the four are queries, so all of them have to be"
            raise problems.field(f"/arms/{arm}/{name}", "query_missing", detail)
    return {arm: (given[arm, "n"], given[arm, "errors"]) for arm in ARMS}


def _interval(body: Asked) -> Interval:
    """Both arms' counts as one interval; a problem names what cannot be."""
    if body.interval is None:
        raise problems.field("/interval", "required", "from when to when the requests were counted")
    begin, end = body.interval.begin.timestamp(), body.interval.end.timestamp()
    if begin >= end:
        raise problems.field("/interval/to", "bad_period", "`to` has to be after `from`")
    for name in ARMS:
        given: ArmGiven = getattr(body.arms, name)
        if given.errors > given.n:
            detail = f"{given.errors:,} errors of {given.n:,} requests"
            raise problems.field(f"/arms/{name}/errors", "impossible", detail)
    return Interval(begin, end, _arm(body.arms.canary), _arm(body.arms.stable))


def _arm(given: ArmGiven) -> Arm:
    def counts(histogram: list[int] | None) -> tuple[int, ...] | None:
        return None if histogram is None else tuple(histogram)

    histograms = (counts(given.confidence), counts(given.latency), counts(given.detections))
    return Arm(given.n, given.errors, *histograms, errors_by_key_bucket=counts(given.errors_by_key_bucket))


def _weight(body: Asked, state: State | None) -> float:
    """What is said; else as before; else the canary's share of the first counts, or the strictest."""
    if body.weight_percent is not None:
        return body.weight_percent
    if state is not None:
        return float(state["weight_percent"])
    n_c, n_b = body.arms.canary.n, body.arms.stable.n
    if isinstance(n_c, str) or isinstance(n_b, str) or n_c + n_b == 0:
        return STRICTEST_PERCENT
    return float(min(99.99, max(0.01, 100 * n_c / (n_c + n_b))))
