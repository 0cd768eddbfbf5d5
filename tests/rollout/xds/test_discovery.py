"""What Envoys hear at the door: refusals that name the field, and answers from the database, each stored once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane import access
from controlplane.asgi import application
from controlplane.models import Alert, Fleet, User
from controlplane.problems import Problem
from rollout.drivers.base import DriverError, RouteSpec
from rollout.drivers.envoy.driver import DistantEnvoyDriver
from rollout.models import EnvoyNode, EnvoyResource
from rollout.xds import discovery
from tests.rollout.gateway import eventually

ROUTE = RouteSpec("shoes", "a")
SLOTS = {name: {"url": f"http://127.0.0.1:{port}"} for name, port in (("a", 1), ("b", 2))}


@dataclass
class Heard:
    """One answer."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    reads: int = 0

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


async def post(
    body: bytes, path: str = "routes", *, method: str = "POST", length: bytes | None = None, parts: int = 1
) -> Heard:
    """One request at the application's door, its body in so many parts."""
    heard = Heard()
    size = -(-len(body) // parts) or 1
    chunks = [body[i : i + size] for i in range(0, max(1, len(body)), size)]

    async def receive() -> dict[str, Any]:
        heard.reads += 1
        return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            heard.status, heard.headers = message["status"], dict(message["headers"])
        else:
            heard.body += message["body"]

    headers = [(b"host", b"davy")] + ([(b"content-length", length)] if length else [])
    scope = {"type": "http", "method": method, "path": f"/v3/discovery:{path}", "headers": headers}
    await application(scope, receive, send)
    return heard


def request(token: str, version: str = "", fleet: str = "shop", node: str = "edge-1", **more: Any) -> bytes:
    metadata = {"fleet": fleet, "token": token}
    return json.dumps({"version_info": version, "node": {"id": node, "metadata": metadata}, **more}).encode()


async def stored(**what: str) -> None:
    """Wait until an Envoy's row says so."""
    await asyncio.to_thread(eventually, lambda: EnvoyNode.objects.filter(**what).exists())


def played(scene: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        await scene()

    asyncio.run(asyncio.wait_for(run(), 30))


# The request


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/node/id"),
        ({"node": 5}, "/node"),
        ({"node": {"id": ""}}, "/node/id"),
        ({"node": {"id": "x" * 129}}, "/node/id"),
        ({"node": {"id": "a\nb"}}, "/node/id"),
        ({"node": {"id": "a\x00"}}, "/node/id"),
        ({"node": {"id": "\ud800"}}, "/node/id"),
        ({"node": {"id": "e", "metadata": []}}, "/node/metadata"),
        ({"node": {"id": "e", "metadata": {"token": 5}}}, "/node/metadata/token"),
        ({"node": {"id": "e", "metadata": {"fleet": "x" * 129}}}, "/node/metadata/fleet"),
        ({"node": {"id": "e"}, "version_info": 5}, "/version_info"),
        ({"node": {"id": "e"}, "version_info": "v" * 65}, "/version_info"),
        ({"node": {"id": "e"}, "error_detail": "bad"}, "/error_detail"),
        ([], ""),
        (5, ""),
    ],
)
def test_a_bad_request_names_its_field(body: Any, pointer: str) -> None:
    with pytest.raises(Problem) as refused:
        discovery.parse(json.dumps(body).encode())
    assert (refused.value.status, refused.value.errors[0]["pointer"]) == (422, pointer)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_told(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        discovery.parse(body)
    assert refused.value.status == 400


@given(st.text(max_size=600))
def test_an_error_is_kept_as_text_that_can_be_stored(text: str) -> None:
    asked = discovery.parse(request("", error_detail={"message": text}))
    assert asked.ask.error.isprintable()
    assert len(asked.ask.error) <= discovery.ERROR_CHARACTERS


def test_a_body_over_the_limit_is_refused_before_it_is_read() -> None:
    async def scene() -> None:
        announced = await post(b"x", length=str(discovery.MOST_BYTES + 1).encode())
        assert (announced.status, announced.reads) == (413, 0)
        streamed = await post(b"x" * 4 * discovery.MOST_BYTES, parts=16)
        assert (streamed.status, streamed.reads) == (413, 5)
        assert streamed.headers[b"connection"] == b"close"
        assert (await post(b"x", length=b"many")).status == 413

    played(scene)


def test_refusals_are_problems() -> None:
    async def scene() -> None:
        heard = await post(b"{}")
        assert heard.headers[b"content-type"] == b"application/problem+json"
        assert (heard.status, heard.json["errors"][0]["pointer"]) == (422, "/node/id")
        wrong = await post(b"{}", method="GET")
        assert (wrong.status, wrong.headers[b"allow"]) == (405, b"POST")
        assert (await post(b"{}", path="listeners")).status == 404

    played(scene)


# The answer


@pytest.fixture
def fleet(transactional_db: None) -> Fleet:
    config = {"discovery": "rest", "slots": SLOTS}
    return Fleet.objects.create(name="shop", driver="envoy", config=config)


@pytest.fixture
def token(fleet: Fleet) -> str:
    return token_of(fleet)


def token_of(fleet: Fleet | None, *scopes: str) -> str:
    user, _ = User.objects.get_or_create(username="ann")
    return access.create_token(user, "edge", scopes or [access.FLEET_SCOPE], fleet=fleet)[1]


def by_reports(fleet: Fleet) -> DistantEnvoyDriver:
    return DistantEnvoyDriver(fleet.config, fleet.name)


def test_an_envoy_is_told_what_the_driver_has_set(fleet: Fleet, token: str) -> None:
    by_reports(fleet).set_weight(ROUTE, 25)
    rows = {row.kind: row for row in EnvoyResource.objects.all()}

    async def scene() -> None:
        for kind in ("routes", "clusters"):
            heard = await post(request(token), kind)
            assert (heard.status, heard.body.decode()) == (200, rows[kind].body)
            assert heard.json["version_info"] == rows[kind].version

    played(scene)


def test_before_anything_was_set_an_envoy_starts_with_nothing(fleet: Fleet, token: str) -> None:
    async def scene() -> None:
        assert (await post(request(token), "clusters")).json["resources"] == []
        (routes,) = (await post(request(token))).json["resources"]
        assert routes["virtual_hosts"][0]["routes"] == []

    played(scene)


def test_a_change_wakes_who_waits(fleet: Fleet, token: str) -> None:
    by_reports(fleet).set_weight(ROUTE, 25)

    async def scene() -> None:
        first = (await post(request(token))).json["version_info"]
        waiting = asyncio.create_task(post(request(token, first)))
        await stored(version=first)
        assert not waiting.done()
        await asyncio.to_thread(by_reports(fleet).set_weight, ROUTE, 50)
        assert (await waiting).json["version_info"] != first

    played(scene)


def test_what_an_envoy_said_is_one_row_a_kind_and_confirms_the_weight(fleet: Fleet, token: str) -> None:
    by_reports(fleet).set_weight(ROUTE, 25)
    wanted = EnvoyResource.objects.get(kind="routes").version

    async def scene() -> None:
        for version in ("", wanted):
            asking = asyncio.create_task(post(request(token, version)))
            await stored(version=version)
            asking.cancel()
            await asking

    played(scene)
    assert EnvoyNode.objects.count() == 1
    assert by_reports(fleet).observed_weight(ROUTE) == 25


def test_one_that_refuses_is_a_driver_error_with_its_words(fleet: Fleet, token: str) -> None:
    by_reports(fleet).set_weight(ROUTE, 25)

    async def scene() -> None:
        refusing = asyncio.create_task(post(request(token, "old", error_detail={"message": "no domains"})))
        await stored(refusal="no domains")
        refusing.cancel()
        await refusing

    played(scene)
    with pytest.raises(DriverError, match="edge-1 refused them: no domains"):
        by_reports(fleet).observed_weight(ROUTE)


def test_an_envoy_of_a_fleet_that_is_deleted_while_it_asks_disturbs_nobody(fleet: Fleet, token: str) -> None:
    async def scene() -> None:
        await post(request(token))
        await asyncio.to_thread(fleet.delete)
        assert (await post(request(token, node="edge-2"))).status == 200

    played(scene)
    assert not EnvoyNode.objects.exists()


# Tokens


def test_other_tokens_open_nothing_and_the_fleet_has_one_alert(fleet: Fleet, token: str) -> None:
    other = Fleet.objects.create(name="other", driver="envoy", config=fleet.config)
    revoked = token_of(fleet)
    access.Token.objects.filter(public_id=revoked.split("_")[1]).update(revoked_at=fleet.created_at)
    wrong = ["", "nonsense", token_of(other), token_of(None, "admin"), revoked, token + "x"]

    async def scene() -> None:
        for text in wrong:
            heard = await post(request(text))
            assert (heard.status, heard.json["code"]) == (403, "wrong_token")
        assert (await post(request(token, fleet="other"))).status == 403
        assert (await post(request(token, fleet="nowhere"))).status == 403

    played(scene)
    assert sorted(alert.fleet.name for alert in Alert.objects.filter(resolved_at=None)) == ["other", "shop"]
    assert not EnvoyNode.objects.exists()


def test_a_fleet_s_token_opens_nothing_else(fleet: Fleet, token: str, client: Any) -> None:
    answer = client.get("/api/v1/fleets", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 403
