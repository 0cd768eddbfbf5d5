"""Claims about calls to a Kubernetes API server: real refusals, servers that are away, hang, or are something else."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.test import override_settings

from controlplane import fleets, sealing
from controlplane.models import Model, ModelVersion
from rollout import commands, leases, tick
from rollout.drivers.base import DriverError
from rollout.drivers.kube import api
from rollout.drivers.kube.api import Cluster, Conflict, path_of
from rollout.drivers.kube.config import SECRET_FIELDS, Access
from tests.ports import free_ports
from tests.rollout.kube import Kube
from tests.rollout.kube_fleets import deployment, httproute
from tests.rollout.scene import PLAN

QUICK_SECONDS = 0.3
CALL_SECONDS = api.CALL_SECONDS
DEPLOYMENTS = path_of("apis/apps/v1", "default", "deployments")


def cluster(server: str, **changes: Any) -> Cluster:
    return Cluster(Access.parse({"credentials": {"server": server, "token": "t", **changes}}))


def refused(call: Any) -> DriverError:
    with pytest.raises(DriverError) as error:
        call()
    return error.value


@pytest.fixture
def real(kube: Kube) -> Cluster:
    return Cluster(Access.parse(kube.credentials()))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "CALL_SECONDS", QUICK_SECONDS)


# A real API server


@pytest.mark.system
def test_each_way_of_naming_the_cluster_leads_there(kube: Kube, tmp_path: Any) -> None:
    file = tmp_path / "config"
    file.write_text(kube.kubeconfig())
    sealed = sealing.seal_text(kube.token)
    for config in (
        kube.credentials(),
        {"credentials": kube.credentials()["credentials"] | {"token": sealed}},
        {"kubeconfig": kube.kubeconfig()},
        {"kubeconfig_file": str(file)},
    ):
        assert Cluster(Access.parse(config)).get(DEPLOYMENTS)


@pytest.mark.system
def test_a_kubeconfig_file_that_changes_is_read_again(kube: Kube, tmp_path: Any) -> None:
    file = tmp_path / "config"
    file.write_text(kube.kubeconfig(token="expired"))
    found = Cluster(Access.parse({"kubeconfig_file": str(file)}))
    assert not refused(lambda: found.get(DEPLOYMENTS)).retry
    file.write_text(kube.kubeconfig())
    assert found.get(DEPLOYMENTS)


@pytest.mark.system
def test_a_server_whose_certificate_is_not_the_fleet_s_is_refused_for_good(kube: Kube) -> None:
    error = refused(cluster(kube.url, token=kube.token).version)
    assert not error.retry
    assert "certificate" in str(error).lower()


@pytest.mark.system
@pytest.mark.parametrize(("token", "status"), [("{}-wrong", 401), ("{}-nobody", 403)])
def test_who_may_not_is_told_so_for_good(kube: Kube, token: str, status: int) -> None:
    nobody = Cluster(Access.parse(kube.credentials(token=token.format(kube.token))))
    error = refused(lambda: nobody.get(path_of("apis/apps/v1", "default", "deployments", "x")))
    assert (error.retry, f" {status} " in str(error)) == (False, True)


@pytest.mark.system
def test_what_the_schema_refuses_is_told_in_its_words_for_good(kube: Kube, real: Cluster) -> None:
    space = kube.namespace()
    space.make("httproutes", httproute("r"))
    body = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute"}
    body |= {
        "metadata": {"name": "r"},
        "spec": {"rules": [{"backendRefs": [{"name": "s", "weight": 2_000_000}]}]},
    }
    error = refused(lambda: real.apply(space.path("httproutes", "r"), body))
    assert not error.retry
    assert "spec.rules.backendRefs.weight" in str(error)


@pytest.mark.system
def test_an_object_that_was_changed_since_it_was_read_is_a_conflict(kube: Kube, real: Cluster) -> None:
    space = kube.namespace()
    made = space.make("deployments", deployment("d"))
    space.edit("deployments", "d", {"metadata": {"labels": {"by": "hand"}}})
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"], "labels": {"by": "davy"}}}
    error = refused(lambda: real.merge(space.path("deployments", "d"), stale))
    assert isinstance(error, Conflict)
    assert error.retry


@pytest.mark.system
def test_an_object_that_is_not_there_is_none_but_an_unknown_kind_is_an_error(
    kube: Kube, real: Cluster
) -> None:
    assert real.get(path_of("apis/apps/v1", "default", "deployments", "none")) is None
    error = refused(lambda: real.get(path_of("apis/example.com/v1", "default", "things", "none")))
    assert not error.retry


# Servers that are none


def test_a_server_that_is_away_may_be_back_at_the_next_tick() -> None:
    error = refused(cluster(f"https://127.0.0.1:{free_ports(1)[0]}").version)
    assert error.retry
    assert "127.0.0.1" in str(error)


def test_a_server_that_hangs_is_waited_for_once_and_not_long(quick: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        begun = time.monotonic()
        error = refused(cluster(f"http://127.0.0.1:{hanging.getsockname()[1]}").version)
    assert error.retry
    assert time.monotonic() - begun < 3 * QUICK_SECONDS


@pytest.mark.django_db
def test_a_tick_on_a_cluster_that_hangs_ends_within_its_lease_and_says_why(quick: None) -> None:
    """It stops reading at the first call that is not answered, and applying at the next."""
    model, now = Model.objects.create(name="products"), datetime(2026, 11, 20, tzinfo=UTC)
    version = ModelVersion.objects.create(model=model, name="v1", artifact_uri="mem:v1", digest="1" * 64)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        access = {"server": f"http://127.0.0.1:{hanging.getsockname()[1]}", "token": "t"}
        names = {"namespace": "n", "service": "{model}", "storage_uri": "s3://{version}"}
        fleet, _ = fleets.save("k8s", "kserve", {"credentials": access, **names}, SECRET_FIELDS, actor="ann")
        plan = commands.read_plan(PLAN)
        rollout, _ = commands.start(version, fleet, plan, actor="ann", now=now)
        assert tick.tick(rollout.pk, now)
        hanging.setblocking(False)
        calls = 0
        with contextlib.suppress(BlockingIOError):
            while hanging.accept():
                calls += 1
    assert 0 < calls * CALL_SECONDS < leases.LEASE.total_seconds()
    assert "no answer from http://127.0.0.1" in commands.find(rollout.pk).trouble


@pytest.fixture
def answering() -> Iterator[Any]:
    """A server that sends some bytes at each connection, in pieces with a pause; returns its URL."""
    listening, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def answer(pieces: list[bytes], pause_seconds: float) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            for piece in pieces:
                if over.wait(pause_seconds):
                    return
                try:
                    connection.sendall(piece)
                except OSError:
                    return

    def start(pieces: list[bytes], pause_seconds: float = 0.0) -> str:
        threading.Thread(target=answer, args=(pieces, pause_seconds), daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    over.set()
    listening.close()


def test_a_server_that_sends_a_byte_at_a_time_is_not_waited_for(quick: None, answering: Any) -> None:
    drops = [b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", *[b" "] * 1000]
    begun = time.monotonic()
    error = refused(cluster(answering(drops, QUICK_SECONDS / 6)).version)
    assert error.retry
    assert time.monotonic() - begun < 4 * QUICK_SECONDS


@pytest.mark.parametrize(
    ("status", "retry"), [("200 OK", False), ("302 Found", False), ("429 Slow", True), ("503 Away", True)]
)
def test_a_server_that_speaks_no_kubernetes_is_an_error(answering: Any, status: str, retry: bool) -> None:
    page = b"<html>hello</html>"
    head = f"HTTP/1.1 {status}\r\nLocation: /elsewhere\r\nContent-Length: {len(page)}\r\n\r\n".encode()
    error = refused(cluster(answering([head + page])).version)
    assert error.retry is retry
    assert "<html>hello" in str(error)


def test_a_secret_of_another_secret_key_says_what_to_do() -> None:
    with override_settings(SECRET_KEY="another key of more than thirty-two characters"):
        token = sealing.seal_text("t")
    error = refused(cluster("https://127.0.0.1:1", token=token).version)
    assert not error.retry
    assert "configure the fleet again" in str(error)


def test_outside_a_pod_in_cluster_leads_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    error = refused(Cluster(Access.parse({"in_cluster": True})).version)
    assert not error.retry
