from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.http import StreamingHttpResponse
from django.test import Client
from django.utils import timezone

from controlplane import access
from controlplane.models import User
from labeling.models import Annotation, Task
from tests.labeling.scene import a_version, an_annotator, tasks

pytestmark = pytest.mark.django_db
BASE = "/api/v1/labeling"


def _client(user: User, *scopes: str) -> Client:
    _, text = access.create_token(user, "test", scopes or ("label", "read"))
    return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {text}"})


@pytest.fixture
def client() -> Client:
    return _client(an_annotator())


def _post(client: Client, path: str, body: Any = None) -> Any:
    data = "" if body is None else json.dumps(body)
    return client.post(f"{BASE}{path}", data, content_type="application/json")


def _text(response: Any) -> str:
    """A streamed answer, read as an ASGI server reads it."""
    assert isinstance(response, StreamingHttpResponse)

    async def read() -> bytes:
        return b"".join([part async for part in response])

    return async_to_sync(read)().decode()


def _leased(client: Client) -> dict[str, Any]:
    return _post(client, "/tasks/next").json()


def test_next_hands_out_a_lease_with_all_an_annotator_needs(client: Client) -> None:
    (task,) = tasks(a_version(bundle={"classes": ["shoe", "boot"]}), 1)
    lease = _leased(client)
    assert lease["task"] == task.pk
    assert lease["image"] == task.image
    assert lease["image_url"] == f"{BASE}/tasks/{task.pk}/image"
    assert lease["suggestion"]["label"] == "shoe"
    assert (lease["why"], lease["budget"], lease["classes"]) == (task.why, "improve", ["shoe", "boot"])
    assert lease["token"]
    assert lease["expires_at"]


def test_an_empty_queue_is_204(client: Client) -> None:
    assert _post(client, "/tasks/next").status_code == 204


def test_next_can_name_a_model_and_an_unknown_one_is_404(client: Client) -> None:
    tasks(a_version("products"), 1, priority=1)
    (wanted,) = tasks(a_version("returns"), 1)
    assert _post(client, "/tasks/next", {"model": "returns"}).json()["task"] == wanted.pk
    answer = _post(client, "/tasks/next", {"model": "nope"})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (404, "/model")


def test_a_submission_is_stored_and_may_be_repeated(client: Client) -> None:
    tasks(a_version(), 1)
    lease = _leased(client)
    path, body = f"/tasks/{lease['task']}/submit", {"token": lease["token"], "label": "shoe"}
    first, again = _post(client, path, body), _post(client, path, body)
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json() == again.json()
    assert first.json()["label"] == "shoe"
    assert _post(client, path, {**body, "label": "boot"}).json()["code"] == "already_answered"


def test_a_skip_is_stored(client: Client) -> None:
    tasks(a_version(), 1)
    lease = _leased(client)
    answer = _post(client, f"/tasks/{lease['task']}/skip", {"token": lease["token"], "reason": "too dark"})
    assert (answer.status_code, answer.json()["skipped"]) == (200, True)
    assert Task.objects.get().state == "skipped"


def test_a_heartbeat_says_the_new_time(client: Client) -> None:
    tasks(a_version(), 1)
    lease = _leased(client)
    answer = _post(client, f"/tasks/{lease['task']}/heartbeat", {"token": lease["token"]})
    assert answer.json()["expires_at"] > lease["expires_at"]


def test_somebody_elses_token_is_no_use(client: Client) -> None:
    tasks(a_version(), 1)
    lease = _leased(client)
    thief = _client(an_annotator("eve"))
    answer = _post(thief, f"/tasks/{lease['task']}/submit", {"token": lease["token"], "label": "shoe"})
    assert (answer.status_code, answer.json()["code"]) == (403, "not_your_lease")
    assert not Annotation.objects.exists()


@pytest.mark.parametrize(
    ("body", "status", "pointer"),
    [
        ({"label": "shoe"}, 422, "/token"),
        ({"token": "x", "label": "shoe"}, 422, "/token"),
        ({"token": "00000000-0000-4000-8000-000000000000", "label": "shoe"}, 404, "/token"),
        ({"token": None, "label": 3}, 422, "/token"),
        ({"token": "x", "label": "shoe", "more": 1}, 422, "/more"),
    ],
)
def test_bad_input_names_its_field(client: Client, body: dict[str, Any], status: int, pointer: str) -> None:
    (task,) = tasks(a_version(), 1)
    answer = _post(client, f"/tasks/{task.pk}/submit", body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (status, pointer)


def test_a_token_of_another_task_is_refused(client: Client) -> None:
    first, second = tasks(a_version(), 2)
    lease = _leased(client)
    answer = _post(client, f"/tasks/{second.pk}/submit", {"token": lease["token"], "label": "shoe"})
    assert lease["task"] == first.pk
    assert (answer.status_code, answer.json()["code"]) == (409, "other_task")


def test_an_unknown_task_is_404(client: Client) -> None:
    answer = _post(client, "/tasks/7/submit", {"token": "x", "label": "shoe"})
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_task")
    assert client.get(f"{BASE}/tasks/7/image").status_code == 404


def test_an_image_that_cannot_be_fetched_says_why(client: Client) -> None:
    (task,) = tasks(a_version(), 1, image="s3://bucket/1.png")
    answer = client.get(f"{BASE}/tasks/{task.pk}/image")
    assert (answer.status_code, answer.json()["code"]) == (502, "image_unavailable")


def test_queues_are_counted_for_readers(client: Client) -> None:
    tasks(a_version(), 2)
    _leased(client)
    (row,) = _client(an_annotator("eve"), "read").get(f"{BASE}/queues").json()["items"]
    assert (row["model"], row["open"], row["leased"]) == ("products", 1, 1)


@pytest.mark.parametrize(
    "call",
    [
        lambda client: _post(client, "/tasks/next"),
        lambda client: client.get(f"{BASE}/exports"),
        lambda client: client.get(f"{BASE}/tasks/1/image"),
    ],
)
def test_labeling_needs_its_scope(call: Callable[[Client], Any]) -> None:
    assert call(_client(an_annotator(), "read")).json()["code"] == "missing_scope"


def test_exports_stream_what_is_done(client: Client) -> None:
    tasks(a_version(), 3)
    for label in ("shoe", "boot"):
        lease = _leased(client)
        _post(client, f"/tasks/{lease['task']}/submit", {"token": lease["token"], "label": label})
    response = client.get(f"{BASE}/exports?format=jsonl")
    rows = [json.loads(line) for line in _text(response).splitlines()]
    assert [row["label"] for row in rows] == ["shoe", "boot"]
    until = response["X-Davy-Until"].replace("+", "%2B")
    table = _text(client.get(f"{BASE}/exports?format=csv&model=products&until={until}"))
    assert [row["label"] for row in csv.DictReader(io.StringIO(table))] == ["shoe", "boot"]


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("format=xls", "/format"),
        ("until=yesterday", "/until"),
        ("until=2026-03-01T12:00:00", "/until"),
        ("until=2026-02-31T12:00:00Z", "/until"),
        (f"until={timezone.now().year + 2}-01-01T00:00:00Z", "/until"),
        ("model=nope", "/model"),
    ],
)
def test_a_bad_export_names_its_field(client: Client, query: str, pointer: str) -> None:
    answer = client.get(f"{BASE}/exports?{query}")
    assert 400 <= answer.status_code < 500
    assert answer.json()["errors"][0]["pointer"] == pointer
