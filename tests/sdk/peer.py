"""A real HTTP server on this machine that answers as a test says and remembers what it was asked."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> bytes:
        zipped = self.headers.get("content-encoding") == "gzip"
        return gzip.decompress(self.raw) if zipped else self.raw

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """What to answer; a dict or list goes as JSON."""

    status: int = 200
    content: Any = b""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def raw(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass
class Peer:
    """`respond` may be replaced at any time; `asked` grows."""

    url: str
    respond: Callable[[Asked], Reply]
    asked: list[Asked] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def to(self, path: str) -> list[Asked]:
        """The requests to a path, oldest first."""
        with self.changed:
            return [a for a in self.asked if a.path.split("?")[0] == f"/api/v1{path}"]

    def wait_for(self, path: str, count: int, seconds: float = 20.0) -> list[Asked]:
        """The requests to a path once there are `count`."""
        with self.changed:
            came = self.changed.wait_for(lambda: len(self.to(path)) >= count, seconds)
        assert came, f"{len(self.to(path))} of {count} requests to {path}"
        return self.to(path)


@contextmanager
def running(respond: Callable[[Asked], Reply] = lambda _: Reply(202, {})) -> Iterator[Peer]:
    """A peer that listens on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, self.path, headers, self.rfile.read(length))
            reply = peer.respond(asked)
            with peer.changed:
                peer.asked.append(asked)
                peer.changed.notify_all()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.raw)))
            self.end_headers()
            self.wfile.write(reply.raw)

        do_GET = do_POST = do_PUT = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    peer = Peer(
        f"http://127.0.0.1:{server.server_port}", respond, changed=threading.Condition(threading.RLock())
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
