"""Claims about delivery: once claimed, kept in order, tried again, given up, on real PostgreSQL."""

from __future__ import annotations

import base64
import ipaddress
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from standardwebhooks import Webhook

from controlplane import alerts, channels, delivery, tasks
from controlplane.models import Channel, Delivery
from controlplane.pagers import memory
from tests.controlplane.servers import receiver

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()
CAUSE = "rollout/silent/products/local"
JSON = "application/json"


@pytest.fixture(autouse=True)
def _no_pages_before():
    memory.sent.clear()


def channel(name="memory", **config):
    return channels.create(name=name, kind="memory", config=config, secret="", severities=[], actor="ann")


def opened(now=None):
    return alerts.open(CAUSE, severity="error", summary="silent", now=now or timezone.now())


def resolved():
    return alerts.resolve(CAUSE, resolution="talks again", now=timezone.now())


def events():
    return [message.event for message in memory.sent]


def later(seconds):
    return timezone.now() + timedelta(seconds=seconds)


def test_a_page_is_sent_once_and_its_answer_kept(db):
    channel()
    opened()
    assert delivery.deliver(timezone.now()) == 1
    assert delivery.deliver(later(3600)) == 0
    row = Delivery.objects.get()
    assert (row.state, row.answer, row.attempts) == ("sent", "kept", 1)
    assert memory.sent[0].cause == CAUSE
    assert memory.sent[0].id == str(row.message_id)


def test_the_timers_task_delivers(db):
    channel()
    opened()
    tasks.deliver()
    assert events() == ["trigger"]


def test_events_of_one_alert_arrive_in_order(db):
    channel()
    alerts.acknowledge(opened(), actor="ann", now=timezone.now())
    resolved()
    delivery.deliver(later(1))
    assert events() == ["trigger", "acknowledge", "resolve"]


def test_a_failed_attempt_waits_and_holds_back_what_follows(db):
    channel(fail="retry")
    opened()
    resolved()
    now = timezone.now()
    assert delivery.deliver(now) == 1
    trigger, follower = Delivery.objects.order_by("pk")
    assert (trigger.state, trigger.attempts, follower.attempts) == ("pending", 1, 0)
    assert 5 <= (trigger.next_attempt_at - now).total_seconds() <= 7
    Channel.objects.update(config={})
    delivery.deliver(later(8))
    assert events() == ["trigger", "resolve"]


def test_after_six_attempts_a_page_has_failed_and_its_resolution_is_not_sent(db):
    channel(fail="retry")
    opened()
    waits, now = [], timezone.now()
    for _ in delivery.RETRY_SECONDS:
        assert delivery.deliver(now) == 1
        row = Delivery.objects.get()
        waits.append((row.next_attempt_at - timezone.now()).total_seconds())
        now = row.next_attempt_at
    assert (row.state, row.attempts) == ("failed", 6)
    for wait, scheduled in zip(waits[:-1], delivery.RETRY_SECONDS[1:], strict=True):
        assert scheduled - 1 <= wait <= scheduled * 1.2
    resolved()
    assert delivery.deliver(later(1)) == 0
    assert Delivery.objects.get(event="resolve").answer == "not sent: its trigger was never delivered"


def test_a_refusal_is_final_at_once(db):
    channel(fail="refuse")
    opened()
    delivery.deliver(timezone.now())
    assert Delivery.objects.get().state == "failed"


def test_gone_disables_the_channel_with_its_reason(db):
    made = channel(fail="gone")
    opened()
    alerts.open("another/cause", severity="info", summary="x", now=timezone.now())
    delivery.deliver(timezone.now())
    made.refresh_from_db()
    assert (made.enabled, made.disabled_reason) == (False, "the receiver answered: told to gone")
    assert set(Delivery.objects.values_list("state", flat=True)) == {"failed"}


def test_one_broken_channel_does_not_hold_up_another(db):
    channel("broken", fail="retry")
    channel("fine")
    opened()
    delivery.deliver(timezone.now())
    assert events() == ["trigger"]


def test_a_claim_whose_worker_died_is_taken_over_after_a_minute_with_the_same_id(db):
    channel()
    opened()
    dead = delivery._claim(timezone.now())
    assert delivery.deliver(later(30)) == 0
    assert delivery.deliver(later(61)) == 1
    assert memory.sent[0].id == str(dead.message_id)


def test_a_worker_whose_claim_was_taken_over_cannot_say_what_became_of_it(db):
    channel()
    opened()
    late = delivery._claim(timezone.now())
    delivery._claim(later(61))
    delivery._record(late, state="failed", answer="too late to say so")
    assert (Delivery.objects.get().state, Delivery.objects.get().answer) == ("sending", "")


def test_a_page_at_which_every_worker_died_is_given_up(db):
    channel()
    opened()
    Delivery.objects.update(state="sending", claimed_at=timezone.now(), attempts=6)
    assert delivery.deliver(later(61)) == 0
    assert Delivery.objects.get().state == "failed"


def test_a_secret_that_cannot_be_read_any_more_fails_the_page_and_names_the_cause(db, settings):
    made = channel()
    channels.change(made, {"secret": "abc"}, actor="ann")
    settings.SECRET_KEY = "another key of at least thirty-two characters"
    opened()
    delivery.deliver(timezone.now())
    assert "set it again" in Delivery.objects.get().answer


@pytest.mark.django_db(transaction=True)
def test_many_workers_send_each_page_once():
    channel()
    for index in range(20):
        alerts.open(f"cause/{index}", severity="info", summary="x", now=timezone.now())

    def work(_index):
        try:
            return delivery.deliver(timezone.now())
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(work, range(4))) == 20
    assert len({message.id for message in memory.sent}) == len(memory.sent) == 20


def test_a_webhook_gets_trigger_and_resolve_that_it_can_verify_with_one_id_per_event(db, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    with receiver() as server:
        server.answer = lambda _asked: (503 if len(server.asked) == 1 else 200, b"", {})
        config = {"url": server.url}
        channels.create(name="hook", kind="webhook", config=config, secret=SECRET, severities=[], actor="ann")
        opened()
        for seconds in (1, 10):
            delivery.deliver(later(seconds))
        resolved()
        delivery.deliver(later(11))
        bodies = [Webhook(SECRET).verify(asked.body, asked.headers) for asked in server.asked]
    ids = [asked.headers["webhook-id"] for asked in server.asked]
    assert [body["type"] for body in bodies] == ["alert.trigger", "alert.trigger", "alert.resolve"]
    assert ids[0] == ids[1] != ids[2]
    assert bodies[2]["data"]["detail"]["resolution"] == "talks again"


def test_channels_over_rest_show_no_secret_and_keep_it_when_patched(api):
    body = {"name": "hook", "kind": "webhook", "config": {"url": "https://example.org/h"}, "secret": SECRET}
    made = api.post("/api/v1/channels", json.dumps(body), content_type=JSON)
    assert (made.status_code, made.json()["has_secret"]) == (201, True)
    path = f"/api/v1/channels/{made.json()['id']}"
    changed = api.patch(path, '{"severities": ["critical"]}', content_type=JSON)
    assert changed.json()["severities"] == ["critical"]
    assert channels.secret_of(Channel.objects.get()) == SECRET
    assert SECRET.encode() not in bytes(Channel.objects.get().secret)
    for answer in (made, changed, api.get(path), api.get("/api/v1/channels"), api.get("/api/v1/audit")):
        assert SECRET not in answer.content.decode()
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404


@pytest.mark.parametrize(
    ("more", "status", "pointer"),
    [
        ({"kind": "pigeon"}, 422, "/kind"),
        ({"severities": ["loud"]}, 422, "/severities/0"),
        ({"name": "A b"}, 422, "/name"),
        ({"name": "taken"}, 409, "/name"),
        ({"config": {"colour": 1}}, 422, "/config/colour"),
    ],
)
def test_a_bad_channel_names_the_field(api, more, status, pointer):
    channel("taken")
    body = {"name": "new", "kind": "memory", **more}
    answer = api.post("/api/v1/channels", json.dumps(body), content_type=JSON)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (status, pointer)


def test_a_test_page_is_logged_and_can_be_replayed_with_the_same_id(api):
    made = channel()
    assert api.post(f"/api/v1/channels/{made.pk}/test").status_code == 202
    delivery.deliver(timezone.now())
    log = api.get(f"/api/v1/channels/{made.pk}/deliveries").json()["items"]
    assert [(row["event"], row["state"], row["answer"]) for row in log] == [("test", "sent", "kept")]
    replay = f"/api/v1/deliveries/{log[0]['id']}/replay"
    assert api.post(replay).status_code == 202
    assert api.post(replay).status_code == 409
    delivery.deliver(timezone.now())
    assert [message.id for message in memory.sent] == [log[0]["message_id"]] * 2
    assert api.post("/api/v1/deliveries/999/replay").status_code == 404
