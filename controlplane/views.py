"""What does every page share, and what do the pages about alerts show?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import wraps
from typing import Any, Concatenate, ParamSpec

from django.contrib import messages
from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import patch_vary_headers
from django.views.decorators.http import require_POST

from controlplane import access, alerts
from controlplane.models import Alert, Fleet, Severity, User
from controlplane.problems import Problem, field

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponseBase]

RESOLVED_SHOWN = 50  # the latest resolved alerts on the Alerts page
LOUDEST_FIRST = {severity: rank for rank, severity in enumerate(Severity.values)}


def by_htmx(request: HttpRequest) -> bool:
    """Whether htmx asks, so that only the live part of a page is wanted."""
    return request.headers.get("HX-Request") == "true"


def signed_in(view: View[P]) -> View[P]:
    """Let only signed-in people see a page; htmx is told to leave for the sign-in page as a whole."""

    @wraps(view)
    def inner(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
        if request.user.is_authenticated:
            return view(request, *args, **kwargs)
        if by_htmx(request):
            return HttpResponse(headers={"HX-Redirect": reverse("login")})
        return redirect_to_login(request.get_full_path())

    return inner


def person(request: HttpRequest) -> User:
    """The signed-in person."""
    assert isinstance(request.user, User)
    return request.user


def may(request: HttpRequest, scope: str) -> bool:
    """Whether the signed-in person's role allows what `scope` names."""
    return access.session_identity(person(request)).allows(scope)


def act(scope: str) -> Callable[[View[P]], View[P]]:
    """A view that changes something: POST only, signed in, and the role must allow `scope`."""

    def wrap(view: View[P]) -> View[P]:
        @wraps(view)
        def inner(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if not may(request, scope):
                raise PermissionDenied(f"your role, {person(request).role}, does not allow this")
            return view(request, *args, **kwargs)

        return require_POST(signed_in(inner))

    return wrap


def reason_of(request: HttpRequest) -> str:
    """The reason that every act asks for. Problem when it is empty."""
    reason = str(request.POST.get("reason", "")).strip()
    if not reason:
        raise field("/reason", "required", "Say why: the reason is kept in the log.")
    return reason


def live(request: HttpRequest, page: str, part: str, context: Mapping[str, Any]) -> HttpResponse:
    """Render the whole page, or only its live part when htmx asks for fresh numbers."""
    response = render(request, part if by_htmx(request) else page, dict(context))
    patch_vary_headers(response, ["HX-Request"])
    response.headers["Cache-Control"] = "no-store"
    return response


def bar_facts() -> dict[str, Any]:
    """What the top bar says: open alerts, and notes of fleets about themselves."""
    notes = Fleet.objects.filter(config__has_key="server_note").values_list("name", "config__server_note")
    return {
        "open_alerts": Alert.objects.filter(resolved_at=None).count(),
        "notes": [(name, note) for name, note in notes if note],
    }


@signed_in
def alert_list(request: HttpRequest) -> HttpResponse:
    """Open alerts, loudest and oldest first; then the latest resolved ones."""
    known = Alert.objects.select_related("model", "version", "fleet")
    found = sorted(
        known.filter(resolved_at=None), key=lambda alert: (LOUDEST_FIRST[alert.severity], alert.opened_at)
    )
    context = {
        "open": found,
        "resolved": known.exclude(resolved_at=None).order_by("-resolved_at")[:RESOLVED_SHOWN],
        "latest": Alert.objects.order_by("-updated_at").first(),
    }
    return live(request, "controlplane/alerts.html", "controlplane/_alerts.html", context)


@signed_in
def alert_detail(request: HttpRequest, pk: int) -> HttpResponse:
    """One alert: what, since when, where, what was done about it, and every delivery attempt."""
    alert = get_object_or_404(Alert.objects.select_related("model", "version", "fleet"), pk=pk)
    context = {
        "alert": alert,
        "deliveries": alert.deliveries.select_related("channel").order_by("id"),
        "lasted_seconds": ((alert.resolved_at or timezone.now()) - alert.opened_at) // timedelta(seconds=1),
        "detail": sorted(
            (key, value) for key, value in alert.detail.items() if not isinstance(value, dict | list)
        ),
        "may_act": may(request, "deploy"),
    }
    return live(request, "controlplane/alert.html", "controlplane/_alert.html", context)


@act("deploy")
def alert_act(request: HttpRequest, pk: int) -> HttpResponse:
    """Acknowledge or resolve an alert, then show it again."""
    alert = get_object_or_404(Alert, pk=pk)
    command = request.POST.get("command", "")
    try:
        if command == "acknowledge":
            alerts.acknowledge(alert, actor=person(request).username, now=timezone.now())
            messages.success(request, "Acknowledged: the pagers are told that you are on it.")
        elif command == "resolve":
            alerts.resolve_by_hand(
                alert, actor=person(request).username, reason=reason_of(request), now=timezone.now()
            )
            messages.success(request, "Resolved.")
        else:
            raise field(
                "/command", "unknown_command", f"no act {command!r}; there are acknowledge and resolve"
            )
    except Problem as problem:
        messages.error(request, problem.detail)
    return redirect("alert", pk=pk)
