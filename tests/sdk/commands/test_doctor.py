"""Does `davy doctor` find what is wrong, and say what to do?"""

from __future__ import annotations

import json

from tests.sdk.commands.conftest import routes
from tests.sdk.peer import Reply, running

ME = {"user": "ann", "scopes": ["read", "telemetry"]}
HEALTHY = {
    "GET /me": ME,
    "GET /fleets": {"items": [{"name": "local", "driver": "envoy"}], "next": None},
    "POST /fleets/local/check": {"ok": True},
}


def test_all_is_well(peer, davy):
    peer.respond = routes(HEALTHY)
    ran = davy("doctor")
    assert ran.code == 0
    assert "FAIL" not in ran.out
    assert "acts as ann with read, telemetry; it cannot: deploy (register and roll out)" in ran.out


def test_nothing_set_is_a_usage_error(davy, monkeypatch):
    monkeypatch.delenv("DAVY_URL", raising=False)
    ran = davy("doctor")
    assert (ran.code, "DAVY_URL is not set" in ran.out) == (1, True)


def test_a_server_that_is_gone_is_code_5(davy, monkeypatch):
    with running() as gone:
        monkeypatch.setenv("DAVY_URL", gone.url)
    monkeypatch.setenv("DAVY_TOKEN", "t")
    ran = davy("doctor")
    assert (ran.code, "is it running" in ran.out) == (5, True)


def test_a_wrong_token_is_code_4(peer, davy):
    peer.respond = lambda _: Reply(401, {"detail": "who?"})
    ran = davy("doctor")
    assert (ran.code, "make a new token" in ran.out) == (4, True)


def test_a_fleet_that_does_not_answer_is_code_5_and_in_the_document(peer, davy):
    peer.respond = routes({**HEALTHY, "POST /fleets/local/check": {"ok": False, "detail": "no admin port"}})
    ran = davy("doctor", "-o", "json")
    assert ran.code == 5
    assert json.loads(ran.out)["checks"][-1]["detail"] == "no admin port"


def test_a_clock_that_is_off_is_found(peer, davy):
    long_ago = {"Date": "Tue, 14 Nov 2023 22:13:20 GMT"}
    peer.respond = routes({**HEALTHY, "GET /me": Reply(200, ME, long_ago)})
    ran = davy("doctor")
    assert (ran.code, "set this machine's clock" in ran.out) == (1, True)
