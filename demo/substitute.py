"""What serves where Triton cannot run? The V2 protocol over the same bundles' model.py; it never claims to be Triton.

`python -m demo.substitute --port P --repository DIR` loads every model of the folder and serves until SIGTERM.
`GET /v2` answers the name davy-substitute. HTTP only; requests are batched as the bundle's config.pbtxt says.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import httptools
import uvloop

from demo import credentials, places
from demo.backend_utils import InferenceRequest, InferenceResponse, load_model_code
from demo.v2_protocol import RefusedError, Reply, as_json, encode, parse_infer

log = logging.getLogger("davy.demo.substitute")

MODEL_PATH = re.compile(r"/v2/models/([^/]+)(?:/versions/1)?/(infer|ready|config)")
REPOSITORY_PATH = re.compile(r"/v2/repository/models/([^/]+)/(load|unload)")


def read_config(name: str, text: str) -> dict[str, Any]:
    """Return the parts of a bundle's config.pbtxt that are used here, in the form of Triton's model_config JSON."""

    def number(field_name: str, otherwise: int) -> int:
        found = re.search(rf"\b{field_name}:\s*(\d+)", text)
        return int(found[1]) if found else otherwise

    parameter = r'parameters\s*:?\s*\{\s*key:\s*"([^"]*)"\s*,?\s*value\s*:?\s*\{\s*string_value:\s*"([^"]*)"'
    return {
        "name": name,
        "backend": "python",
        "max_batch_size": number("max_batch_size", 0),
        "dynamic_batching": {"max_queue_delay_microseconds": number("max_queue_delay_microseconds", 0)},
        "parameters": {key: {"string_value": value} for key, value in re.findall(parameter, text)},
    }


class Batch:
    """Requests that are answered together."""

    def __init__(self, run: Callable[[Batch], Awaitable[list[InferenceResponse]]]) -> None:
        self.requests: list[InferenceRequest] = []
        self.answers = asyncio.ensure_future(run(self))


class Model:
    """One loaded bundle: collects requests for its queue delay and runs them as a batch on a thread of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.config = read_config(name, (folder / "config.pbtxt").read_text())
        self._delay_seconds = self.config["dynamic_batching"]["max_queue_delay_microseconds"] / 1e6
        self._code = load_model_code(folder / "1" / "model.py").TritonPythonModel()
        self._code.initialize(
            {
                "model_repository": str(folder),
                "model_version": "1",
                "model_config": json.dumps(self.config),
            }
        )
        self._thread = ThreadPoolExecutor(1)
        self._open: Batch | None = None

    async def infer(self, request: InferenceRequest) -> InferenceResponse:
        """Return the answer to one request."""
        if self._open is None or len(self._open.requests) >= self.config["max_batch_size"]:
            self._open = Batch(self._run)
        batch, place = self._open, len(self._open.requests)
        batch.requests.append(request)
        return (await batch.answers)[place]

    async def _run(self, batch: Batch) -> list[InferenceResponse]:
        await asyncio.sleep(self._delay_seconds)
        if self._open is batch:
            self._open = None
        run = asyncio.get_running_loop().run_in_executor
        return cast(list[InferenceResponse], await run(self._thread, self._code.execute, batch.requests))

    async def close(self) -> None:
        """Answer what is queued, then end."""
        if self._open is not None:
            await asyncio.wait({self._open.answers})
        await asyncio.to_thread(self._thread.shutdown)
        await asyncio.to_thread(self._code.finalize)


class Server:
    """The models of one repository, under the V2 protocol's paths."""

    def __init__(self, repository: Path) -> None:
        self._repository = repository
        self._loaded: dict[str, Model] = {}

    async def load(self, name: str) -> None:
        """Load a model, or load it again; the one before serves until then."""
        folder = self._repository / name
        if not (folder / "config.pbtxt").is_file():
            raise RefusedError(400, f"failed to load '{name}', no such model in the repository")
        fresh = await asyncio.to_thread(Model, name, folder)
        before, self._loaded[name] = self._loaded.get(name), fresh
        if before is not None:
            await before.close()

    async def load_all(self) -> None:
        """Load every model of the repository; one that does not load leaves the others alone."""
        names = sorted(path.parent.name for path in self._repository.glob("*/config.pbtxt"))
        results = await asyncio.gather(*map(self.load, names), return_exceptions=True)
        for name, result in zip(names, results, strict=True):
            if result is not None:
                log.error("%s is not loaded: %r", name, result)

    async def unload(self, name: str) -> None:
        """Unload a model if it is loaded."""
        before = self._loaded.pop(name, None)
        if before is not None:
            await before.close()

    async def close(self) -> None:
        """Unload every model, so that each collector sends what it has."""
        await asyncio.gather(*map(self.unload, list(self._loaded)))

    def index(self) -> list[dict[str, str]]:
        """Return every model of the repository with its state."""
        names = sorted(path.parent.name for path in self._repository.glob("*/config.pbtxt"))
        return [
            {"name": n, "version": "1", "state": "READY"} if n in self._loaded else {"name": n} for n in names
        ]

    async def answer(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        """Return the answer to one HTTP request; RefusedError for a path or a model that is not there."""
        match path:
            case "/v2":
                return as_json(
                    {"name": "davy-substitute", "version": "1", "extensions": ["model_repository"]}
                )
            case "/v2/health/ready" | "/v2/health/live":
                return Reply()
            case "/v2/repository/index":
                return as_json(self.index())
        if found := REPOSITORY_PATH.fullmatch(path):
            await (self.load if found[2] == "load" else self.unload)(unquote(found[1]))
            return Reply()
        found = MODEL_PATH.fullmatch(path)
        if found is None:
            raise RefusedError(404, f"there is no {path} here")
        return await self._answer_model(unquote(found[1]), found[2], headers, body)

    async def _answer_model(self, name: str, verb: str, headers: dict[str, str], body: bytes) -> Reply:
        model = self._loaded.get(name)
        if model is None:  # statuses as Triton's
            status = 404 if verb == "infer" else 400
            raise RefusedError(status, f"Request for unknown model: '{name}' is not found")
        if verb == "ready":
            return Reply()
        if verb == "config":
            return as_json(model.config)
        document, request = parse_infer(headers, body)
        return encode(name, document, await model.infer(request))


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection; its requests are answered one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._begin()

    def _begin(self) -> None:
        self._url, self._headers, self._body = b"", dict[str, str](), bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport (called by the loop)."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Parse (called by the loop)."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._send(as_json({"error": "malformed HTTP"}, 400))
            self._close()

    def on_url(self, url: bytes) -> None:
        """Collect (called by the parser)."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect (called by the parser)."""
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Collect (called by the parser)."""
        self._body += body

    def on_message_complete(self) -> None:
        """Answer (called by the parser)."""
        path = urlsplit(self._url.decode("latin-1")).path
        answer = asyncio.ensure_future(self._server.answer(path, self._headers, bytes(self._body)))
        keep = self._parser.should_keep_alive()
        self._begin()
        answer.add_done_callback(lambda done: self._reply(done, keep))

    def _reply(self, done: asyncio.Future[Reply], keep: bool) -> None:
        error = done.exception()
        if error is None:
            self._send(done.result())
        else:
            if not isinstance(error, RefusedError):
                log.error("request failed", exc_info=error)
            self._send(as_json({"error": str(error)}, getattr(error, "status", 500)))
        if not keep:
            self._close()

    def _send(self, reply: Reply) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(reply.to_bytes())

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def main() -> None:
    """Serve as the command line says, until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--name", default="substitute", help="how this server calls itself in its log")
    options = parser.parse_args()
    known = credentials.read(places.here().credentials_file)
    os.environ.setdefault("DAVY_TOKEN", known.get("DAVY_TELEMETRY_TOKEN") or known.get("DAVY_TOKEN", ""))
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = Server(options.repository)
    await server.load_all()
    listening = await loop.create_server(lambda: Connection(server), options.host, options.port)
    print(f"{options.name}: the substitute server, http://{options.host}:{options.port}/v2", flush=True)
    await stop.wait()
    listening.close()
    await server.close()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    uvloop.run(main())
