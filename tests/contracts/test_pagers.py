"""What every pager must do, whatever it talks to."""

from __future__ import annotations

import base64
import ipaddress
import logging
from datetime import UTC, datetime

import pytest

from controlplane import pagers
from controlplane.pagers import memory
from controlplane.pagers.base import Message, PagerError
from controlplane.problems import Problem
from tests.controlplane.servers import receiver

SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


@pytest.fixture
def settings_of(settings):
    """Good settings of each kind; the webhook's receiver answers 200."""
    settings.OUTBOUND_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    with receiver() as server:
        yield {
            "log": ({}, ""),
            "memory": ({}, ""),
            "webhook": ({"url": server.url}, SECRET),
        }


def message(event: str) -> Message:
    return Message(
        id="5f0c1d1e",
        event=event,
        at=datetime(2026, 3, 1, tzinfo=UTC),
        cause="drift/embedding/products/v2",
        severity="warning",
        summary="é drifts\nsince noon",
        detail={"d": 0.23, "components": [1, 2]},
        url="http://127.0.0.1:8000/alerts/1",
    )


def test_the_settings_below_cover_every_pager(settings_of):
    assert set(settings_of) == set(pagers.PAGERS)


@pytest.mark.parametrize("kind", list(pagers.PAGERS))
@pytest.mark.parametrize("event", ["trigger", "acknowledge", "resolve", "test"])
def test_every_event_is_taken_and_answered_in_words(kind, event, settings_of):
    config, secret = settings_of[kind]
    pager = pagers.get(kind)
    pager.check(config, secret)
    assert isinstance(pager.send(message(event), config, secret), str)


@pytest.mark.parametrize("kind", list(pagers.PAGERS))
def test_an_unknown_setting_is_refused_by_name(kind, settings_of):
    config, secret = settings_of[kind]
    with pytest.raises(Problem) as refused:
        pagers.get(kind).check({**config, "colour": "red"}, secret)
    assert refused.value.errors[0]["pointer"] == "/config/colour"


def test_an_unknown_kind_is_refused():
    with pytest.raises(Problem) as refused:
        pagers.get("carrier-pigeon")
    assert refused.value.errors[0]["pointer"] == "/kind"


def test_the_log_is_one_line_at_the_severitys_level(caplog):
    with caplog.at_level(logging.INFO, "davy.alerts"):
        pagers.get("log").send(message("trigger"), {}, "")
    record = caplog.records[-1]
    assert record.levelno == logging.WARNING
    assert "é drifts since noon" in record.getMessage()
    assert "\n" not in record.getMessage()


@pytest.mark.parametrize(
    ("fail", "retry", "gone"), [("retry", True, False), ("refuse", False, False), ("gone", False, True)]
)
def test_memory_keeps_pages_and_fails_as_told(fail, retry, gone):
    pagers.get("memory").send(message("trigger"), {}, "")
    assert memory.sent[-1] == message("trigger")
    with pytest.raises(PagerError) as failed:
        pagers.get("memory").send(message("trigger"), {"fail": fail}, "")
    assert (failed.value.retry, failed.value.gone) == (retry, gone)
