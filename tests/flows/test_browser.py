"""A person signs in to the running system and looks at every page."""

from __future__ import annotations

import pytest
from davy.client import path

from demo import setup
from tests.browser import browser, needs_chromium

pytestmark = [pytest.mark.system, needs_chromium]


def test_every_page_of_the_running_system_opens_without_complaint(system) -> None:
    known = system.known
    pages = ["/", "/rollouts", "/alerts", "/labeling"]
    for route in system.davy.get(path("fleets", setup.FLEET))["routes"]:
        pages.append(path("models", route["model"]))
        if route["stable"]:
            pages.append(path("models", route["model"], "versions", route["stable"]) + "/drift")
    pages += [path("rollouts", rollout["id"]) for rollout in system.davy.get("/rollouts")["items"][:5]]
    pages += [path("alerts", alert["id"]) for alert in system.davy.get("/alerts")["items"][:5]]
    with browser() as here:
        here.sign_in(known["DAVY_URL"], known["DAVY_USER"], known["DAVY_PASSWORD"])
        for page in pages:
            answer = here.page.goto(known["DAVY_URL"] + page, wait_until="networkidle")
            assert answer is not None
            assert answer.ok, page
        assert here.complaints == []
