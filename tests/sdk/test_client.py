"""Does the REST client say what went wrong, guard the token, and see a rollout through to its end?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from davy.client import ApiError, Client, ClientError, Unreachable, WaitTimeout, path

from tests.sdk.peer import Asked, Peer, Reply, running


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running() as peer:
        yield peer


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def client(peer: Peer, clock: Clock | None = None) -> Client:
    clock = clock or Clock()
    return Client(peer.url, "dvy_1_secret", clock=clock, sleep=clock.sleep)


def rollouts(*states: Any) -> Any:
    """A respond that plays these states (or replies) one look after another, and stays on the last."""
    left = list(states)

    def respond(_: Asked) -> Reply:
        state = left.pop(0) if len(left) > 1 else left[0]
        return state if isinstance(state, Reply) else Reply(200, {"id": 4, "gates": [], **state})

    return respond


def test_a_request_carries_token_json_and_key(peer):
    peer.respond = lambda _: Reply(201, {"id": 4})
    answer = client(peer).post("/rollouts", {"model": "products"}, idempotency_key="k1")
    asked = peer.asked[0]
    assert answer == {"id": 4}
    assert (asked.method, asked.path, asked.json()) == ("POST", "/api/v1/rollouts", {"model": "products"})
    assert asked.headers["authorization"] == "Bearer dvy_1_secret"
    assert asked.headers["idempotency-key"] == "k1"


def test_bytes_are_put_and_a_patch_names_its_etag(peer):
    client(peer).put("/models/m/versions/v/reference", b"npz", "application/x-npz")
    client(peer).patch("/models/m/versions/v", {"metadata": {}}, if_match='"7"')
    put, patch = peer.asked
    assert (put.body, put.headers["content-type"]) == (b"npz", "application/x-npz")
    assert (patch.method, patch.headers["if-match"]) == ("PATCH", '"7"')


def test_a_problem_is_raised_with_its_fields_and_retry_after(peer):
    problem = {
        "title": "Unprocessable",
        "detail": "no plan",
        "errors": [{"pointer": "/plan", "detail": "unknown"}],
    }
    peer.respond = lambda _: Reply(429, problem, {"Retry-After": "7"})
    with pytest.raises(ApiError, match=r"429: no plan \(/plan: unknown\)") as caught:
        client(peer).post("/rollouts", {})
    assert caught.value.retry_after_seconds == 7
    assert caught.value.problem == problem


@pytest.mark.parametrize("content", [b"<html>", b"[1]", b""])
def test_an_error_that_is_no_problem_document_still_has_its_status(peer, content):
    peer.respond = lambda _: Reply(502, content, {"Retry-After": "soon"})
    with pytest.raises(ApiError, match="502: Bad Gateway") as caught:
        client(peer).get("/me")
    assert caught.value.retry_after_seconds is None


def test_a_redirect_is_an_error_and_the_token_goes_nowhere(peer):
    with running() as elsewhere:
        peer.respond = lambda _: Reply(302, b"", {"Location": elsewhere.url})
        with pytest.raises(ApiError, match="302"):
            client(peer).get("/me")
        assert not elsewhere.asked


def test_nobody_there_is_unreachable():
    with running() as gone:
        url = gone.url
    with pytest.raises(Unreachable, match=url):
        Client(url, "t").get("/me")


def test_an_answer_that_is_not_json_is_an_error(peer):
    peer.respond = lambda _: Reply(200, b"<html>")
    with pytest.raises(ClientError, match="not JSON"):
        client(peer).get("/me")


@pytest.mark.parametrize(("url", "token"), [("file:///etc/passwd", "t"), ("davy", "t"), ("http://x", "a\nb")])
def test_a_wrong_url_or_token_is_refused_at_once(url, token):
    with pytest.raises(ValueError):
        Client(url, token)


def test_parts_of_a_path_are_quoted():
    assert path("models", "a/b c", "versions", 2) == "/models/a%2Fb%20c/versions/2"


def test_following_yields_each_change_once_up_to_the_end(peer):
    running_5 = {"state": "running", "weight_percent": 5}
    judged = {**running_5, "gates": [{"name": "errors", "verdict": "PASS", "value": 1}]}
    judged_again = {**running_5, "gates": [{"name": "errors", "verdict": "PASS", "value": 2}]}
    peer.respond = rollouts(
        running_5, running_5, judged, judged_again, {"state": "promoted", "weight_percent": 100}
    )
    seen = list(client(peer).follow_rollout(4))
    assert [r["state"] for r in seen] == ["running", "running", "promoted"]
    assert seen[1]["gates"] == judged["gates"]


def test_waiting_asks_for_the_end_with_a_long_poll(peer):
    peer.respond = rollouts({"state": "running"}, {"state": "rolled_back"})
    assert client(peer).wait_rollout(4)["state"] == "rolled_back"
    assert peer.asked[1].path == "/api/v1/rollouts/4?wait=terminal&timeout=55.0"


def test_waiting_gives_up_in_time_and_hands_back_the_latest_state(peer):
    peer.respond = rollouts({"state": "held"})
    clock = Clock()
    with pytest.raises(WaitTimeout) as caught:
        client(peer, clock).wait_rollout(4, 30)
    assert caught.value.rollout["state"] == "held"
    assert clock.now == pytest.approx(30)


def test_a_server_that_restarts_is_asked_again(peer):
    peer.respond = rollouts({"state": "running"}, Reply(503), Reply(502), {"state": "promoted"})
    assert client(peer).wait_rollout(4)["state"] == "promoted"


def test_a_server_that_stays_away_or_refuses_is_reported(peer):
    peer.respond = rollouts({"state": "running"}, Reply(503))
    with pytest.raises(ApiError, match="503"):
        client(peer).wait_rollout(4)
    peer.respond = rollouts(Reply(404))
    with pytest.raises(ApiError, match="404"):
        client(peer).wait_rollout(4)
