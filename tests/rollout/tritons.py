"""Two real Tritons, one for each slot, with HTTP and gRPC; and users who speak gRPC through the gateway."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from demo import fleet_venv, triton
from demo.places import ROOT, Places
from tests.ports import free_row
from tests.rollout.gateway import Gateway, eventually

ARTIFACTS = ROOT / "demo" / "artifacts"
START_SECONDS = 120.0  # on a busy machine
_PIXELS = {"name": "image", "shape": [1, 28, 28], "datatype": "UINT8", "data": [0] * 28 * 28}
INFERENCE = json.dumps({"inputs": [_PIXELS]})


@dataclass
class Triton:
    """The server of one slot."""

    here: Places
    slot: str
    port: int = field(default_factory=lambda: free_row(3))
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.port + 1}"

    @property
    def repository(self) -> Path:
        return self.here.repository(self.slot)

    def put(self, model: str, artifact: str) -> None:
        """Put a model into the repository by hand, as an operator of a stock server does."""
        shutil.copytree(ARTIFACTS / artifact, self.repository / model)

    def start(self) -> None:
        with (self.here.log / f"{self.slot}.log").open("ab") as log:
            self.process = subprocess.Popen(
                triton.command(self.here, self.slot, self.port),
                env=triton.environment(self.here, os.environ),
                start_new_session=True,
                stdout=log,
                stderr=log,
            )

    def has(self, path: str) -> bool:
        """Whether it answers 200 to a GET of the path below /v2/."""
        try:
            with urllib.request.urlopen(f"{self.url}/v2/{path}", timeout=5):
                return True
        except OSError:
            return False

    def slowest_answer_seconds(self, model: str, while_: Callable[[], bool], connections: int = 8) -> float:
        """The longest that any of so many users, on a connection each, waited for an answer over HTTP."""
        with ThreadPoolExecutor(connections) as pool:
            return max(pool.map(lambda _: self._slowest(model, while_), range(connections)))

    def _slowest(self, model: str, while_: Callable[[], bool]) -> float:
        slowest = 0.0
        with contextlib.closing(HTTPConnection("127.0.0.1", self.port)) as connection:
            while while_():
                begun = time.monotonic()
                connection.request("POST", f"/v2/models/{model}/infer", INFERENCE)
                reply = connection.getresponse()
                reply.read()
                assert reply.status == 200
                slowest = max(slowest, time.monotonic() - begun)
        return slowest

    def kill(self) -> None:
        """kill -9, the Python stubs of its models too."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(30)
            self.process = None
        triton.clear_shared_memory(self.here, self.slot)


@contextlib.contextmanager
def running(folder: Path, models: dict[str, tuple[str, str]]) -> Iterator[dict[str, Triton]]:
    """Tritons a and b that serve, by hand, each model's pair of artifacts; skips where Triton cannot run."""
    here = Places(folder / "var")
    here.make()
    if fleet_venv.why_no_triton(here):
        pytest.skip(fleet_venv.why_no_triton(here))
    tritons = {slot: Triton(here, slot) for slot in ("a", "b")}
    try:
        for place, server in enumerate(tritons.values()):
            for model, artifacts in models.items():
                server.put(model, artifacts[place])
            server.start()
        for server in tritons.values():
            wanted = ["health/ready", *(f"models/{model}/ready" for model in models)]
            eventually(lambda s=server, w=wanted: all(map(s.has, w)), START_SECONDS)
        yield tritons
    finally:
        for server in tritons.values():
            server.kill()


def config(gateway: Gateway, tritons: dict[str, Triton], **changes: Any) -> dict[str, Any]:
    """The config of a fleet on these servers without their repositories: they serve what they serve."""
    slots = {name: {"url": server.url, "grpc_url": server.grpc_address} for name, server in tritons.items()}
    return {"directory": str(gateway.folder), "admin_urls": [gateway.admin_url], "slots": slots, **changes}


def image(request_id: str) -> np.ndarray:
    return np.random.default_rng(len(request_id)).integers(0, 255, (1, 28, 28), dtype=np.uint8)


@dataclass
class GrpcUsers:
    """Users of one model who speak gRPC; a header tells the gateway which model it is."""

    gateway: Gateway
    model: str

    def send(
        self, ids: list[str], headers: dict[str, str] | None = None, *, at_once: int = 4
    ) -> Counter[str]:
        """One request for each id; how many got which gRPC status."""
        with ThreadPoolExecutor(at_once) as pool:
            parts = pool.map(lambda i: self._one_user(ids[i::at_once], headers or {}), range(at_once))
            return sum(parts, Counter())

    def _one_user(self, ids: list[str], headers: dict[str, str]) -> Counter[str]:
        url = f"127.0.0.1:{self.gateway.gateway_port}"
        with contextlib.closing(tritonclient.grpc.InferenceServerClient(url)) as client:
            return Counter(self._ask(client, name, {"x-davy-model": self.model, **headers}) for name in ids)

    def _ask(self, client: Any, request_id: str, headers: dict[str, str]) -> str:
        part = tritonclient.grpc.InferInput("image", [1, 28, 28], "UINT8")
        part.set_data_from_numpy(image(request_id))
        try:
            answer = client.infer(
                self.model, [part], request_id=request_id, headers=headers, client_timeout=30
            )
        except InferenceServerException as error:
            return str(error.status())
        assert answer.as_numpy("probabilities").shape == (1, 10)
        return "OK"
