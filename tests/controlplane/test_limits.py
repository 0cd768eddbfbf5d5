"""Claims about bodies over the limit, at the ASGI door."""

from __future__ import annotations

import asyncio
import json

import pytest

from controlplane.limits import LimitBody


class Door:
    """Runs one request through LimitBody around an application that reads everything."""

    def __init__(self, headers, chunks):
        self.headers, self.chunks = headers, list(chunks)
        self.reads, self.sent, self.application_read = 0, [], 0

    async def receive(self):
        self.reads += 1
        body = self.chunks.pop(0)
        return {"type": "http.request", "body": body, "more_body": bool(self.chunks)}

    async def send(self, message):
        self.sent.append(message)

    async def application(self, _scope, receive, send):
        while True:
            message = await receive()
            self.application_read += len(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def run(self):
        scope = {"type": "http", "headers": self.headers}
        asyncio.run(LimitBody(self.application)(scope, self.receive, self.send))
        return self.sent[0]["status"]


@pytest.fixture(autouse=True)
def _limit(settings):
    settings.MAX_BODY_BYTES = 100


def test_an_announced_body_over_the_limit_is_refused_without_reading_any_of_it():
    door = Door([(b"content-length", b"101")], [b"x" * 101])
    assert door.run() == 413
    assert door.reads == 0
    assert json.loads(door.sent[1]["body"])["code"] == "body_too_large"


def test_a_chunked_body_is_refused_as_soon_as_it_is_over_the_limit():
    door = Door([], [b"x" * 60] * 1000)
    assert door.run() == 413
    assert (door.reads, door.application_read) == (2, 60)


def test_a_body_at_the_limit_passes():
    assert Door([(b"content-length", b"100")], [b"x" * 50] * 2).run() == 200
    assert Door([], [b"x" * 50] * 2).run() == 200


def test_a_length_that_is_no_number_is_refused():
    assert Door([(b"content-length", b"many")], [b""]).run() == 413
