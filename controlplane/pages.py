"""What is live where, and how is it doing? The pages over several apps: the fleet, a model, the bar's clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import OuterRef, Prefetch, Q, Subquery, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.utils import timezone

from controlplane.models import Alert, Fleet, Model, ModelVersion, Route, Severity
from controlplane.snippets import Step, first_steps
from controlplane.views import LOUDEST_FIRST, bar_facts, live, signed_in
from monitoring.models import DetectorState, Reference, Window
from rollout.models import ACTIVE, Rollout

SILENT_AFTER = timedelta(minutes=2)  # a serving model without data for longer is shown as silent
RATE_OVER = timedelta(minutes=1)  # the requests shown beside "last data"
ROLLOUTS_SHOWN = 20
WORST_FIRST = ("attention", "silent", "rolling", "serving", "idle")
STUCK = ("held", "rolling_back")


@dataclass(frozen=True)
class Row:
    """One model on one fleet, as the Fleet page shows it. `route` is None for a model that nobody serves."""

    model: Model
    route: Route | None = None
    rollout: Rollout | None = None
    detectors: Sequence[DetectorState] = ()
    alerts: Sequence[Alert] = field(default=())
    last_data: datetime | None = None
    recent_n: int | None = None
    place: str = "idle"

    @property
    def loudest(self) -> str:
        """The severity of the loudest open alert; "" when there is none."""
        return min((alert.severity for alert in self.alerts), key=LOUDEST_FIRST.__getitem__, default="")


def place(
    *,
    serving: bool,
    rollout_state: str,
    severities: Iterable[str],
    statuses: Iterable[str],
    last_data: datetime | None,
    now: datetime,
) -> str:
    """Where a model stands among WORST_FIRST. Silence is never "serving": no data is not good news."""
    loud = any(severity != Severity.INFO for severity in severities)
    if loud or rollout_state in STUCK or DetectorState.Status.DRIFTED in statuses:
        return "attention"
    if serving and (last_data is None or now - last_data > SILENT_AFTER):
        return "silent"
    if rollout_state:
        return "rolling"
    return "serving" if serving else "idle"


def rows(now: datetime) -> list[Row]:
    """Every model on every fleet, worst first. Five queries, however many models there are."""
    routes = list(_routes_with_data(now))
    alerts = _by_model(Alert.objects.filter(resolved_at=None, model__isnull=False))
    rollouts = {
        rollout.route_id: rollout for rollout in Rollout.objects.filter(state__in=ACTIVE).order_by("-id")
    }
    serving = {version for route in routes for version in (route.stable_id, route.canary_id) if version}
    detectors: dict[int, list[DetectorState]] = defaultdict(list)
    for state in (
        DetectorState.objects.filter(version__in=serving).defer("state", "result").order_by("detector")
    ):
        detectors[state.version_id].append(state)
    found = [
        _row(route, rollouts.get(route.pk), detectors, alerts.get(route.model_id, []), now)
        for route in routes
    ]
    found += [
        Row(model, alerts=alerts.get(model.pk, []), place="attention" if model.pk in alerts else "idle")
        for model in Model.objects.filter(routes=None)
    ]
    return sorted(found, key=lambda row: (WORST_FIRST.index(row.place), row.model.name))


def _routes_with_data(now: datetime) -> Iterable[Route]:
    """Routes with the end of the latest window of stable or canary, and the requests of the last minute.

    Subqueries walk the index (version, start) from its end: the cost does not grow with history.
    """
    either = Q(version_id=OuterRef("stable_id")) | Q(version_id=OuterRef("canary_id"))
    serving = Window.objects.filter(either, purpose="live")
    stable = Window.objects.filter(version_id=OuterRef("stable_id"), purpose="live").order_by("-start")
    recent = serving.filter(start__gte=now - RATE_OVER).order_by().values("purpose").annotate(sum=Sum("n"))
    return Route.objects.select_related("model", "fleet", "stable", "canary").annotate(
        last_data=Subquery(stable.values("end")[:1]), recent_n=Subquery(recent.values("sum")[:1])
    )


def _by_model(found: Iterable[Alert]) -> dict[int, list[Alert]]:
    grouped: dict[int, list[Alert]] = defaultdict(list)
    for alert in found:
        if alert.model_id is not None:
            grouped[alert.model_id].append(alert)
    return grouped


def _row(
    route: Route,
    rollout: Rollout | None,
    detectors: Mapping[int, Sequence[DetectorState]],
    alerts: Sequence[Alert],
    now: datetime,
) -> Row:
    watched = detectors.get(route.stable_id, ()) if route.stable_id else ()
    last_data: datetime | None = route.last_data  # type: ignore[attr-defined]  # annotated
    return Row(
        model=route.model,
        route=route,
        rollout=rollout,
        detectors=watched,
        alerts=[alert for alert in alerts if alert.fleet_id in (None, route.fleet_id)],
        last_data=last_data,
        recent_n=route.recent_n,  # type: ignore[attr-defined]  # annotated
        place=place(
            serving=route.stable_id is not None,
            rollout_state=rollout.state if rollout else "",
            severities=[alert.severity for alert in alerts],
            statuses=[state.status for state in watched],
            last_data=last_data,
            now=now,
        ),
    )


@signed_in
def fleet(request: HttpRequest) -> HttpResponse:
    """What is live, worst first; with nothing registered, the three steps to the first rollout."""
    found = rows(timezone.now())
    context = {
        "rows": found,
        "attention": sum(row.place == "attention" for row in found),
        "silent": sum(row.place == "silent" for row in found),
        "rolling": sum(row.rollout is not None for row in found),
        "steps": {} if found else _first_steps(request),
    }
    return live(request, "controlplane/fleet.html", "controlplane/_fleet.html", context)


@signed_in
def model(request: HttpRequest, name: str) -> HttpResponse:
    """One model: where it is served, its versions with their lineage and references, its rollouts and alerts."""
    shown = get_object_or_404(Model, name=name)
    versions = (
        ModelVersion.objects.filter(model=shown)
        .select_related("parent")
        .prefetch_related(
            Prefetch(
                "references",
                Reference.objects.filter(state=Reference.State.ACTIVE).defer("data", "variation"),
                to_attr="in_force",
            ),
            Prefetch("detector_states", DetectorState.objects.defer("state", "result").order_by("detector")),
        )
        .order_by("-created_at", "-id")
    )
    routes = list(Route.objects.filter(model=shown).select_related("fleet", "stable", "canary"))
    context = {
        "model": shown,
        "versions": [(version, _roles(version, routes)) for version in versions],
        "routes": routes,
        "rollouts": Rollout.objects.filter(route__model=shown)
        .select_related("version__model", "stable", "route__fleet")
        .defer("judge", "plan", "gates")
        .order_by("-id")[:ROLLOUTS_SHOWN],
        "alerts": Alert.objects.filter(model=shown, resolved_at=None).select_related("version"),
        "steps": _first_steps(request, shown.name),
    }
    return live(request, "controlplane/model.html", "controlplane/_model.html", context)


def _roles(version: ModelVersion, routes: Sequence[Route]) -> list[str]:
    """What a version is right now, e.g. ["stable on local"]."""
    roles = [("stable", "stable_id"), ("canary", "canary_id"), ("kept warm", "previous_id")]
    return [
        f"{word} on {route.fleet.name}"
        for route in routes
        for word, attribute in roles
        if getattr(route, attribute) == version.pk
    ]


def _first_steps(request: HttpRequest, model: str = "products") -> dict[str, Step]:
    fleet = Fleet.objects.order_by("id").values_list("name", flat=True).first() or "local"
    return first_steps(request.build_absolute_uri("/").rstrip("/"), model, fleet)


@signed_in
def bar(request: HttpRequest) -> HttpResponse:
    """The live end of the top bar: open alerts and the clock of the last data."""
    latest = Window.objects.order_by("-id").only("end").first()
    context = {**bar_facts(), "last_data": latest.end if latest else None}
    return render(request, "controlplane/_bar_live.html", context)
