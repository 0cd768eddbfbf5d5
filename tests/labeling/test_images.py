from __future__ import annotations

import ipaddress
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from controlplane.problems import Problem
from labeling import images
from labeling.models import Task

PNG = b"\x89PNG\r\n\x1a\n and so on"
Source = Callable[[int, str, bytes], str]


@pytest.fixture
def source(settings: Any) -> Iterator[Source]:
    """A real image source on this machine: give status, content type and body, get the URL."""
    settings.OUTBOUND_ALLOWED_NETWORKS = [ipaddress.ip_network("127.0.0.0/8")]
    answer: list[tuple[int, str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, content_type, body = answer[-1]
            self.send_response(status)
            if content_type:
                self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def serve(status: int, content_type: str, body: bytes) -> str:
        answer.append((status, content_type, body))
        return f"http://127.0.0.1:{server.server_port}/1.png"

    yield serve
    server.shutdown()
    server.server_close()


def test_an_image_comes_as_its_source_sent_it(source: Source) -> None:
    fetched = images.fetch(Task(image=source(200, "image/PNG; q=1", PNG)))
    assert (fetched.data, fetched.content_type) == (PNG, "image/png")


@pytest.mark.parametrize(
    ("status", "content_type", "why"),
    [
        (404, "image/png", "its source answered 404"),
        (302, "image/png", "its source answered 302"),
        (200, "text/html", "its source sent text/html, not an image"),
        (200, "image/svg+xml", "its source sent image/svg+xml, not an image"),
        (200, "", "its source sent no content type, not an image"),
    ],
)
def test_what_is_not_an_image_is_refused_with_its_reason(
    source: Source, status: int, content_type: str, why: str
) -> None:
    with pytest.raises(Problem, match=re.escape(why)) as caught:
        images.fetch(Task(image=source(status, content_type, b"<svg/>")))
    assert (caught.value.status, caught.value.code) == (502, "image_unavailable")


def test_an_image_over_the_size_limit_is_refused(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    with pytest.raises(Problem, match="longer than 10 bytes"):
        images.fetch(Task(image=source(200, "image/png", PNG)))


def test_an_image_on_a_private_network_is_not_fetched(source: Source, settings: Any) -> None:
    url = source(200, "image/png", PNG)
    settings.OUTBOUND_ALLOWED_NETWORKS = []
    with pytest.raises(Problem, match="private address"):
        images.fetch(Task(image=url))


@pytest.mark.parametrize("reference", ["s3://bucket/1.png", "file:///etc/passwd", "1.png"])
def test_a_reference_that_is_no_url_is_refused(reference: str) -> None:
    with pytest.raises(Problem, match="must start with http"):
        images.fetch(Task(image=reference))
