"""Claims about alerts: one per cause, paged once, resolved where it was paged."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection, transaction

from controlplane import alerts
from controlplane.models import Alert, AuditEntry, Channel, Delivery
from controlplane.problems import Problem
from tests.controlplane.conftest import NOW

CAUSE = "drift/embedding/products/v2"


def channel(name="log", **more):
    return Channel.objects.create(name=name, kind="log", **more)


def opened(severity="warning", summary="it drifts", now=NOW, cause=CAUSE):
    return alerts.open(cause, severity=severity, summary=summary, now=now)


def pages(event=None):
    rows = Delivery.objects.order_by("pk").values_list("event", "channel__name")
    return [row for row in rows if event in (None, row[0])]


def test_a_repeat_counts_and_refreshes_and_pages_nobody_twice(db):
    channel()
    first = opened()
    second = opened(summary="it drifts more", now=NOW + timedelta(minutes=1))
    assert (second.pk, second.count, second.summary) == (first.pk, 2, "it drifts more")
    assert second.opened_at == NOW
    assert pages() == [("trigger", "log")]


def test_a_channel_is_paged_for_its_severities_and_none_means_all(db):
    channel("all")
    channel("loud", severities=["critical", "error"])
    channel("off", enabled=False)
    opened("warning")
    assert pages() == [("trigger", "all")]


def test_an_alert_that_gets_louder_pages_those_who_listen_to_louder_ones(db):
    channel("all")
    channel("loud", severities=["critical"])
    opened("warning")
    assert opened("critical").severity == "critical"
    assert opened("warning").severity == "critical"
    assert pages() == [("trigger", "all"), ("trigger", "loud")]


def test_a_resolution_goes_to_whoever_was_paged_even_when_disabled_for_new_ones(db):
    first = channel("first")
    opened()
    channel("later")
    first.severities = ["critical"]
    first.save()
    alert = alerts.resolve(CAUSE, resolution="D is .08", now=NOW)
    assert (alert.resolution, alert.resolved_at) == ("D is .08", NOW)
    assert pages("resolve") == [("resolve", "first")]


def test_after_a_resolution_the_same_cause_opens_a_new_alert_and_pages_again(db):
    channel()
    first = opened()
    alerts.resolve(CAUSE, resolution="over", now=NOW)
    assert opened().pk != first.pk
    assert [event for event, _ in pages()] == ["trigger", "resolve", "trigger"]


def test_resolving_what_is_not_open_does_nothing(db):
    assert alerts.resolve(CAUSE, resolution="over", now=NOW) is None
    assert not Delivery.objects.exists()


def test_an_alert_lives_and_dies_with_the_callers_transaction(db):
    channel()
    with transaction.atomic():
        opened()
        transaction.set_rollback(True)
    assert not Alert.objects.exists()
    assert not Delivery.objects.exists()


def test_acknowledging_twice_keeps_the_first_and_pages_once(db):
    channel()
    alert = opened()
    alerts.acknowledge(alert, actor="ann", now=NOW)
    again = alerts.acknowledge(alert, actor="bob", now=NOW + timedelta(hours=1))
    assert (again.acknowledged_by, again.acknowledged_at) == ("ann", NOW)
    assert pages("acknowledge") == [("acknowledge", "log")]


def test_a_snooze_holds_back_pages_and_a_resolution_lets_them_go(db):
    channel()
    until = NOW + timedelta(hours=1)
    alerts.snooze(opened(), until=until, actor="ann", now=NOW)
    assert Delivery.objects.get().next_attempt_at == until
    alerts.resolve(CAUSE, resolution="over", now=NOW + timedelta(minutes=1))
    due = Delivery.objects.order_by("pk").values_list("next_attempt_at", flat=True)
    assert set(due) == {NOW + timedelta(minutes=1)}


def test_a_resolved_alert_cannot_be_acted_on(db):
    alert = opened()
    alerts.resolve_by_hand(alert, actor="ann", reason="false alarm", now=NOW)
    later = NOW + timedelta(hours=1)
    for act in (
        lambda: alerts.acknowledge(alert, actor="ann", now=NOW),
        lambda: alerts.snooze(alert, until=later, actor="ann", now=NOW),
        lambda: alerts.resolve_by_hand(alert, actor="ann", reason="", now=NOW),
    ):
        with pytest.raises(Problem, match="is resolved"):
            act()
    assert Alert.objects.get().resolution == "ann: false alarm"
    assert AuditEntry.objects.get().reason == "false alarm"


@pytest.mark.django_db(transaction=True)
def test_two_processes_opening_the_same_cause_make_one_alert_and_one_page():
    channel()

    def one(_index):
        try:
            return opened().pk
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(one, range(8)))) == 1
    assert Alert.objects.get().count == 8
    assert pages() == [("trigger", "log")]


def act(api, alert, name, **body):
    return api.post(f"/api/v1/alerts/{alert.pk}/{name}", json.dumps(body), content_type="application/json")


def test_alerts_are_listed_by_state_and_acted_on_over_rest(api):
    first, second = opened(), opened(cause="rollout/silent/products/local", severity="error")
    assert act(api, second, "resolve", reason="known").json()["resolution"] == "root: known"

    def listed(query):
        return [row["id"] for row in api.get(f"/api/v1/alerts?{query}").json()["items"]]

    assert listed("state=open") == [first.pk]
    assert listed("state=resolved&severity=error") == [second.pk]
    assert listed("cause=" + CAUSE) == [first.pk]
    assert listed("model=products") == []
    assert act(api, first, "acknowledge").json()["acknowledged_by"] == "root"
    assert listed("state=acknowledged") == [first.pk]
    assert act(api, first, "snooze", until="2199-01-01T00:00:00Z").status_code == 200
    assert listed("state=snoozed") == [first.pk]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/api/v1/alerts?state=odd", 422),
        ("/api/v1/alerts?severity=odd", 422),
        ("/api/v1/alerts/7", 404),
        ("/api/v1/alerts/99999999999999999999", 404),
        ("/api/v1/alerts/x", 404),
    ],
)
def test_bad_lookups_are_problems(api, path, status):
    answer = api.get(path)
    assert (answer.status_code, answer["Content-Type"]) == (status, "application/problem+json")


@pytest.mark.parametrize("until", ["2020-01-01T00:00:00Z", "soon", 5, "2199-01-01T00:00:00"])
def test_a_snooze_needs_an_aware_time_to_come(api, until):
    answer = act(api, opened(), "snooze", until=until)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/until")
