"""Claims about the signed webhook, checked with the standard's own library at a real receiver."""

from __future__ import annotations

import base64
import ipaddress

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from controlplane import pagers
from controlplane.pagers.base import PagerError
from controlplane.problems import Problem
from tests.contracts.test_pagers import SECRET, message
from tests.controlplane.servers import receiver

WEBHOOK = pagers.get("webhook")


@pytest.fixture
def server(settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    with receiver() as state:
        yield state


def test_the_receiver_can_verify_it(server):
    WEBHOOK.send(message("trigger"), {"url": server.url}, SECRET)
    asked = server.asked[0]
    received = Webhook(SECRET).verify(asked.body, asked.headers)
    assert received["type"] == "alert.trigger"
    assert received["data"]["cause"] == "drift/embedding/products/v2"
    assert received["data"]["detail"] == {"d": 0.23, "components": [1, 2]}
    assert asked.headers["webhook-id"] == "5f0c1d1e"


def test_another_secret_or_a_changed_body_does_not_verify(server):
    WEBHOOK.send(message("trigger"), {"url": server.url}, SECRET)
    asked = server.asked[0]
    other = "whsec_" + base64.b64encode(b"t" * 32).decode()
    for secret, body in ((other, asked.body), (SECRET, asked.body.replace(b"warning", b"info"))):
        with pytest.raises(WebhookVerificationError):
            Webhook(secret).verify(body, asked.headers)


@pytest.mark.parametrize(
    ("status", "retry", "gone"),
    [
        (302, False, False),
        (400, False, False),
        (404, False, False),
        (408, True, False),
        (410, False, True),
        (429, True, False),
        (500, True, False),
        (503, True, False),
    ],
)
def test_the_answer_decides_whether_to_try_again(server, status, retry, gone):
    server.answer = lambda _asked: (status, b"no\x00", {})
    with pytest.raises(PagerError, match=str(status)) as failed:
        WEBHOOK.send(message("trigger"), {"url": server.url}, SECRET)
    assert (failed.value.retry, failed.value.gone) == (retry, gone)
    assert "\x00" not in str(failed.value)


def test_nobody_listening_is_worth_a_retry_and_a_private_address_is_not(server, settings):
    with pytest.raises(PagerError) as failed:
        WEBHOOK.send(message("trigger"), {"url": "http://127.0.0.1:1"}, SECRET)
    assert failed.value.retry
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    with pytest.raises(PagerError, match="private address") as failed:
        WEBHOOK.send(message("trigger"), {"url": server.url}, SECRET)
    assert not failed.value.retry
    assert server.asked == []


@pytest.mark.parametrize(
    ("config", "secret", "pointer"),
    [
        ({}, SECRET, "/config/url"),
        ({"url": 5}, SECRET, "/config/url"),
        ({"url": "ftp://x/"}, SECRET, "/config/url"),
        ({"url": "http://user:pw@x/"}, SECRET, "/config/url"),
        ({"url": "http://x/"}, "", "/secret"),
        ({"url": "http://x/"}, "whsec_c2hvcnQ=", "/secret"),
        ({"url": "http://x/"}, "whsec_not base64 at all, but long enough to be one", "/secret"),
        ({"url": "http://x/"}, "é" * 40, "/secret"),
    ],
)
def test_bad_settings_are_refused_by_name(config, secret, pointer):
    with pytest.raises(Problem) as refused:
        WEBHOOK.check(config, secret)
    assert refused.value.errors[0]["pointer"] == pointer
