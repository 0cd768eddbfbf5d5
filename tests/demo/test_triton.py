"""The start of a real Triton: empty repositories, broken models, kill -9, and the headers that models see."""

import json
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from demo import credentials, fleet_venv, leftovers, running, triton
from demo.places import Places
from demo.processes import Plan, model_server
from demo.supervision import Supervisor
from tests.ports import free_row

CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [ 1 ] }]
output [{ name: "y" data_type: TYPE_STRING dims: [ 1 ] }]
instance_group [{ kind: KIND_CPU count: 1 }]
"""
ECHO = """
import os
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        text = [request.parameters() + os.environ["DAVY_TOKEN"] for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", np.array([[t]], dtype=object))]) for t in text]
"""
REQUEST = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1]}]}


@pytest.fixture
def here(tmp_path) -> Iterator[Places]:
    place = Places(tmp_path / "var")
    place.make()
    if fleet_venv.why_no_triton(place):
        pytest.skip(fleet_venv.why_no_triton(place))
    credentials.write(place.credentials_file, {"DAVY_TOKEN": "admin", "DAVY_TELEMETRY_TOKEN": "secret-7"})
    yield place
    running.stop_all(place)
    assert not list(triton.SHARED_MEMORY.glob(triton.shared_memory_prefix(place, "a") + "*"))


@pytest.fixture
def port() -> int:
    return free_row(3)


def add_model(here: Places, name: str, source: str) -> None:
    folder = here.repository("a") / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG)
    (folder / "1" / "model.py").write_text(source)


def launch(here: Places, port: int) -> Supervisor:
    plan = Plan({"triton_a": port}, "triton", own_broker=False, mlflow_uri="", traffic=False)
    supervisor = Supervisor(here)
    marked = {**os.environ, leftovers.MARK: str(here.var), "DAVY_VAR": str(here.var)}
    supervisor.launch([model_server(here, plan, "a")], marked)
    supervisor.start(["triton-a"])
    eventually(lambda: call(port, "health/ready") is not None)
    return supervisor


def call(port: int, path: str, body: object = None, headers: dict[str, str] | None = None) -> bytes | None:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v2/{path}", data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bytes(reply.read())
    except OSError:
        return None


def eventually(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.05)


@pytest.mark.fleet
def test_an_empty_repository_is_served_and_models_are_loaded_later(here, port) -> None:
    launch(here, port)
    add_model(here, "late", ECHO)
    assert call(port, "repository/models/late/load", {}) is not None
    assert call(port, "models/late/ready") is not None


@pytest.mark.fleet
def test_after_kill_9_every_model_is_back_and_a_broken_one_takes_none_down(here, port) -> None:
    add_model(here, "echo", ECHO)
    add_model(here, "broken", "raise ValueError('broken on purpose')")
    supervisor = launch(here, port)
    first = supervisor.processes()["triton-a"]["pid"]
    os.kill(first, signal.SIGKILL)
    eventually(lambda: supervisor.processes()["triton-a"]["pid"] not in {0, first})
    eventually(lambda: call(port, "models/echo/infer", REQUEST) is not None)
    assert call(port, "models/broken/ready") is None


@pytest.mark.fleet
def test_davy_headers_and_the_telemetry_token_reach_the_model(here, port) -> None:
    add_model(here, "echo", ECHO)
    launch(here, port)
    answer = call(port, "models/echo/infer", REQUEST, {"x-davy-purpose": "live", "x-other": "1"})
    text = json.loads(answer or b"{}")["outputs"][0]["data"][0]
    parameters, _, token = text.partition("}")
    # names keep the sender's case; urllib capitalises, Envoy sends lower case
    assert json.loads((parameters + "}").lower()) == {"x-davy-purpose": "live"}
    assert token == "secret-7"


def test_two_checkouts_never_share_memory_names(tmp_path) -> None:
    assert triton.shared_memory_prefix(Places(tmp_path / "a"), "a") != triton.shared_memory_prefix(
        Places(tmp_path / "b"), "a"
    )
