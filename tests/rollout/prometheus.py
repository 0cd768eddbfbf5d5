"""Prometheus for tests: itself on a free port, and one that is played, whose scrapes and clock are a test's."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import parse_qs
from urllib.request import urlopen

import pytest

from tests.controlplane.servers import Asked, Receiver, receiver

REQUESTS, FAILURES = 'requests_total{slot="{slot}"}', 'failures_total{slot="{slot}"}'
LOOKBACK_SECONDS = 300.0
_QUERY = re.compile(r'(requests|failures)_total\{slot="(a|b)"\}')


def vector(*values: str) -> dict[str, Any]:
    """An answer with a series for each value."""
    samples = [{"metric": {"i": str(i)}, "value": [1_795_143_600.1, value]} for i, value in enumerate(values)]
    return {"status": "success", "data": {"resultType": "vector", "result": samples}}


@dataclass
class Played:
    """Answers instant queries for REQUESTS and FAILURES from its scrapes; `says` answers every query instead."""

    server: Receiver
    scrapes: list[tuple[float, dict[str, tuple[int, int]]]] = field(default_factory=list)
    says: tuple[int, Any] | None = None

    def scrape(self, at: float, counts: Mapping[str, tuple[int, int]]) -> None:
        """Store {slot: (requests, failures)}; a slot that is left out was not scraped."""
        self.scrapes.append((at, dict(counts)))

    @property
    def moments(self) -> list[float]:
        """The evaluation time of every query so far."""
        return [float(parse_qs(asked.body.decode())["time"][0]) for asked in self.server.asked]

    def answer(self, asked: Asked) -> tuple[int, bytes, dict[str, str]]:
        status, body = self.says or (200, self._found(parse_qs(asked.body.decode())))
        return status, json.dumps(body).encode(), {"Content-Type": "application/json"}

    def _found(self, query: Mapping[str, list[str]]) -> dict[str, Any]:
        asked, at = _QUERY.fullmatch(query["query"][0]), float(query["time"][0])
        assert asked, query
        counter, slot = asked.groups()
        past = [counts for scraped, counts in self.scrapes if at - LOOKBACK_SECONDS < scraped <= at]
        if not past or slot not in past[-1]:
            return vector()
        return vector(str(past[-1][slot][counter == "failures"]))


@contextmanager
def played() -> Iterator[Played]:
    """A played Prometheus on a free port."""
    with receiver() as server:
        found = Played(server)
        server.answer = found.answer
        yield found


def config(url: str, /, **changes: Any) -> dict[str, Any]:
    """A fleet's `prometheus`, which counts in the router's place."""
    asks = {"requests": REQUESTS, "failures": FAILURES, "instead_of_router": True}
    return {"url": url, "scrape_seconds": 15, **asks, **changes}


@contextmanager
def running(folder: Path, settings: str) -> Iterator[str]:
    """Prometheus itself with these settings (YAML); its URL. Skips where the Debian package is not installed."""
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("needs the Debian package prometheus")
    (folder / "prometheus.yml").write_text(settings)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [
        binary,
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            _wait_until_ready(url, folder / "log")
            yield url
        finally:
            process.terminate()


def _wait_until_ready(url: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            with urlopen(f"{url}/-/ready", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"Prometheus is not ready: {log.read_text()[-2000:]}")
