"""The webhook hold against a real HTTP server: what it sends, and what counts as an answer."""

from __future__ import annotations

import base64
import ipaddress
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from standardwebhooks import Webhook

from controlplane import channels
from rollout import holds
from rollout.gates.base import Verdict
from rollout.holds import webhook
from rollout.holds.base import REASON_CHARACTERS, Answer
from tests.controlplane.servers import Receiver, receiver
from tests.rollout.holds.questions import question

pytestmark = pytest.mark.django_db
SECRET = "whsec_" + base64.b64encode(b"h" * 32).decode()


@pytest.fixture
def server(settings: Any) -> Iterator[Receiver]:
    settings.OUTBOUND_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    with receiver() as state:
        yield state


@pytest.fixture
def channel(server: Receiver) -> str:
    channels.create(
        name="deploy-hooks",
        kind="webhook",
        config={"url": f"{server.url}/may-it"},
        secret=SECRET,
        severities=["critical"],
        actor="ann",
    )
    return "deploy-hooks"


def answers(server: Receiver, status: int, body: bytes, **settings: Any) -> Answer:
    server.answer = lambda _asked: (status, body, {})
    return holds.get("webhook").ask({"url": server.url, **settings}, question())


def test_the_question_says_which_rollout_wants_to_go_where(server: Receiver) -> None:
    answers(server, 200, b"{}")
    (asked,) = server.asked
    said = json.loads(asked.body)
    assert (asked.method, said["type"], said["timestamp"]) == (
        "POST",
        "rollout.question",
        "2026-11-20T03:00:00+00:00",
    )
    facts = {"rollout": 7, "model": "products", "version": "v2", "stable": "v1", "fleet": "edge"}
    assert {key: said["data"][key] for key in facts} == facts
    assert (said["data"]["weight_percent"], said["data"]["next_weight_percent"]) == (50, 100)
    assert said["data"]["page"].endswith("/rollouts/7")


def test_by_a_channel_it_is_signed_with_the_channel_s_secret(server: Receiver, channel: str) -> None:
    server.answer = lambda _asked: (200, b'{"verdict": "pass"}', {})
    answer = holds.get("webhook").ask({"channel": channel}, question())
    assert answer.verdict is Verdict.PASS
    (asked,) = server.asked
    assert asked.path == "/may-it"
    assert Webhook(SECRET).verify(asked.body, asked.headers)["data"]["rollout"] == 7


@pytest.mark.parametrize(
    ("body", "verdict", "reason"),
    [
        (b'{"verdict": "pass", "reason": "load test is green"}', Verdict.PASS, "load test is green"),
        (b'{"verdict": "fail", "reason": "change freeze"}', Verdict.FAIL, "change freeze"),
        (b'{"verdict": "wait", "reason": "bob looks"}', Verdict.INCONCLUSIVE, "bob looks"),
        (b'{"verdict": "PASS"}', Verdict.PASS, "without a reason"),
        (b'{"verdict": "maybe"}', Verdict.INCONCLUSIVE, "gave no verdict"),
        (b'{"verdict": true}', Verdict.INCONCLUSIVE, "gave no verdict"),
        (b'["pass"]', Verdict.INCONCLUSIVE, "gave no verdict"),
        (b"ok", Verdict.INCONCLUSIVE, "not JSON: ok"),
        (b"", Verdict.INCONCLUSIVE, "not JSON"),
        (b"[" * 60_000, Verdict.INCONCLUSIVE, "not JSON"),
    ],
)
def test_the_body_s_verdict_counts(server: Receiver, body: bytes, verdict: Verdict, reason: str) -> None:
    answer = answers(server, 200, body)
    assert (answer.verdict, reason in answer.reason) == (verdict, True), answer.reason


@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500, 503])
def test_a_verdict_beside_an_error_does_not_count(server: Receiver, status: int) -> None:
    answer = answers(server, status, b'{"verdict": "pass"}')
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert str(status) in answer.reason


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.PASS),
        (204, Verdict.PASS),
        (403, Verdict.FAIL),
        (409, Verdict.FAIL),
        (302, Verdict.INCONCLUSIVE),
        (401, Verdict.INCONCLUSIVE),
        (404, Verdict.INCONCLUSIVE),
        (500, Verdict.INCONCLUSIVE),
    ],
)
def test_a_plan_may_ask_for_the_status_alone(server: Receiver, status: int, verdict: Verdict) -> None:
    assert answers(server, status, b"", answer="status").verdict is verdict


def test_what_cannot_be_stored_or_read_is_made_plain(server: Receiver) -> None:
    said = json.dumps({"verdict": "fail", "reason": "a\x00b\ud800\nc" + "d" * 5000})
    reason = answers(server, 200, said.encode()).reason
    assert "ab? c" in reason
    assert len(reason) == REASON_CHARACTERS


def test_an_endless_answer_is_cut_off(server: Receiver) -> None:
    assert "longer than" in answers(server, 200, b"x" * 200_000).reason


def test_a_slow_server_costs_the_tick_its_timeout_and_no_more(
    server: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert webhook.TIMEOUT_SECONDS <= 3
    monkeypatch.setattr(webhook, "TIMEOUT_SECONDS", 0.3)
    let_go = threading.Event()

    def late(_asked: object) -> tuple[int, bytes, dict[str, str]]:
        let_go.wait(20)
        return 200, b'{"verdict": "pass"}', {}

    server.answer = late
    began = time.monotonic()
    answer = holds.get("webhook").ask({"url": server.url}, question())
    took = time.monotonic() - began
    let_go.set()
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert took < 5


def test_a_private_address_is_not_called_unless_allowed(server: Receiver, settings: Any) -> None:
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    answer = answers(server, 200, b'{"verdict": "pass"}')
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert "private address" in answer.reason
    assert server.asked == []


def test_a_channel_that_is_gone_or_disabled_is_inconclusive(channel: str, server: Receiver) -> None:
    row = channels.get(webhook.Channel.objects.get(name=channel).pk)
    channels.change(row, {"enabled": False}, actor="ann")
    for name in (channel, "never-was"):
        answer = holds.get("webhook").ask({"channel": name}, question())
        assert (answer.verdict, name in answer.reason) == (Verdict.INCONCLUSIVE, True)
    assert server.asked == []


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("channel", {}),
        ("channel", {"channel": "deploy-hooks", "url": "https://x.example"}),
        ("channel", {"channel": "never-was"}),
        ("channel", {"channel": "a-log"}),
        ("channel", {"channel": 5}),
        ("url", {"url": "ftp://x.example"}),
        ("url", {"url": "https://ann:secret@x.example"}),
        ("url", {"url": 5}),
        ("answer", {"url": "https://x.example", "answer": "shout"}),
        ("every_seconds", {"url": "https://x.example", "every_seconds": 0}),
        ("every_seconds", {"url": "https://x.example", "every_seconds": True}),
        ("secret", {"url": "https://x.example", "secret": "whsec_…"}),
    ],
)
def test_a_bad_setting_is_refused_by_its_key(channel: str, key: str, wrong: dict[str, Any]) -> None:
    channels.create(name="a-log", kind="log", config={}, secret="", severities=[], actor="ann")
    with pytest.raises(ValueError, match=rf"^{key}: "):
        holds.get("webhook").check(wrong)
