"""Which control chart does a person look at, and whose limits? The control chart page and its acts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone

from controlplane.models import ModelVersion
from controlplane.problems import Problem, field
from controlplane.views import act, live, may, person, reason_of, signed_in
from monitoring import chart_limits, charting
from monitoring.charting import Drawn, Place, Point
from monitoring.models import Rollup
from monitoring.statistics.charts import kinds, measures

LEVELS = {60: "minutes", 3600: "hours", 86400: "days"}
RULE_SETS = {"western_electric": "Western Electric", "nelson": "Nelson", "none": "limits only"}
FEW_HOURS = 5  # with fewer than these a chart of minutes says more
USUAL_POINTS = 25  # of phase I, in textbooks
MEASURE, KIND = "low_share", "p"
ASKED = ("measure", "chart", "seconds", "rules", "from", "to")


@signed_in
def spc(request: HttpRequest, name: str, version: str) -> HttpResponse:
    """One control chart: points, limits, the rules they break; phase I, its history, and what is left out of it."""
    shown = get_object_or_404(ModelVersion.objects.select_related("model"), model__name=name, name=version)
    place = _place(shown, request.GET.dict())
    try:
        drawn = charting.chart_of(
            place,
            timezone.now(),
            since=_moment(request.GET, "from"),
            until=_moment(request.GET, "to"),
            seconds=_seconds(place, request.GET.get("seconds", "")),
            changes={"rules": request.GET["rules"]} if request.GET.get("rules") else {},
        )
    except Problem as problem:
        messages.error(request, problem.detail)
        return redirect("spc", name=name, version=version)
    context = {
        "version": shown,
        "drawn": drawn,
        "asked": _asked(request, drawn),
        "choices": _choices(drawn),
        "words": measures.MEASURES[place.measure],
        "kind": kinds.KINDS[place.kind],
        "level": LEVELS[drawn.period.seconds],
        "rows": [_row(point, drawn) for point in reversed(drawn.points)],
        "signalled": [point for point in reversed(drawn.points) if point.rules],
        "rules": kinds.words_of(drawn.place.kind, drawn.settings).items(),
        "excluded": [point for point in drawn.points if point.exclusion],
        "history": place.charts().order_by("-number"),
        "chance": _chance(drawn),
        "usual": USUAL_POINTS,
        "chart": _chart(drawn),
        "may_act": may(request, "deploy"),
    }
    return live(request, "monitoring/spc.html", "monitoring/_spc.html", context)


@act("deploy")
def spc_act(request: HttpRequest, name: str, version: str) -> HttpResponse:
    """Set phase I, leave a point out, or take it back in, with a reason; then show the chart again."""
    shown = get_object_or_404(ModelVersion.objects.select_related("model"), model__name=name, name=version)
    given, now, by = request.POST, timezone.now(), person(request).username
    place = _place(shown, given.dict())
    command = given.get("command", "")
    try:
        reason = reason_of(request)
        if command == "recalculate":
            made = chart_limits.recalculate(
                place,
                _required(given, "phase1_from"),
                _required(given, "phase1_to"),
                by=by,
                reason=reason,
                now=now,
                seconds=_seconds(place, given.get("seconds", "")),
                changes={"rules": given["rules"]} if given.get("rules") else {},
            )
            messages.success(request, f"Limits number {made.number}; the older ones stay as history.")
        elif command == "exclude":
            start, segment = _required(given, "start"), place.segment
            chart_limits.exclude(shown, place.measure, start, by=by, reason=reason, now=now, segment=segment)
            messages.success(request, "Left out; limits that used the point are recalculated.")
        elif command.startswith("withdraw-") and command.removeprefix("withdraw-").isdecimal():
            number = int(command.removeprefix("withdraw-"))
            chart_limits.withdraw(shown, number, by=by, reason=reason, now=now)
            messages.success(request, "Taken back in; limits that it belongs to are recalculated.")
        else:
            raise field("/command", "unknown_command", f"no act {command!r}")
    except Problem as problem:
        messages.error(request, problem.detail)
    query = {key: value for key, value in given.items() if key in ASKED or key.startswith("segment.")}
    return redirect(f"{reverse('spc', args=(name, version))}?{urlencode(query)}")


def _place(version: ModelVersion, given: dict[str, Any]) -> Place:
    """The chart that is asked for; a measure that it cannot show gets the first chart that can."""
    measure, kind = given.get("measure", MEASURE), given.get("chart", KIND)
    if measure not in measures.MEASURES or kind not in kinds.KINDS:
        raise Http404(f"no chart {kind} of {measure}")
    fitting = kinds.KINDS_OF[measures.MEASURES[measure].form]
    segment = {
        key.removeprefix("segment."): v for key, v in given.items() if key.startswith("segment.") and v
    }
    return Place(version, kind if kind in fitting else fitting[0], measure, segment)


def _seconds(place: Place, asked: str) -> int | None:
    """The level that is asked for; else the chart's own, and minutes where there are hardly any hours yet."""
    if asked.isdecimal():
        return int(asked)
    if place.charts().filter(retired_at=None).exists():
        return None
    hours = Rollup.objects.filter(version=place.version, seconds=charting.HOUR)
    starts = hours.values_list("start", flat=True).distinct()[:FEW_HOURS]
    return charting.HOUR if len(starts) == FEW_HOURS else 60


def _moment(given: Any, name: str) -> datetime | None:
    """A time of the form, in UTC; None where none is given. Problem where it is not one."""
    text = str(given.get(name, "")).strip()
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise field(f"/{name}", "bad_time", f"{text!r} is not a time like 2026-11-20 14:00") from None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def _required(given: Any, name: str) -> datetime:
    found = _moment(given, name)
    if found is None:
        raise field(f"/{name}", "required", "Say from when to when, in UTC.")
    return found


def _asked(request: HttpRequest, drawn: Drawn) -> list[tuple[str, str]]:
    """What the page was asked for, to be sent along with every act."""
    place, period = drawn.place, {key: request.GET[key] for key in ("from", "to") if request.GET.get(key)}
    return [
        ("measure", place.measure),
        ("chart", place.kind),
        ("seconds", str(drawn.period.seconds)),
        ("rules", drawn.settings.rules),
        *period.items(),
        *((f"segment.{key}", value) for key, value in place.segment.items()),
    ]


def _choices(drawn: Drawn) -> dict[str, Any]:
    fitting = kinds.KINDS_OF[measures.MEASURES[drawn.place.measure].form]
    return {
        "measures": [(name, found.words) for name, found in measures.MEASURES.items()],
        "kinds": [(name, kinds.KINDS[name]) for name in fitting],
        "levels": LEVELS.items(),
        "rules": RULE_SETS.items(),
    }


def _row(point: Point, drawn: Drawn) -> dict[str, Any]:
    """A point of the table, with the words of its rules."""
    words = kinds.words_of(drawn.place.kind, drawn.settings)
    return {"point": point, "rules": [f"{rule}: {words[rule]}" for rule in point.rules]}


def _chance(drawn: Drawn) -> dict[str, Any] | None:
    """How many points pass between two false alarms, and how long that is."""
    points = kinds.arl(drawn.place.kind, drawn.settings)
    each = kinds.intervals_of(drawn.place.kind, drawn.settings) * drawn.period.seconds
    return None if points is None else {"points": round(points), "seconds": points * each}


def _chart(drawn: Drawn) -> dict[str, Any]:
    """What chart-spc.js draws; times in milliseconds."""
    place, chart = drawn.place, drawn.chart
    of_shares = measures.MEASURES[place.measure].form == "share" and place.kind not in ("np", "c")
    return {
        "name": measures.MEASURES[place.measure].words,
        "percent": of_shares,
        "unit": measures.MEASURES[place.measure].unit,
        "seconds": drawn.period.seconds,
        "words": {
            str(rule): words for rule, words in kinds.words_of(drawn.place.kind, drawn.settings).items()
        },
        "phase1": [_ms(chart.phase1_from), _ms(chart.phase1_until)] if chart else None,
        "points": [
            {
                "at": _ms(point.start),
                "n": point.n,
                "value": point.value,
                "below": point.below,
                "center": point.center,
                "lower": point.lower,
                "upper": point.upper,
                "rules": point.rules,
                "excluded": point.exclusion.reason if point.exclusion else "",
            }
            for point in drawn.points
        ],
    }


def _ms(at: datetime) -> int:
    return int(at.timestamp() * 1000)
