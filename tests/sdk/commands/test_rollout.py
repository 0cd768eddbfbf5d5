"""Do rollout commands do as they say, and does the exit code tell a pipeline how it ended?"""

from __future__ import annotations

import json

import pytest
from davy.client import Client
from davy.commands.rollout import seconds
from davy.screen import UsageError

from tests.sdk.commands.conftest import a_rollout, routes
from tests.sdk.peer import Reply

ROLLOUT = "GET /rollouts/12"


def test_start_asks_for_the_rollout_and_names_the_next_command_and_the_page(peer, davy):
    peer.respond = lambda _: Reply(201, a_rollout("pending"))
    ran = davy("rollout", "start", "products", "v2", "--fleet", "local", "--plan", "fast")
    body = {"model": "products", "version": "v2", "fleet": "local", "dry_run": False, "plan": "fast"}
    assert peer.asked[0].json() == body
    assert ran.code == 0
    assert ran.out.splitlines()[-2:] == ["next: davy rollout watch 12", f"page: {peer.url}/rollouts/12"]


@pytest.mark.parametrize(
    ("state", "code"), [("promoted", 0), ("rolled_back", 2), ("aborted", 2), ("superseded", 2), ("failed", 5)]
)
def test_waiting_ends_with_the_exit_code_of_the_end(peer, davy, state, code):
    end = a_rollout(state, reason="because")
    peer.respond = routes({"POST /rollouts": a_rollout("pending"), ROLLOUT: end})
    assert (
        davy("rollout", "start", "products", "v2", "--fleet", "local", "--wait", "--timeout", "45m").code
        == code
    )
    for command in ("watch", "wait"):
        ran = davy("rollout", command, "12")
        assert ran.code == code
        assert "because" in ran.out


def test_watch_prints_one_plain_line_per_change(peer, davy):
    states = [a_rollout("running"), a_rollout("running", weight_percent=25.0), a_rollout("promoted")]
    peer.respond = routes({ROLLOUT: states})
    ran = davy("rollout", "watch", "12")
    lines = ran.out.splitlines()
    assert len(lines) == 3 + 2
    assert "running step 1 weight 25 % (observed unknown)  errors INCONCLUSIVE" in lines[1]
    assert "\x1b" not in ran.out


def test_json_is_one_document_on_stdout_and_the_lines_go_to_stderr(peer, davy):
    peer.respond = routes({ROLLOUT: a_rollout("promoted")})
    for command in ("watch", "wait"):
        ran = davy("rollout", command, "12", "-o", "json")
        assert json.loads(ran.out)["state"] == "promoted"
        assert "next: davy status products" in ran.err


def test_a_timeout_is_code_3_and_ends_nothing(peer, davy):
    peer.respond = routes({ROLLOUT: a_rollout("held")})
    ran = davy("rollout", "wait", "12", "--timeout", "0.1s")
    assert ran.code == 3
    assert "goes on" in ran.err
    assert {asked.method for asked in peer.asked} == {"GET"}


@pytest.mark.parametrize("command", ["watch", "wait"])
def test_ctrl_c_leaves_the_rollout_alone_and_says_so(peer, davy, monkeypatch, command):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "_look", interrupted)
    ran = davy("rollout", command, "12")
    assert ran.code == 130
    assert "left alone" in ran.out
    assert "next: davy rollout watch 12" in ran.out
    assert not peer.asked


@pytest.mark.parametrize("command", ["promote", "abort"])
def test_promote_and_abort_send_their_reason(peer, davy, command):
    peer.respond = lambda _: Reply(202, a_rollout("running"))
    ran = davy("rollout", command, "12", "--reason", "holiday")
    assert ran.code == 0
    assert (peer.asked[0].path, peer.asked[0].json()) == (
        f"/api/v1/rollouts/12/{command}",
        {"reason": "holiday"},
    )
    assert davy("rollout", command, "12").code == 1


def test_a_dry_run_changes_nothing_and_says_what_would_be_done(peer, davy):
    peer.respond = lambda _: Reply(200, {"dry_run": True, "stable": "v1", "plan": {"name": "standard"}})
    ran = davy("rollout", "start", "products", "v2", "--fleet", "local", "--dry-run")
    assert peer.asked[0].json()["dry_run"] is True
    assert "would move products on local from v1 to v2 by plan standard" in ran.out


def a_dry_run(**more: object) -> dict[str, object]:
    errors = {"name": "errors", "requests": 962, "seconds": 19.24, "reason": ""}
    latency = {"name": "latency", "requests": None, "seconds": None, "reason": "needs stable's latency"}
    fault = {"fault": "2 points more failed requests", "requests": 209, "seconds": 4.18, "reason": ""}
    step = {
        "weight_percent": 5,
        "dwell_seconds": 30,
        "seconds": None,
        "gates": [errors, latency],
        "detects": fault,
    }
    return {
        "dry_run": True,
        "stable": "v1",
        "plan": {"name": "fast"},
        "would": {"act": "start", "rollout": None, "detail": "a new rollout"},
        "change": {
            "slot": "b",
            "loads": "v2",
            "ends_keep_warm": "v0",
            "mirrors_percent": 10,
            "weights": [{"a": 95, "b": 5}, {"a": 0, "b": 100}],
        },
        "steps": [step],
        "seconds": None,
        "precision": "expected numbers",
        "holds": ["approval"],
        "traffic": {"requests_per_second": 1000.0, "known_from": "windows of the last hour"},
        **more,
    }


def test_plan_shows_the_change_the_steps_and_what_each_gate_will_need(peer, davy):
    peer.respond = lambda _: Reply(200, a_dry_run())
    ran = davy("rollout", "plan", "products", "v2", "--fleet", "local", "--plan", "fast")
    body = {"model": "products", "version": "v2", "fleet": "local", "dry_run": True, "plan": "fast"}
    assert (ran.code, [asked.json() for asked in peer.asked]) == (0, [body])
    assert ran.out.splitlines() == [
        "would move products on local from v1 to v2 by plan fast",
        "  a new rollout",
        "  slot b loads v2 instead of v0",
        "  10 % of live requests are mirrored to it first",
        "  weights: a 95 %, b 5 % → a 0 %, b 100 %",
        "  step 1: 5 %, at least 30 s, about an unknown time",
        "    errors: about 962 canary requests, 19 s",
        "    latency: unknown: needs stable's latency",
        "    notices 2 points more failed requests: about 209 canary requests, 4 s",
        "  asks: approval",
        "  in all about an unknown time, at 1,000 requests a second (known from windows of the last hour)",
        "  expected numbers",
        "next: davy rollout start products v2 --fleet local --plan fast",
        f"page: {peer.url}/rollouts",
    ]


def test_plan_says_how_late_prometheus_counts(peer, davy):
    counted_by = {"source": "prometheus", "detail": "Prometheus scrapes every 15 s: and so on"}
    peer.respond = lambda _: Reply(200, a_dry_run(errors_counted_by=counted_by))
    ran = davy("rollout", "plan", "products", "v2", "--fleet", "local")
    assert "  Prometheus scrapes every 15 s: and so on" in ran.out.splitlines()


def test_plan_for_programs_is_the_server_s_answer(peer, davy):
    answer = a_dry_run(change=None, steps=[], seconds=0, holds=[])
    peer.respond = lambda _: Reply(200, answer)
    ran = davy("rollout", "plan", "products", "v2", "--fleet", "local", "-o", "json")
    assert json.loads(ran.out) == answer


@pytest.mark.parametrize(
    ("status", "code"), [(401, 4), (403, 4), (404, 1), (409, 1), (422, 1), (429, 5), (500, 5), (503, 5)]
)
def test_a_refusal_has_its_exit_code_and_its_reason(peer, davy, status, code):
    peer.respond = lambda _: Reply(status, {"detail": "no such thing"})
    ran = davy("rollout", "promote", "12", "--reason", "r", "-o", "json")
    assert ran.code == code
    assert "no such thing" in ran.err
    assert json.loads(ran.out)["problem"] == {"detail": "no such thing"}


def test_github_gets_a_summary_and_outputs(peer, davy, monkeypatch, tmp_path):
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "output"))
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary"))
    peer.respond = routes({ROLLOUT: a_rollout("rolled_back", reason="errors:\nworse\nstate=promoted")})
    davy("rollout", "wait", "12")
    url = f"{peer.url}/rollouts/12"
    assert (tmp_path / "output").read_text() == f"rollout=12\nstate=rolled_back\nurl={url}\n"
    assert url in (tmp_path / "summary").read_text()


def test_times_are_read_with_their_unit():
    assert [seconds(text) for text in ("90", "90s", "1.5m", "2h", "")] == [90, 90, 90, 7200, None]
    with pytest.raises(UsageError, match="45m"):
        seconds("soon")
