"""The pages in a real browser: nothing is blocked, charts are drawn, live parts keep what a person is doing."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Iterator
from datetime import timedelta

import numpy as np
import pytest
from davy import counting, wire
from django.utils import timezone

from controlplane import alerts
from controlplane.models import Fleet, Model, ModelVersion, Role, Route, User
from labeling.models import Annotation, Task
from monitoring import references
from monitoring.models import Window
from rollout.models import Evidence, Rollout, RolloutEvent
from tests.browser import Browser, browser, needs_chromium
from tests.controlplane.servers import receiver

pytestmark = [pytest.mark.system, needs_chromium, pytest.mark.django_db(transaction=True)]

PASSWORD = "a long enough password"
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)
PLAN = {
    "name": "standard",
    "steps": [{"weight_percent": 5, "dwell_seconds": 30}, {"weight_percent": 50, "dwell_seconds": 30}],
    "gates": [{"name": "errors", "weight": 1}],
    "alpha": 0.01,
    "watch_seconds": 30,
}


@pytest.fixture
def images(settings) -> Iterator[str]:
    """The URL of a server that has one image."""
    settings.OUTBOUND_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    with receiver() as server:
        server.answer = lambda _asked: (200, PIXEL, {"Content-Type": "image/png"})
        yield server.url


@pytest.fixture
def rollout(images: str) -> Rollout:
    """A model with everything that the pages show."""
    now, rng = timezone.now(), np.random.default_rng(1)
    fleet = Fleet.objects.create(
        name="local", driver="memory", config={"server_note": "the substitute serves"}
    )
    model = Model.objects.create(name="products")
    v1, v2 = (
        ModelVersion.objects.create(
            model=model,
            name=name,
            artifact_uri="file:///a",
            digest=name[1] * 64,
            bundle={"classes": ["shoe", "bag"]},
        )
        for name in ("v1", "v2")
    )
    route = Route.objects.create(model=model, fleet=fleet, stable=v1, canary=v2, weight_percent=5)
    references.freeze(v1, rng.normal(size=(500, 4)).astype("f4"), rng.random(500))
    bins = references.load(v1)
    assert bins is not None
    Window.objects.create(
        version=v1,
        start=now - timedelta(seconds=20),
        end=now - timedelta(seconds=10),
        n=600,
        errors=1,
        reference_digest=bins.digest,
        confidence=wire.pack(counting.count_confidence(rng.random(600))),
        latency=wire.pack(counting.count_latency(rng.random(600))),
        embedding=wire.pack(bins.count(rng.normal(size=(600, 4)))),
    )
    alerts.open(
        "drift/x", severity="error", summary="far away", now=now, model=model, version=v1, fleet=fleet
    )
    Task.objects.create(
        model=model,
        version=v1,
        request_id="r1",
        requested_at=now,
        budget="improve",
        sampler="band",
        image=f"{images}/1.png",
        suggestion={"label": "shoe", "confidence": 0.5, "probabilities": [0.5, 0.4]},
        why="confidence .50 is between .30 and .60",
    )
    found = Rollout.objects.create(
        route=route, version=v2, stable=v1, plan_name="standard", plan=PLAN, state="running", reason="waits"
    )
    RolloutEvent.objects.create(rollout=found, kind="state", state="running", step=0, weight_percent=5)
    for i in range(3):
        Evidence.objects.create(
            rollout=found,
            gate="errors",
            source="router",
            start=now + timedelta(seconds=i),
            end=now + timedelta(seconds=i + 1),
            step=0,
            weight_percent=5,
            arms={},
            log_e={"fail": 0.1 * i, "pass": 0.5 * i},
        )
    return found


@pytest.fixture
def here(live_server, rollout: Rollout) -> Iterator[Browser]:
    """A browser in which an engineer is signed in."""
    User.objects.create_user("ada", password=PASSWORD, role=Role.ENGINEER)
    with browser() as opened:
        opened.sign_in(live_server.url, "ada", PASSWORD)
        yield opened


def test_no_page_has_anything_blocked_or_broken(here: Browser, live_server, rollout: Rollout) -> None:
    paths = [
        "/",
        "/models/products",
        "/models/products/versions/v1/drift",
        "/rollouts",
        f"/rollouts/{rollout.pk}",
        "/alerts",
        f"/alerts/{rollout.version.model.alerts.get().pk}",
        "/labeling",
    ]
    for width in (1280, 420):
        here.page.set_viewport_size({"width": width, "height": 900})
        for path in paths:
            here.page.goto(live_server.url + path, wait_until="networkidle")
            assert here.overflow() == 0, path
    assert here.complaints == []


def test_every_chart_is_drawn(here: Browser, live_server, rollout: Rollout) -> None:
    for path, charts in (("/models/products/versions/v1/drift", 4), (f"/rollouts/{rollout.pk}", 1)):
        here.page.goto(live_server.url + path)
        here.page.wait_for_function(f"document.querySelectorAll('[data-chart] svg').length === {charts}")
    assert here.complaints == []


def test_a_page_follows_what_happens_and_keeps_a_half_written_reason(
    here: Browser, live_server, rollout: Rollout
) -> None:
    here.page.goto(f"{live_server.url}/rollouts/{rollout.pk}")
    here.page.get_by_label("Reason").fill("because of")
    Rollout.objects.filter(pk=rollout.pk).update(reason="every gate passed at 5 %", state="held")
    here.page.get_by_text("every gate passed at 5 %").wait_for()
    assert here.page.get_by_label("Reason").input_value() == "because of"
    assert here.page.get_by_label("Reason").evaluate("box => box === document.activeElement")


def test_enter_in_the_reason_does_nothing_a_button_must_be_chosen(
    here: Browser, live_server, rollout: Rollout
) -> None:
    here.page.goto(f"{live_server.url}/rollouts/{rollout.pk}")
    here.page.get_by_label("Reason").fill("oops")
    here.page.get_by_label("Reason").press("Enter")
    here.page.wait_for_load_state("networkidle")
    rollout.refresh_from_db()
    assert rollout.state == "running"


def test_a_key_labels_an_image_unless_keys_are_switched_off(here: Browser, live_server) -> None:
    here.page.goto(f"{live_server.url}/labeling")
    here.page.get_by_label("Switch single keys off").check()
    here.page.keyboard.press("2")
    here.page.get_by_label("Switch single keys off").uncheck()
    assert not Annotation.objects.exists()
    here.page.keyboard.press("2")
    here.page.get_by_text("0 samples between").wait_for()
    assert Annotation.objects.get().label == "bag"


def test_the_theme_switch_is_remembered(here: Browser, live_server) -> None:
    switch = here.page.get_by_role("button", name="Theme")
    switch.click()
    switch.click()
    here.page.goto(f"{live_server.url}/alerts")
    assert here.page.locator("html").get_attribute("data-theme") == "dark"


def test_an_image_that_its_source_does_not_send_is_said_in_words(here: Browser, live_server) -> None:
    Task.objects.update(image="http://127.0.0.1:9/gone.png")
    here.page.goto(f"{live_server.url}/labeling")
    here.page.get_by_text("did not send it").wait_for()
    assert not here.page.locator("[data-image]").is_visible()
