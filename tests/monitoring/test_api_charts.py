"""Control charts over HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from monitoring.models import ChartExclusion, ControlChart
from tests.monitoring.api import VERSION, api, client_for, v1
from tests.monitoring.charts import at, hour, hours, steady

__all__ = ["api", "client_for", "v1"]

PERIOD = "from=2026-11-03T00:00:00Z&to=2026-11-04T06:00:00Z"
PHASE_1 = {"from": "2026-11-03T00:00:00Z", "to": "2026-11-04T06:00:00Z", "reason": "calm"}


@pytest.fixture
def month(v1):
    hours(v1, [900, *steady(14), None, *steady(14)])
    return v1


def post(api, path, body):
    return api.post(f"{VERSION}/spc/{path}", body, content_type="application/json")


def test_a_chart_has_points_limits_rules_and_gaps(api, month):
    body = api.get(f"{VERSION}/spc/p?{PERIOD}").json()
    assert (body["chart"], body["measure"], body["seconds"], body["limits_from"]) == (
        "p",
        "low_share",
        3600,
        "points",
    )
    assert len(body["points"]) == 30
    first, gap = body["points"][0], body["points"][15]
    assert (first["n"], first["value"], first["rules"]) == (1000, 0.9, [1])
    assert first["lower"] < first["center"] < first["upper"] < first["value"]
    assert (gap["n"], gap["value"], gap["upper"]) == (0, None, None)
    assert body["rules"]["1"] == "one point beyond 3 sigmas"
    assert body["signals"] >= 1
    assert body["n"] == 29_000


def test_a_chart_says_how_often_chance_would_signal(api, month):
    rules = api.get(f"{VERSION}/spc/p?{PERIOD}").json()["false_alarm_every"]
    alone = api.get(f"{VERSION}/spc/p?{PERIOD}&rules=none").json()["false_alarm_every"]
    assert rules["points"] == pytest.approx(91.75, rel=0.001)
    assert alone["seconds"] == pytest.approx(370.4 * 3600, rel=0.001)
    assert api.get(f"{VERSION}/spc/p?{PERIOD}&rules=nelson").json()["false_alarm_every"] is None


def test_settings_can_be_tried_in_the_query(api, month):
    body = api.get(f"{VERSION}/spc/ewma?{PERIOD}&lambda=.1&width=2.945&limits=time_varying").json()
    assert (body["settings"]["lambda"], body["settings"]["limits"]) == (0.1, "time_varying")
    widths = [point["upper"] - point["center"] for point in body["points"][:3]]
    assert widths == sorted(widths)
    assert not ControlChart.objects.exists()


def test_recalculating_answers_with_the_new_number_and_the_chart_shows_its_history(api, month):
    assert post(api, "p/recalculate", PHASE_1).json()["number"] == 1
    answer = post(api, "p/recalculate", {**PHASE_1, "from": "2026-11-03T01:00:00Z", "reason": "lens cap on"})
    assert answer.status_code == 201
    body = api.get(f"{VERSION}/spc/p?{PERIOD}").json()
    assert (body["number"], body["limits_from"]) == (2, "phase 1")
    assert [(row["number"], row["by"], row["reason"]) for row in body["history"]] == [
        (2, "ann", "lens cap on"),
        (1, "ann", "calm"),
    ]
    assert [point["phase"] for point in body["points"][:2]] == [2, 1]


def test_a_point_is_excluded_with_a_reason_and_taken_back(api, month):
    post(api, "p/recalculate", PHASE_1)
    answer = post(api, "p/exclusions", {"start": "2026-11-03T00:00:00Z", "reason": "lens cap on"})
    assert answer.status_code == 201
    body = api.get(f"{VERSION}/spc/p?{PERIOD}").json()
    assert body["points"][0]["excluded"]["reason"] == "lens cap on"
    assert (body["points"][0]["rules"], body["number"], body["estimate"]["points"]) == ([], 2, 28)
    taken = api.delete(f"{VERSION}/spc/p/exclusions/{answer.json()['id']}?reason=no")
    assert (taken.status_code, taken.json()["withdrawn_at"] is not None) == (200, True)
    assert api.get(f"{VERSION}/spc/p?{PERIOD}").json()["number"] == 3


def test_a_segment_has_its_own_points(api, v1):
    hour(v1, 0, 100, segment={"device": "ios"}, segment_key="ios")
    hour(v1, 0, 300, segment={"device": "web"}, segment_key="web")
    body = api.get(f"{VERSION}/spc/p?{PERIOD}&segment.device=web").json()
    assert body["points"][0]["value"] == 0.3
    assert body["asked"]["segment"] == {"device": "web"}


def test_a_version_without_telemetry_has_an_empty_chart_and_no_error(api, v1):
    body = api.get(f"{VERSION}/spc/p").json()
    assert (body["points"], body["estimate"], body["signals"]) == ([], None, 0)


@pytest.mark.parametrize(
    ("query", "status", "pointer"),
    [
        ("xyz", 404, "/chart"),
        ("p?measure=entropy", 422, "/measure"),
        ("p?measure=latency_p50", 422, "/measure"),
        ("p?seconds=10", 422, "/seconds"),
        ("p?seconds=x", 422, "/seconds"),
        ("p?from=2020-01-01T00:00:00Z", 422, "/from"),
        ("p?rules=mine", 422, "/rules"),
        ("ewma?lambda=0", 422, "/lambda"),
        ("ewma?lambda=nan", 422, "/lambda"),
        ("ewma?lambda=x", 422, "/lambda"),
        ("xbar?group=1", 422, "/group"),
    ],
)
def test_what_is_wrong_in_a_query_is_named(api, v1, query, status, pointer):
    answer = api.get(f"{VERSION}/spc/{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (status, pointer)


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("p/recalculate", {**PHASE_1, "reason": ""}, "/reason"),
        ("p/recalculate", {**PHASE_1, "from": "2026-11-03T00:00:00"}, "/from"),
        ("p/recalculate", {**PHASE_1, "from": PHASE_1["to"]}, "/from"),
        ("p/recalculate", {**PHASE_1, "to": "2026-11-03T02:00:00Z"}, "/from"),
        ("p/recalculate", {**PHASE_1, "measure": "entropy"}, "/measure"),
        ("p/recalculate", {**PHASE_1, "settings": {"lambda": 2.0}}, "/lambda"),
        ("p/recalculate", {**PHASE_1, "seconds": 10}, "/seconds"),
        ("p/recalculate", {**PHASE_1, "sigmas": 2}, "/sigmas"),
        ("p/exclusions", {"start": "2026-11-03T00:30:00Z", "reason": "x"}, "/start"),
        ("p/exclusions", {"start": "2026-11-03T00:00:00Z"}, "/reason"),
        ("p/exclusions", {"start": "2026-11-03T00:00:00Z", "reason": "x", "measure": "no"}, "/measure"),
    ],
)
def test_what_is_wrong_in_a_body_is_named_and_nothing_is_stored(api, month, path, body, pointer):
    answer = post(api, path, body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)
    assert not ControlChart.objects.exists()
    assert not ChartExclusion.objects.exists()


def test_an_exclusion_that_is_not_there_cannot_be_withdrawn(api, v1):
    assert api.delete(f"{VERSION}/spc/p/exclusions/1").status_code == 404


def test_readers_may_look_and_not_set(client_for, month):
    reader = client_for("read")
    assert reader.get(f"{VERSION}/spc/p").status_code == 200
    for path, body in (("p/recalculate", PHASE_1), ("p/exclusions", {"start": str(at(0)), "reason": "x"})):
        assert post(reader, path, body).status_code == 403
    assert reader.delete(f"{VERSION}/spc/p/exclusions/1").status_code == 403


def test_the_latest_two_weeks_of_hours_are_shown_unless_asked(api, v1):
    now = timezone.now().replace(minute=0, second=0, microsecond=0)
    for days in (1, 15):
        hour(v1, 0, 100, start=now - timedelta(days=days))
    body = api.get(f"{VERSION}/spc/p").json()
    assert sum(point["n"] for point in body["points"]) == 1000
