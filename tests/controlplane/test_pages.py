"""The Fleet, Model and Alerts pages, signing in, and what all templates must keep to."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from controlplane import alerts, pages
from controlplane.models import Channel, Fleet, Model, ModelVersion, Route
from controlplane.templatetags import davy
from monitoring.models import DetectorState, Window
from rollout.models import Rollout

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PLAN = {"name": "standard", "steps": [{"weight_percent": 5, "dwell_seconds": 30}], "gates": [], "alpha": 0.01}
TEMPLATES = sorted(
    path
    for app in ("controlplane", "monitoring", "rollout", "labeling")
    for path in (settings.BASE_DIR / app / "templates").rglob("*.html")
)
SCRIPTS = sorted((settings.BASE_DIR / "controlplane" / "static").glob("*.js"))


@pytest.fixture
def browser(person) -> Client:
    client = Client()
    client.force_login(person())
    return client


def served(name: str, *, canary: bool = False, data_at: datetime | None = None) -> Route:
    """A model with a stable version on the fleet `local`, a canary in a rollout, and one window of data."""
    fleet, _ = Fleet.objects.get_or_create(name="local", defaults={"driver": "memory"})
    model = Model.objects.create(name=name)
    v1, v2 = (
        ModelVersion.objects.create(model=model, name=version, artifact_uri="file:///a", digest=digit * 64)
        for version, digit in (("v1", "1"), ("v2", "2"))
    )
    route = Route.objects.create(model=model, fleet=fleet, stable=v1, canary=v2 if canary else None)
    if canary:
        Rollout.objects.create(
            route=route, version=v2, stable=v1, plan_name="standard", plan=PLAN, state="running"
        )
    if data_at:
        Window.objects.create(
            version=v1, start=data_at - timedelta(seconds=10), end=data_at, n=4000, errors=0
        )
    return route


def text(response) -> str:
    """What a person reads: without tags, spaces as one."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


@pytest.mark.django_db
@pytest.mark.parametrize(
    "path", ["/", "/models/x", "/rollouts", "/rollouts/1", "/alerts", "/alerts/1", "/labeling"]
)
def test_whoever_is_not_signed_in_is_sent_to_sign_in(path: str) -> None:
    response = Client().get(path)
    assert response.status_code == 302
    assert response["Location"].startswith("/login?next=")


@pytest.mark.django_db
def test_a_polling_page_whose_session_ended_leaves_as_a_whole() -> None:
    response = Client().get("/", headers={"HX-Request": "true"})
    assert response["HX-Redirect"] == "/login"


@pytest.mark.django_db
def test_signing_in_leads_to_the_fleet_and_a_wrong_password_says_so(person) -> None:
    ada = person("ada")
    ada.set_password("a long enough password")
    ada.save()
    wrong = Client().post("/login", {"username": "ada", "password": "nope"})
    assert "do not match" in text(wrong)
    right = Client().post("/login", {"username": "ada", "password": "a long enough password"})
    assert right["Location"] == "/"


def test_an_empty_fleet_shows_three_steps_to_the_first_rollout(browser: Client) -> None:
    page = text(browser.get("/"))
    assert "Register a model and a version" in page
    assert "/api/v1/rollouts" in page


def test_a_row_shows_versions_weights_data_and_its_n(browser: Client) -> None:
    route = served("products", canary=True, data_at=timezone.now())
    Route.objects.filter(pk=route.pk).update(weight_percent=25, observed_weight_percent=24.8)
    page = text(browser.get("/"))
    assert "asked 25 %, observed 24.8 %" in page
    assert "n = 4,000 in the last minute" in page


@pytest.mark.parametrize("models", [1, 12])
def test_the_fleet_page_needs_at_most_ten_queries_whatever_the_number_of_models(
    browser: Client, models: int
) -> None:
    for i in range(models):
        route = served(f"model-{i}", canary=True, data_at=timezone.now())
        DetectorState.objects.create(version=route.stable, detector="embedding_drift", status="STABLE")
        alerts.open(f"cause-{i}", severity="error", summary="x", now=NOW, model=route.model)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert browser.get("/").status_code == 200
    assert len(queries) <= 10


def test_the_worst_model_comes_first(browser: Client) -> None:
    now = timezone.now()
    served("calm", data_at=now)
    served("silent")
    drifted = served("drifted", data_at=now)
    DetectorState.objects.create(version=drifted.stable, detector="embedding_drift", status="DRIFTED")
    Model.objects.create(name="unserved")
    assert [row.model.name for row in pages.rows(now)] == ["drifted", "silent", "calm", "unserved"]


def test_a_serving_model_without_data_is_silent_never_serving() -> None:
    facts = {"serving": True, "rollout_state": "", "severities": [], "statuses": [], "now": NOW}
    assert pages.place(**facts, last_data=None) == "silent"
    assert pages.place(**facts, last_data=NOW - timedelta(minutes=3)) == "silent"
    assert pages.place(**facts, last_data=NOW) == "serving"


def test_a_held_rollout_needs_attention() -> None:
    assert (
        pages.place(serving=True, rollout_state="held", severities=[], statuses=[], last_data=NOW, now=NOW)
        == "attention"
    )


def test_a_fleet_that_runs_on_the_substitute_server_says_so_on_every_page(browser: Client) -> None:
    Fleet.objects.create(
        name="local", driver="envoy", config={"server_note": "the substitute server is used"}
    )
    for path in ("/", "/alerts", "/labeling"):
        assert "the substitute server is used" in text(browser.get(path))


def test_htmx_gets_only_the_live_part(browser: Client) -> None:
    served("products")
    part = browser.get("/", headers={"HX-Request": "true"})
    assert b"<html" not in part.content
    assert b"products" in part.content
    assert "HX-Request" in part["Vary"]


def test_the_bar_counts_open_alerts_and_shows_the_time_of_the_last_data(browser: Client) -> None:
    served("products", data_at=NOW)
    alerts.open("cause", severity="error", summary="x", now=NOW)
    bar = text(browser.get("/bar"))
    assert "1 open" in bar
    assert "1 Mar 12:00 UTC" in bar


def test_a_model_page_shows_its_versions_and_what_they_are(browser: Client) -> None:
    served("products", canary=True)
    page = text(browser.get("/models/products"))
    assert "stable on local" in page
    assert "canary on local" in page


def test_a_model_without_versions_shows_how_to_register_one(browser: Client) -> None:
    Model.objects.create(name="empty")
    assert "/api/v1/models/empty/versions" in text(browser.get("/models/empty"))


def test_an_unknown_model_is_a_page_that_says_so(browser: Client) -> None:
    response = browser.get("/models/nothing")
    assert response.status_code == 404
    assert "nothing at this address" in text(response)


def test_no_alert_is_said_in_words(browser: Client) -> None:
    assert "Nothing open" in text(browser.get("/alerts"))


def test_open_alerts_come_loudest_first_and_the_detail_shows_each_delivery(browser: Client) -> None:
    Channel.objects.create(name="on-call", kind="memory")
    alerts.open("a", severity="warning", summary="a warning", now=NOW)
    loud = alerts.open("b", severity="critical", summary="a critical one", now=NOW)
    page = text(browser.get("/alerts"))
    assert page.index("a critical one") < page.index("a warning")
    assert "on-call memory" in text(browser.get(f"/alerts/{loud.pk}"))


def test_an_engineer_acknowledges_and_resolves_with_a_reason(browser: Client) -> None:
    alert = alerts.open("a", severity="error", summary="x", now=NOW)
    browser.post(f"/alerts/{alert.pk}/act", {"command": "acknowledge"})
    alert.refresh_from_db()
    assert alert.acknowledged_by == "ann"
    refused = browser.post(f"/alerts/{alert.pk}/act", {"command": "resolve", "reason": " "}, follow=True)
    assert "Say why" in text(refused)
    browser.post(f"/alerts/{alert.pk}/act", {"command": "resolve", "reason": "camera replaced"})
    alert.refresh_from_db()
    assert "camera replaced" in alert.resolution


def test_a_viewer_may_look_at_an_alert_but_not_act(person) -> None:
    alert = alerts.open("a", severity="error", summary="x", now=NOW)
    viewer = Client()
    viewer.force_login(person("vera", "viewer"))
    assert "may look but not act" in text(viewer.get(f"/alerts/{alert.pk}"))
    assert viewer.post(f"/alerts/{alert.pk}/act", {"command": "acknowledge"}).status_code == 403


def test_a_form_from_elsewhere_is_refused(person) -> None:
    alert = alerts.open("a", severity="error", summary="x", now=NOW)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(person())
    assert strict.post(f"/alerts/{alert.pk}/act", {"command": "acknowledge"}).status_code == 403


def test_pages_carry_the_strict_content_security_policy(browser: Client) -> None:
    policy = browser.get("/")["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_a_template_has_nothing_that_the_policy_would_block(path: Path) -> None:
    source = path.read_text()
    assert not re.search(r"\sstyle\s*=|<style|\son[a-z]+\s*=|hx-on|javascript:|[\"']js:", source)
    for tag in re.findall(r"<script[^>]*>", source):
        assert "src=" in tag


@pytest.mark.parametrize("path", [*TEMPLATES, *SCRIPTS], ids=lambda path: path.name)
def test_pages_load_nothing_from_elsewhere(path: Path) -> None:
    assert not re.search(r"(src|href|url)\s*[=(]\s*[\"']?(https?:)?//", path.read_text())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.1434, ".143"),
        (4.612, "4.61"),
        (1204, "1,204"),
        (-0.11, "−.11"),
        (0.9999, "1"),
        (0, "0"),
        (1e-12, "0"),
        (-1e-12, "0"),
        (-0.0, "0"),
        (None, "–"),
        (float("nan"), "–"),
    ],
)
def test_numbers_have_one_form(value: float | None, shown: str) -> None:
    assert davy.figure(value) == shown


def test_a_weight_of_nothing_has_no_sign() -> None:
    assert davy.percent(-0.04) == davy.percent(0.0)


def test_every_state_has_a_shape_and_a_word_of_its_own() -> None:
    shapes = (settings.BASE_DIR / "controlplane" / "static" / "icons.svg").read_text()
    for state in Rollout.State.values:
        look = davy.LOOKS[state]
        assert f'id="{look.icon}"' in shapes
        assert look.word


def test_a_time_in_a_detail_is_shown_as_a_time_and_a_word_as_a_word() -> None:
    assert "1 Mar 12:00 UTC" in davy.plain(NOW.isoformat())
    assert davy.plain("component 3") == "component 3"
    assert davy.plain(0.25) == ".25"
