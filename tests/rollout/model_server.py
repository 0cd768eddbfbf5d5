"""A small V2 model server that does as it is told: answers, fails, hangs, closes, or is away."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

PARAMETER = re.compile(r'parameters \{ key: "(\w+)" value \{ string_value: "([^"]*)" \} \}')
Answer = Callable[[int], int | str]  # the how-many-th inference, from 1 → a status, "hang" or "close"


class ModelServer:
    """One slot's server. It loads from `repository` as Triton does; without one every model is there already."""

    def __init__(self, name: str, repository: Path | None = None) -> None:
        self.name = name
        self.repository = repository
        self.loaded: dict[str, dict[str, str]] = {}  # model → parameters of its config.pbtxt
        self.answers: dict[str, Answer] = {}  # model → how it answers; absent: 200
        self.unready = False
        self.headers: dict[str, list[Mapping[str, str]]] = defaultdict(list)  # model → of each inference
        self.bad: dict[str, int] = defaultdict(int)  # model → inferences not answered with 200
        self.released = threading.Event()  # lets hanging requests go
        self._counting = threading.Lock()
        self._http: ThreadingHTTPServer | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Listen; on the same port as before."""
        handler = type("Handler", (_Handler,), {"owner": self})
        self._http = _Server(("127.0.0.1", self.port), handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        """Close the port and every connection: the server is away."""
        if self._http is not None:
            self._http.shutdown()
            self._http.end_connections()
            self._http.server_close()
            self._http = None

    def close(self) -> None:
        self.released.set()
        self.stop()

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/v2/health/ready":
            return 200, {}
        found = re.fullmatch(r"/v2/models/([^/]+)/(ready|config)", path)
        if found is None or self.unready or not self._has(found[1]):
            return 400, {"error": "not here"}
        parameters = {k: {"string_value": v} for k, v in self.loaded.get(found[1], {}).items()}
        return 200, {} if found[2] == "ready" else {"name": found[1], "parameters": parameters}

    def post(self, path: str, headers: Mapping[str, str]) -> tuple[int | str, Any]:
        if found := re.fullmatch(r"/v2/models/([^/]+)/infer", path):
            return self._infer(found[1], headers)
        if found := re.fullmatch(r"/v2/repository/models/([^/]+)/(load|unload)", path):
            return (self._load if found[2] == "load" else self._unload)(found[1])
        return 404, {}

    def _has(self, model: str) -> bool:
        return self.repository is None or model in self.loaded

    def _infer(self, model: str, headers: Mapping[str, str]) -> tuple[int | str, Any]:
        with self._counting:
            self.headers[model].append(headers)
            count = len(self.headers[model])
            how = self.answers.get(model, lambda _: 200)(count) if self._has(model) else 404
            self.bad[model] += how != 200
        return how, {"server": self.name}

    def _load(self, model: str) -> tuple[int, Any]:
        assert self.repository is not None
        config = self.repository / model / "config.pbtxt"
        if not config.exists():
            return 400, {"error": f"no model {model}"}
        self.loaded[model] = dict(PARAMETER.findall(config.read_text()))
        return 200, {}

    def _unload(self, model: str) -> tuple[int, Any]:
        self.loaded.pop(model, None)
        return 200, {}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *args: Any) -> None:
        self._open: set[Any] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(2)


class _Handler(BaseHTTPRequestHandler):
    owner: ModelServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # one write per answer

    def do_GET(self) -> None:
        self.answer(*self.owner.get(self.path))

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.answer(*self.owner.post(self.path, {k.lower(): v for k, v in self.headers.items()}))

    def answer(self, how: int | str, content: Any) -> None:
        if how == "hang":
            self.owner.released.wait(30)
        if isinstance(how, str):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)
            return
        body = json.dumps(content).encode()
        self.send_response(how)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def two_servers(folder: Path | None = None) -> Iterator[dict[str, ModelServer]]:
    """Servers of the slots a and b; with a folder they have repositories below it, else they are stock servers."""
    servers = {name: ModelServer(name, folder / name if folder else None) for name in ("a", "b")}
    try:
        yield servers
    finally:
        for server in servers.values():
            server.close()
