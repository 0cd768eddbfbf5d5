from __future__ import annotations

import pytest
from django.test import Client

from controlplane.models import User
from monitoring import calibrations, hourly
from tests.monitoring.api import client_for
from tests.monitoring.hours import at, shifted, store, watched

__all__ = ["client_for"]

pytestmark = pytest.mark.django_db

DAY = 24
HISTORY = 28 * DAY
V1 = "/api/v1/models/shelf/versions/v1"


@pytest.fixture
def client(client_for):
    return client_for("read", "deploy")


@pytest.fixture
def alarmed():
    """28 days of history, then a day at another level; a proposal has been made of it."""
    v1, course = watched(30)
    course = shifted(course, HISTORY, None, 0.4)
    store(v1, course, 0, HISTORY)
    calibrations.calibrate(at(HISTORY))
    store(v1, course, HISTORY, HISTORY + 25)
    hourly.evaluate(at(HISTORY + 25))
    calibrations.calibrate(at(HISTORY + 25))


def test_below_two_weeks_drift_says_how_far_it_has_learnt(client):
    v1, course = watched(9)
    store(v1, course, 0, 9 * DAY)
    assert client.get(f"{V1}/drift").json()["calibrated"]["reason"].startswith("learning: 0 of 14 days")
    calibrations.calibrate(at(9 * DAY))
    said = client.get(f"{V1}/drift").json()["calibrated"]
    assert (said["status"], said["reason"]) == ("TOO_FEW", "learning: 9 of 14 days; alarms only at D > .2")


def test_drift_shows_state_statistic_limit_history_and_rate(client, alarmed):
    said = client.get(f"{V1}/drift").json()["calibrated"]
    assert said["status"] == "DRIFTED"
    assert said["statistics"].keys() == said["limits"].keys() == {"largest", "t2", "ewma"}
    assert said["value"] == said["statistics"][said["statistic"]] > said["limit"]
    assert (said["score"], said["calibrated_on_days"], said["budget_days"]) == ("component 0 mean", 28, 60)
    assert said["episode"]["attribution"]["sentence"]
    assert said["calibration"]["state"] == "active"


def test_confidence_and_detections_are_shown_beside_each_other(client, alarmed):
    said = client.get(f"{V1}/confidence").json()
    assert said["calibrated"]["status"] == "STABLE"
    assert said["calibrated_detections"]["status"] == "TOO_FEW"


def test_a_person_approves_a_proposal_with_a_reason(client, alarmed):
    items = client.get(f"{V1}/calibrations").json()["items"]
    proposed = next(item for item in items if item["state"] == "proposed")
    path = f"{V1}/calibrations/embedding/{proposed['number']}/approve"
    assert client.post(path, {"reason": ""}, content_type="application/json").status_code == 422
    answer = client.post(path, {"reason": "new shelf"}, content_type="application/json")
    assert (answer.status_code, answer.json()["state"], answer.json()["approved_by"]) == (
        200,
        "active",
        "ann",
    )
    again = client.post(path, {"reason": "new shelf"}, content_type="application/json")
    assert (again.status_code, again.json()["code"]) == (409, "not_proposed")
    unknown = client.post(
        f"{V1}/calibrations/embedding/99/approve", {"reason": "x"}, content_type="application/json"
    )
    assert unknown.status_code == 404


def test_only_deployers_approve(client_for, alarmed):
    answer = client_for("read").post(
        f"{V1}/calibrations/embedding/2/approve", {"reason": "x"}, content_type="application/json"
    )
    assert answer.status_code == 403


def test_the_drift_page_shows_what_the_hours_say(alarmed):
    page = Client()
    page.force_login(User.objects.create_user("vera", role="viewer"))
    shown = page.get("/models/shelf/versions/v1/drift").content.decode()
    assert "By the hour, against this fleet" in shown
    assert "Embedding scores leave what is normal by the hour" in shown
