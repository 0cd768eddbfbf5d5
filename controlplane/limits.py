"""Is this body larger than we read? Refused by its announced length, or while it arrives when it has none."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from django.conf import settings

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class TooLargeError(Exception):
    """The body went over the limit while it was being received."""


def announced_too_large(content_length: str | None) -> bool:
    """Whether a Content-Length announces more than settings.MAX_BODY_BYTES (or is no number at all)."""
    if not content_length:
        return False
    return not content_length.isdecimal() or int(content_length) > settings.MAX_BODY_BYTES


def limit_text() -> str:
    """What to tell somebody whose body is too large."""
    return f"a request body may hold {settings.MAX_BODY_BYTES} bytes"


class LimitBody:
    """ASGI wrapper: Django spools a whole body before any middleware runs, so the limit stands outside."""

    def __init__(self, application: Application) -> None:
        self.application = application

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 413 without reading more than the limit."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        length = dict(scope["headers"]).get(b"content-length", b"").decode("latin-1")
        if announced_too_large(length):
            await _refuse(send)
            return
        try:
            await self.application(scope, _counted(receive), send)
        except TooLargeError:
            await _refuse(send)


def _counted(receive: Receive) -> Receive:
    received = 0

    async def counted() -> Mapping[str, Any]:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > settings.MAX_BODY_BYTES:
            raise TooLargeError
        return message

    return counted


async def _refuse(send: Send) -> None:
    body = json.dumps(
        {
            "type": "about:blank",
            "title": "Content Too Large",
            "status": 413,
            "detail": limit_text(),
            "code": "body_too_large",
            "request_id": "",
            "errors": [],
        }
    ).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
