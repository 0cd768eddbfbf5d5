"""JSON for control charts: what they show, whose limits they have, which points are left out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from ninja import Router
from pydantic import AwareDatetime, Field, Strict

from controlplane import http, problems, registry
from monitoring import chart_limits, charting
from monitoring.api.asked import asked_of
from monitoring.charting import Drawn, Place, Point
from monitoring.models import ChartExclusion, ControlChart
from monitoring.statistics.charts import kinds, measures
from monitoring.statistics.charts.kinds import RuleSet
from monitoring.statistics.charts.weighted import Limits

router = Router()

DEFAULT_MEASURE = "low_share"
NUMBERS = {"lambda": float, "width": float, "k": float, "h": float, "group": int}  # settings in a query

Moment = Annotated[AwareDatetime, Strict(False)]
Segment = Annotated[dict[str, str], Field(default_factory=dict, max_length=16)]
Reason = Annotated[str, Field(min_length=1, max_length=1000)]


class ChartSettings(http.Body):
    """How a chart is drawn; what is left out stays as it was."""

    rules: RuleSet | None = None
    group: int | None = None
    lam: float | None = Field(default=None, alias="lambda")
    width: float | None = None
    limits: Limits | None = None
    k: float | None = None
    h: float | None = None


class Recalculation(http.Body):
    """POST …/spc/{chart}/recalculate: phase I, and why."""

    measure: str = DEFAULT_MEASURE
    since: Moment = Field(alias="from")
    until: Moment = Field(alias="to")
    reason: Reason
    segment: Segment
    seconds: int | None = None
    settings: ChartSettings = ChartSettings()


class Exclusion(http.Body):
    """POST …/spc/{chart}/exclusions: the point that begins at `start`, and why it says nothing of normal work."""

    measure: str = DEFAULT_MEASURE
    start: Moment
    reason: Reason
    segment: Segment


@router.get("/models/{model}/versions/{version}/spc/{chart}", auth=http.scope("read"))
def get_chart(request: HttpRequest, model: str, version: str, chart: str) -> HttpResponse:
    """A control chart of `?measure=` (low_share) over `?from&to`, of `?seconds=` 60, 3600 or 86400, `?segment.x=`.

    `rules`, `group`, `lambda`, `width`, `limits`, `k` and `h` in the query change the chart for this look. A gap is a
    point whose value is null.
    """
    query = request.GET
    asked = asked_of(request, charting.LEVELS[charting.HOUR])
    place = _place(model, version, chart, query.get("measure", DEFAULT_MEASURE), asked.segment)
    drawn = charting.chart_of(
        place,
        timezone.now(),
        since=asked.since if "from" in query else None,
        until=asked.until,
        seconds=None if "seconds" not in query else _number("seconds", query["seconds"], int),
        changes=_changes(request),
    )
    return JsonResponse(_drawn_json(drawn))


@router.post("/models/{model}/versions/{version}/spc/{chart}/recalculate", auth=http.scope("deploy"))
def recalculate(
    request: HttpRequest, model: str, version: str, chart: str, body: Recalculation
) -> HttpResponse:
    """Take the chart's limits from a period that was in order (phase I); 201 with the new number."""
    if body.since >= body.until:
        raise problems.field("/from", "bad_period", "from must be before to")
    place = _place(model, version, chart, body.measure, body.segment)
    made = chart_limits.recalculate(
        place,
        body.since,
        body.until,
        by=http.actor(request),
        reason=body.reason,
        now=timezone.now(),
        seconds=body.seconds,
        changes=body.settings.model_dump(exclude_none=True),
    )
    return JsonResponse(_chart_json(made), status=201)


@router.post("/models/{model}/versions/{version}/spc/{chart}/exclusions", auth=http.scope("deploy"))
def exclude(request: HttpRequest, model: str, version: str, chart: str, body: Exclusion) -> HttpResponse:
    """Leave one point out of the measure's charts, with a reason; 201. Limits that used it are recalculated."""
    place = _place(model, version, chart, body.measure, body.segment)
    row = chart_limits.exclude(
        place.version,
        body.measure,
        body.start,
        by=http.actor(request),
        reason=body.reason,
        now=timezone.now(),
        segment=body.segment,
    )
    return JsonResponse(_exclusion_json(row), status=201)


@router.delete("/models/{model}/versions/{version}/spc/{chart}/exclusions/{pk}", auth=http.scope("deploy"))
def withdraw(request: HttpRequest, model: str, version: str, chart: str, pk: int) -> HttpResponse:
    """Take a point back in (`?reason=` is kept in the audit); 200. Limits that it belongs to are recalculated."""
    owner = registry.get_version(model, version)
    row = chart_limits.withdraw(
        owner,
        pk,
        by=http.actor(request),
        reason=request.GET.get("reason", "")[:1000],
        now=timezone.now(),
    )
    return JsonResponse(_exclusion_json(row))


def _place(model: str, version: str, chart: str, measure: str, segment: Any) -> Place:
    return Place(registry.get_version(model, version), chart, measure, dict(segment))


def _changes(request: HttpRequest) -> dict[str, Any]:
    """The settings that the query names."""
    found: dict[str, Any] = {name: request.GET[name] for name in ("rules", "limits") if name in request.GET}
    for name, kind in NUMBERS.items():
        if name in request.GET:
            found["lam" if name == "lambda" else name] = _number(name, request.GET[name], kind)
    return found


def _number(name: str, text: str, kind: type[int] | type[float]) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise problems.field(f"/{name}", "not_a_number", f"{name}={text!r} is not a number") from None


def _drawn_json(drawn: Drawn) -> dict[str, Any]:
    place, settings = drawn.place, _settings_json(asdict(drawn.settings))
    points = kinds.arl(place.kind, drawn.settings)
    each = kinds.intervals_of(place.kind, drawn.settings) * drawn.period.seconds
    return {
        "model": place.version.model.name,
        "version": place.version.name,
        "chart": place.kind,
        "measure": place.measure,
        "words": measures.MEASURES[place.measure].words,
        "unit": measures.MEASURES[place.measure].unit,
        "asked": {"from": drawn.period.since, "to": drawn.period.until, "segment": place.segment},
        "seconds": drawn.period.seconds,
        "settings": settings,
        "rules": {
            str(rule): words for rule, words in kinds.words_of(drawn.place.kind, drawn.settings).items()
        },
        "limits_from": drawn.limits_from,
        "number": drawn.chart.number if drawn.chart else None,
        "phase1": {"from": drawn.chart.phase1_from, "to": drawn.chart.phase1_until} if drawn.chart else None,
        "estimate": asdict(drawn.estimate) if drawn.estimate else None,
        "false_alarm_every": {"points": points, "seconds": points * each} if points else None,
        "n": sum(point.n for point in drawn.points),
        "signals": drawn.signals,
        "points": [_point_json(point) for point in drawn.points],
        "history": [_chart_json(row) for row in place.charts().order_by("-number")],
    }


def _point_json(point: Point) -> dict[str, Any]:
    return {
        "from": point.start,
        "to": point.end,
        "n": point.n,
        "value": point.value,
        **({"below": point.below} if point.below is not None else {}),
        "center": point.center,
        "lower": point.lower,
        "upper": point.upper,
        "rules": point.rules,
        "phase": point.phase,
        "excluded": _exclusion_json(point.exclusion) if point.exclusion else None,
    }


def _settings_json(settings: dict[str, Any]) -> dict[str, Any]:
    return {"lambda" if name == "lam" else name: value for name, value in settings.items()}


def _chart_json(row: ControlChart) -> dict[str, Any]:
    return {
        "number": row.number,
        "phase1": {"from": row.phase1_from, "to": row.phase1_until},
        "settings": _settings_json(charting.own_settings(row)),
        "seconds": row.settings["seconds"],
        "estimate": row.settings["estimate"],
        "excluded": row.settings["excluded"],
        "by": row.made_by,
        "reason": row.reason,
        "at": row.made_at,
        "retired_at": row.retired_at,
    }


def _exclusion_json(row: ChartExclusion) -> dict[str, Any]:
    return {
        "id": row.pk,
        "measure": row.measure,
        "start": row.start,
        "reason": row.reason,
        "by": row.by,
        "at": row.at,
        "withdrawn_at": row.withdrawn_at,
    }
