"""The control chart page."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from controlplane.models import User
from monitoring.models import ChartExclusion, ControlChart
from tests.monitoring.build import version
from tests.monitoring.charts import at, hour, hours, steady

pytestmark = pytest.mark.django_db
PATH = "/models/products/versions/v1/spc"
SHOWN = {"from": "2026-11-03 00:00", "to": "2026-11-04 06:00"}
PHASE_1 = {"phase1_from": "2026-11-03 00:00", "phase1_to": "2026-11-04 06:00", "reason": "calm"}


@pytest.fixture
def v1():
    found = version()
    hours(found, [900, *steady(14), None, *steady(14)])
    return found


def client(role: str) -> Client:
    found = Client()
    found.force_login(User.objects.create_user(role, role=role))
    return found


@pytest.fixture
def page() -> Client:
    return client("engineer")


def text(response) -> str:
    """What a person reads: without tags, spaces as one."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def drawn(response):
    found = re.search(r'<script id="spc-data"[^>]*>(.*?)</script>', response.content.decode(), re.S)
    return json.loads(found[1])


def acted(page: Client, **given) -> str:
    return text(page.post(f"{PATH}/act", {"measure": "low_share", **SHOWN, **given}, follow=True))


def test_the_page_says_which_points_break_which_rule_and_where_the_limits_come_from(page, v1):
    answer = page.get(PATH, SHOWN)
    shown = text(answer)
    assert re.search(r"\d of 30 points break a rule", shown)
    assert "p chart: share of confidences below .6" in shown
    assert "Provisional limits: from the 29 points shown" in shown
    assert "1: one point beyond 3 sigmas" in shown
    assert "Chance alone would signal once in 92 points (4 d)" in shown.replace("\u202f", " ")
    assert answer.context["drawn"].points[0].rules[0] == 1


def test_a_gap_is_said_and_drawn_as_none(page, v1):
    answer = page.get(PATH, SHOWN)
    assert "gap" in text(answer)
    assert drawn(answer)["points"][15]["value"] is None


def test_a_phase_1_is_set_with_a_reason_and_shaded(page, v1):
    assert "Limits number 1" in acted(page, command="recalculate", **PHASE_1)
    answer = page.get(PATH, SHOWN)
    assert "number 1, by engineer: calm" in text(answer)
    assert drawn(answer)["phase1"] == [int(at(0).timestamp() * 1000), int(at(30).timestamp() * 1000)]


def test_a_point_is_left_out_greyed_and_taken_back_in(page, v1):
    assert "Left out" in acted(page, command="exclude", start=at(0).isoformat(), reason="lens cap on")
    answer = page.get(PATH, SHOWN)
    assert "left out: lens cap on" in text(answer)
    assert drawn(answer)["points"][0]["excluded"] == "lens cap on"
    row = ChartExclusion.objects.get()
    assert "Taken back in" in acted(page, command=f"withdraw-{row.pk}", reason="it was normal")
    assert drawn(page.get(PATH, SHOWN))["points"][0]["excluded"] == ""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"command": "recalculate", **PHASE_1, "reason": " "}, "Say why"),
        ({"command": "recalculate", **PHASE_1, "phase1_from": "yesterday"}, "is not a time like"),
        ({"command": "recalculate", **PHASE_1, "phase1_to": ""}, "from when to when"),
        ({"command": "recalculate", **PHASE_1, "phase1_to": "2026-11-03 02:00"}, "5 are the least"),
        ({"command": "exclude", "start": "2026-11-03 00:30", "reason": "x"}, "has no interval"),
        ({"command": "withdraw-7", "reason": "x"}, "no exclusion 7"),
        ({"command": "erase", "reason": "x"}, "no act"),
    ],
)
def test_what_is_wrong_with_an_act_is_said_and_nothing_is_stored(page, v1, given, words):
    assert words in acted(page, **given)
    assert not ControlChart.objects.exists()


def test_after_an_act_the_same_chart_is_shown(page, v1):
    answer = page.post(
        f"{PATH}/act",
        {
            **PHASE_1,
            **SHOWN,
            "command": "recalculate",
            "measure": "low_share",
            "chart": "ewma",
            "seconds": "3600",
        },
    )
    assert "chart=ewma" in answer["Location"]
    assert "from=2026-11-03" in answer["Location"]
    assert ControlChart.objects.get().kind == "ewma"


def test_a_viewer_may_look_and_not_act(v1):
    viewer = client("viewer")
    assert "may look but not act" in text(viewer.get(PATH, SHOWN))
    assert viewer.post(f"{PATH}/act", {**PHASE_1, "command": "recalculate"}).status_code == 403


def test_a_measure_that_a_chart_cannot_show_gets_one_that_can(page, v1):
    assert "individuals chart: mean confidence" in text(
        page.get(PATH, {**SHOWN, "measure": "confidence_mean"})
    )


def test_a_wrong_period_is_said_on_the_latest_chart(page, v1):
    assert "is not a time like" in text(page.get(PATH, {"from": "x"}, follow=True))


@pytest.mark.parametrize("query", [{"chart": "pareto"}, {"measure": "entropy"}])
def test_a_chart_that_does_not_exist_is_not_found(page, v1, query):
    assert page.get(PATH, query).status_code == 404


def test_an_unknown_version_is_not_found(page):
    assert page.get(PATH).status_code == 404


def test_a_version_without_telemetry_says_what_is_missing(page):
    version()
    assert "Nothing to chart" in text(page.get(PATH))


def test_minutes_are_shown_while_there_are_hardly_any_hours(page):
    of = version()
    now = timezone.now().replace(second=0, microsecond=0)
    for minutes in range(1, 30):
        hour(of, 0, 10, n=100, seconds=60, start=now - timedelta(minutes=minutes))
    assert "By minutes" in text(page.get(PATH))


def test_a_segment_stays_in_the_urls(page, v1):
    answer = page.get(PATH, {**SHOWN, "segment.device": "ios"})
    assert 'name="segment.device" value="ios"' in answer.content.decode()
