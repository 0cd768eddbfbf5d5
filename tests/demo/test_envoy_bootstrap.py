"""The bootstrap starts a real Envoy that follows its two files."""

import itertools
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from demo import envoy_bootstrap, fleet_venv, leftovers, places, running
from demo.places import Places
from demo.processes import Plan, envoy
from demo.supervision import Supervisor
from tests.ports import free_ports

PORTS = ("web", "gateway", "envoy_admin", "triton_a", "triton_b", "mlflow", "images")


def test_latency_buckets_are_fine_enough_to_tell_15_percent() -> None:
    edges = envoy_bootstrap.latency_buckets_ms()
    assert len(edges) >= 40
    assert edges[:10] == list(range(1, 11))
    assert all(right / left < 1.21 for left, right in itertools.pairwise(edges[9:]))
    assert edges[-1] > 50_000


def test_files_that_exist_are_left_alone(tmp_path) -> None:
    (tmp_path / "routes.json").write_text("mine")
    envoy_bootstrap.write(tmp_path / "b.json", gateway_port=1, admin_port=2, folder=tmp_path)
    assert (tmp_path / "routes.json").read_text() == "mine"
    assert json.loads((tmp_path / "clusters.json").read_text())["resources"] == []


def test_clusters_follow_servers_that_moved(tmp_path) -> None:
    route_everything_to(tmp_path, 8500)
    envoy_bootstrap.move_servers(tmp_path, {8500: 8510, 8510: 8520})
    text = (tmp_path / "clusters.json").read_text()
    assert '"port_value": 8510' in text
    assert '"address": "127.0.0.1"' in text


@pytest.fixture
def plan() -> Plan:
    chosen = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
    return Plan(ports=chosen, server="triton", own_broker=False, mlflow_uri="", traffic=False)


@pytest.fixture
def supervisor(tmp_path, plan) -> Iterator[Supervisor]:
    here = Places(tmp_path / "var")
    here.make()
    if not fleet_venv.envoy_binary(here).exists():
        pytest.skip("no .venv-fleet: run `make test`")
    envoy_bootstrap.write(
        here.run / "envoy.json",
        gateway_port=plan.ports["gateway"],
        admin_port=plan.ports["envoy_admin"],
        folder=here.envoy,
    )
    process = envoy(here, plan)
    supervisor = Supervisor(here)
    supervisor.launch([process], {**os.environ, leftovers.MARK: str(here.var)})
    supervisor.start(["envoy"])
    eventually(lambda: get(process.ready_url)[0] == 200)
    yield supervisor
    running.stop_all(here)


@pytest.fixture
def backend() -> Iterator[int]:
    class Hello(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hello)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def get(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, b""
    except OSError:
        return 0, b""


def eventually(holds: Callable[[], bool], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not come to hold"
        time.sleep(0.01)


def replace(folder: Path, name: str, content: dict[str, Any]) -> None:
    fresh = folder / f".{name}.new"
    fresh.write_text(json.dumps(content))
    fresh.rename(folder / name)


def route_everything_to(folder: Path, port: int) -> None:
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    cluster = {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "hello",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "hello",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    replace(folder, "clusters.json", {"version_info": "1", "resources": [cluster]})
    routes = envoy_bootstrap.empty_routes()
    routes["version_info"] = "1"
    routes["resources"][0]["virtual_hosts"] = [
        {
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "hello"}}],
        }
    ]
    replace(folder, "routes.json", routes)


@pytest.mark.fleet
def test_envoy_follows_renamed_files_and_serves_them_after_a_restart(
    supervisor, plan, backend, tmp_path
) -> None:
    gateway = plan.gateway_url + "/x"
    eventually(lambda: get(gateway)[0] == 404)  # nothing is routed yet
    route_everything_to(tmp_path / "var" / "fleet" / "envoy", backend)
    eventually(lambda: get(gateway) == (200, b"hello"))
    admin = f"http://127.0.0.1:{plan.ports['envoy_admin']}"
    assert b'version_text: "1"' in get(f"{admin}/stats?filter=^http.davy.rds.davy.version_text$")[1]
    supervisor.stop("envoy")
    supervisor.start(["envoy"])
    eventually(lambda: get(gateway) == (200, b"hello"))


@pytest.mark.fleet
def test_envoy_leaves_no_shared_memory_that_another_envoy_would_meet(supervisor) -> None:
    pid = supervisor.processes()["envoy"]["pid"]
    with open(f"/proc/{pid}/maps") as maps:
        assert "envoy_shared_memory" not in maps.read()


def test_the_places_of_this_checkout_follow_the_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DAVY_VAR", str(tmp_path))
    assert places.here().var == tmp_path.resolve()
