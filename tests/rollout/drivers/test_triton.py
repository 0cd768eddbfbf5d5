"""Versions in a real Triton, loaded by Davy; and a stock Triton behind a real Envoy, over gRPC."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from django.utils import timezone

from controlplane.models import Fleet, Model, ModelVersion
from rollout import commands, tick
from rollout.drivers.base import Bundle, DriverError, RouteSpec
from rollout.drivers.envoy.driver import EnvoyDriver
from rollout.drivers.triton import TritonSlot
from rollout.models import ACTIVE, Evidence, Rollout
from tests.ports import free_ports
from tests.rollout import tritons
from tests.rollout.gateway import Gateway, Served, eventually
from tests.rollout.tritons import ARTIFACTS, GrpcUsers, Triton

pytestmark = [pytest.mark.fleet, pytest.mark.django_db]  # all of them, so that they stay together
BY_HAND = {"equal": ("v1", "v1"), "faulty": ("v1", "v1-faulty")}  # model → what a and b serve
FAULTY_SHARE = 0.02
SLOW_SECONDS = 3.0
SLOW = f"""import time
class TritonPythonModel:
    def initialize(self, args):
        time.sleep({SLOW_SECONDS})
    def execute(self, requests):
        return []
"""


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Triton]]:
    with tritons.running(tmp_path_factory.mktemp("tritons"), BY_HAND) as servers:
        yield servers


@pytest.fixture(params=["http", "grpc"])
def slot(servers: dict[str, Triton], request: pytest.FixtureRequest) -> TritonSlot:
    """A slot whose repository Davy fills, loaded over either protocol."""
    server = servers["a"]
    return TritonSlot(server.url, server.repository, server.grpc_address if request.param == "grpc" else None)


def bundle(model: str, artifact: str = "v1") -> Bundle:
    return Bundle(model, artifact, f"{zlib.crc32(artifact.encode()):064x}", lambda: ARTIFACTS / artifact)


# A slot that Davy fills


def test_a_version_is_loaded_replaced_and_released(slot: TritonSlot) -> None:
    first, second = bundle("shoes", "v1"), bundle("shoes", "v2")
    assert not slot.serves(first)
    slot.load(first)
    eventually(lambda: slot.serves(first))
    assert not slot.serves(replace(first, digest="2" * 64))
    assert not slot.serves(replace(first, version="v1-again"))
    slot.load(second)
    eventually(lambda: slot.serves(second))
    assert not slot.serves(first)
    for _ in range(2):
        slot.unload("shoes")
        eventually(lambda: not slot.serves(second))
    assert not (slot.repository / "shoes").exists()


def test_a_slot_that_is_loading_is_left_in_peace(slot: TritonSlot) -> None:
    """Swapping the folder under a server that reads it would make a slow load fail for ever."""
    version = bundle("hats")
    slot.load(version)
    folder = slot.repository / "hats"
    before = folder.stat().st_ino
    replace(slot).load(version)
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    dead = TritonSlot(f"http://{nobody}", slot.repository, slot.grpc_address and nobody)
    with pytest.raises(DriverError, match="no answer"):
        dead.load(version)
    assert folder.stat().st_ino == before
    slot.unload("hats")


def test_a_bundle_that_does_not_load_is_told_with_the_server_s_words(
    slot: TritonSlot, tmp_path: Path
) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "config.pbtxt").write_text('backend: "python"\nmax_batch_size: 8\n')
    (tmp_path / "1" / "model.py").write_text("raise ValueError('broken on purpose')")
    broken = replace(bundle("broken"), fetch=lambda: tmp_path)
    with pytest.raises(DriverError, match="broken on purpose"):
        slot.load(broken)
    assert not slot.serves(broken)
    slot.unload("broken")


def test_loading_a_version_stalls_no_other_model_of_the_server(
    servers: dict[str, Triton], tmp_path: Path
) -> None:
    """Over HTTP it would: the load occupies one of the threads that answer the inference requests."""
    server = servers["a"]
    by_grpc = TritonSlot(server.url, server.repository, server.grpc_address)
    (tmp_path / "1").mkdir()
    (tmp_path / "config.pbtxt").write_text('backend: "python"\nmax_batch_size: 8\n')
    (tmp_path / "1" / "model.py").write_text(SLOW)
    slow = replace(bundle("slow"), fetch=lambda: tmp_path)
    with ThreadPoolExecutor(1) as pool:
        load = pool.submit(by_grpc.load, slow)
        slowest = server.slowest_answer_seconds("equal", while_=lambda: not load.done())
        load.result()
    assert by_grpc.serves(slow)
    by_grpc.unload("slow")
    assert slowest < SLOW_SECONDS / 2


# A stock server behind Envoy, over gRPC


def served(gateway: Gateway, servers: dict[str, Triton], model: str, percent: float) -> Served:
    """A model that both servers have already, through Envoy to their gRPC ports."""
    found = Served(gateway, EnvoyDriver(tritons.config(gateway, servers, protocol="grpc")), model)
    found.split(percent)
    eventually(lambda: gateway.stat(f"cluster.{model}/canary/b-then-a/own.membership_healthy") == 1)
    return found


def test_grpc_requests_are_split_and_pinned_ones_are_no_evidence(
    gateway: Gateway, servers: dict[str, Triton]
) -> None:
    route = served(gateway, servers, "equal", 50)
    users = GrpcUsers(gateway, "equal")
    before = route.arms()
    assert users.send([f"r{i}" for i in range(200)]) == {"OK": 200}
    assert users.send([f"p{i}" for i in range(20)], {"x-davy-pin": "canary"}) == {"OK": 20}
    after = route.arms()
    (canary, canary_failed), (stable, stable_failed) = (
        (after[role][0] - before[role][0], after[role][1] - before[role][1]) for role in ("canary", "stable")
    )
    assert (canary + stable, canary_failed, stable_failed) == (200, 0, 0)
    assert 60 <= canary <= 140


def test_grpc_errors_of_the_canary_count_once_each_and_users_get_the_fallback(
    gateway: Gateway, servers: dict[str, Triton]
) -> None:
    """Triton answers 200 with a grpc-status; which requests fail is known from their ids."""
    route = served(gateway, servers, "faulty", 100)
    ids = [f"request-{i}" for i in range(300)]
    failing = [name for name in ids if zlib.crc32(name.encode()) % 10_000 < FAULTY_SHARE * 10_000]
    assert failing
    before = route.arms()["canary"]
    assert GrpcUsers(gateway, "faulty").send(ids) == {"OK": 300}
    after = route.arms()["canary"]
    assert (after[0] - before[0], after[1] - before[1]) == (300, len(failing))


def test_a_grpc_slot_without_the_model_is_unhealthy_and_its_users_get_the_fallback(
    gateway: Gateway, servers: dict[str, Triton], slot: TritonSlot
) -> None:
    slot.load(bundle("only-a"))
    route = Served(gateway, EnvoyDriver(tritons.config(gateway, servers, protocol="grpc")), "only-a")
    route.split(100)
    eventually(lambda: gateway.stat("cluster.only-a/a.membership_healthy") == 1)
    assert gateway.stat("cluster.only-a/canary/b-then-a/own.membership_healthy") == 0
    before = route.arms()["canary"]
    assert GrpcUsers(gateway, "only-a").send([f"r{i}" for i in range(20)]) == {"OK": 20}
    assert route.arms()["canary"] == (before[0] + 20, before[1] + 20)


def test_a_grpc_route_is_promoted_by_the_router_s_evidence_alone(
    gateway: Gateway, servers: dict[str, Triton]
) -> None:
    model = Model.objects.create(name="equal")
    fleet = Fleet.objects.create(
        name="stock",
        driver="envoy",
        config=tritons.config(gateway, servers, protocol="grpc", assignment="request"),
    )
    for number, name in enumerate(("v1", "v2")):
        version = ModelVersion.objects.create(
            model=model, name=name, artifact_uri="mem:", digest=f"{number:064x}"
        )
        ended = rolled_out(gateway, version, fleet)
        assert ended.state == "promoted", ended.reason
    assert ended.stable is not None
    route = ended.route
    assert (route.stable_id, route.stable_slot) == (ended.version_id, "b")
    sources = Evidence.objects.filter(rollout=ended).values_list("gate", "source")
    assert set(sources) == {("errors", "router")}
    assert EnvoyDriver(fleet.config).observed_weight(RouteSpec("equal", "b")) == 0


def rolled_out(gateway: Gateway, version: ModelVersion, fleet: Fleet) -> Rollout:
    """The rollout at its end, ticked in real time while users send requests."""
    plan = {
        "name": "router-only-quick",
        "steps": [{"weight_percent": 50, "dwell_seconds": 1}],
        "gates": [{"name": "errors", "settings": {"margin_points": {"50": 10.0}}}],
        "watch_seconds": 0,
    }
    rollout, _ = commands.start(version, fleet, commands.read_plan(plan), actor="ann", now=timezone.now())
    users = GrpcUsers(gateway, version.model.name)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        tick.tick(rollout.pk, timezone.now())
        found = commands.find(rollout.pk)
        if found.state not in ACTIVE:
            break
        if found.stable_id is not None:
            assert users.send([f"r{i}" for i in range(60)]) == {"OK": 60}
    return found


def test_a_grpc_canary_that_is_killed_costs_users_nothing_and_every_request_counts(
    gateway: Gateway, servers: dict[str, Triton]
) -> None:
    """The last test here: the server stays dead."""
    route = served(gateway, servers, "faulty", 50)
    users = GrpcUsers(gateway, "faulty")
    servers["b"].kill()
    before = route.arms()
    assert users.send([f"r{i}" for i in range(200)]) == {"OK": 200}
    after = route.arms()
    assigned, failed = (after["canary"][i] - before["canary"][i] for i in (0, 1))
    assert assigned == failed > 0
    assert after["stable"][1] == before["stable"][1]
