"""Claims about calling out, against a real server on the loopback address."""

from __future__ import annotations

import ipaddress

import pytest

from controlplane import outbound
from tests.controlplane.servers import receiver

LOOPBACK = [ipaddress.ip_network("127.0.0.0/8")]


@pytest.fixture
def server():
    with receiver() as state:
        yield state


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "169.254.169.254",
        "10.0.0.1",
        "0.0.0.0",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "localhost",
        "2130706433",
    ],
)
def test_a_url_that_a_person_entered_never_reaches_a_private_address(host, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    with pytest.raises(outbound.OutboundError, match="private address") as refused:
        outbound.post(f"http://{host}:1/", b"", {})
    assert not refused.value.retry


def test_an_allowed_network_is_reached_and_others_still_are_not(server, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = LOOPBACK
    assert outbound.post(server.url, b"hello", {"x-a": "b"}).status == 200
    assert (server.asked[0].body, server.asked[0].headers["x-a"]) == (b"hello", "b")
    with pytest.raises(outbound.OutboundError, match="private address"):
        outbound.get("http://10.0.0.1/", 100)


def test_an_allowed_name_is_called_by_its_name(server, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = LOOPBACK
    outbound.get(server.url.replace("127.0.0.1", "localhost"), 100)
    assert server.asked[0].headers["host"].startswith("localhost:")


def test_redirects_are_answers_and_are_not_followed(server, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = LOOPBACK
    server.answer = lambda _asked: (302, b"", {"Location": "http://169.254.169.254/"})
    assert outbound.get(server.url, 100).status == 302
    assert len(server.asked) == 1


def test_a_longer_answer_than_asked_for_is_refused(server, settings):
    settings.OUTBOUND_ALLOWED_NETWORKS = LOOPBACK
    server.answer = lambda _asked: (200, b"x" * 1000, {})
    assert len(outbound.get(server.url, 1000).content) == 1000
    with pytest.raises(outbound.OutboundError, match="longer than 999"):
        outbound.get(server.url, 999)


@pytest.mark.parametrize(
    "url", ["ftp://x/", "http://", "file:///etc/passwd", "http://u:p@x/", "http://x:99999/", "x"]
)
def test_bad_urls_are_refused_by_form(url):
    assert outbound.check_url(url)
    with pytest.raises(outbound.OutboundError):
        outbound.fleet_get(url, 1)


@pytest.mark.parametrize("url", ["http://a..b/", "http://" + "a" * 70 + ".example/"])
def test_odd_host_names_are_outbound_errors(url):
    with pytest.raises(outbound.OutboundError):
        outbound.post(url, b"", {})


def test_the_operators_fleet_may_be_private_and_keeps_its_connection(server):
    for _ in range(3):
        assert outbound.fleet_get(f"{server.url}/ready", 1).text == "ok"
    assert outbound.fleet_post(server.url, {"a": 1}, 1).status == 200
    assert len({asked.connection for asked in server.asked}) == 1
    assert server.asked[3].body == b'{"a": 1}'
    assert server.asked[3].headers["content-type"] == "application/json"


def test_nobody_listening_is_an_outbound_error_worth_a_retry(server):
    with pytest.raises(outbound.OutboundError, match="refused") as refused:
        outbound.fleet_get("http://127.0.0.1:1/", 1)
    assert refused.value.retry


def test_a_proxy_in_the_environment_is_not_used(server, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    assert outbound.fleet_get(server.url, 1).status == 200
