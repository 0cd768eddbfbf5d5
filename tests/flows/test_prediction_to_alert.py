"""Prediction → alert: what the camera does to the images becomes an alert, and stops being one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from davy.client import path

from demo.receiver import Receiver
from tests.system import System

CAUSE = "drift/embedding/shelf/"


@pytest.fixture
def receiver(system) -> Iterator[Receiver]:
    """A webhook receiver that Davy knows as a channel."""
    listening = Receiver()
    config = {
        "name": "flows",
        "kind": "webhook",
        "config": {"url": listening.url},
        "secret": listening.secret,
    }
    channel = system.davy.post("/channels", config)
    yield listening
    system.davy.send("DELETE", path("channels", channel["id"]))
    listening.close()


def drift(system: System) -> dict[str, Any]:
    version = system.route("shelf")["stable"]
    return dict(system.davy.get(path("models", "shelf", "versions", version, "drift")))


def alerts(system: System, state: str) -> list[dict[str, Any]]:
    found = system.davy.get("/alerts", {"model": "shelf", "state": state})["items"]
    return [alert for alert in found if alert["cause"].startswith(CAUSE)]


def test_changed_images_are_told_to_a_webhook_until_they_are_as_before(system, receiver) -> None:
    with system.busy(shelf=200):
        system.wait_for("shelf known as stable", lambda: drift(system)["status"] == "STABLE" or None)
        system.users.look("shelf", "new-camera")
        try:
            told = system.wait_for(
                "a page", lambda: next(iter(receiver.messages("alert.trigger", CAUSE)), None)
            )
            (alert,) = alerts(system, "open")
            assert told["data"]["summary"] == alert["summary"]
            assert drift(system)["status"] == "DRIFTED"
            assert drift(system)["n"] >= 500
        finally:
            system.users.look("shelf", "plain")
        system.wait_for("all clear", lambda: receiver.messages("alert.resolve", CAUSE) or None)
        assert alerts(system, "open") == []
        assert alert["id"] in {resolved["id"] for resolved in alerts(system, "resolved")}
        assert len(receiver.messages("alert.trigger", CAUSE)) == 1
        assert receiver.refused == 0
