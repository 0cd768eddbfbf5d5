"""What shall this Envoy do? Envoy's REST discovery: `POST /v3/discovery:routes` and `:clusters`, held until news.

This stands beside Django, not in it (see controlplane.asgi): Django keeps a thread for each request that is under
way, and every Envoy has two under way all the time. Envoy's Host header, its name for Davy's cluster, means nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from django.db import DatabaseError, IntegrityError, InterfaceError, connection, transaction
from django.utils import timezone

from controlplane import access, alerts
from controlplane.models import Fleet, Severity
from controlplane.problems import Problem, field
from rollout.drivers.envoy import routes
from rollout.drivers.envoy.routes import KINDS, Kind
from rollout.models import EnvoyNode, EnvoyResource
from rollout.xds.board import Ask, AwayError, Board, Key, Report, Resource

log = logging.getLogger(__name__)

PREFIX = "/v3/discovery:"
MOST_BYTES = 256 * 1024
NAME_CHARACTERS = 128
VERSION_CHARACTERS = 64
ERROR_CHARACTERS = 500
ALERT_SECONDS = 10.0  # a wrong token is tried twice a second
NODES_KEPT = timedelta(days=1)

HTTP_TITLES = {
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    422: "Unprocessable Content",
    503: "Service Unavailable",
}
_UNSET = "0"  # the version of what is told before anything was set

Found = TypeVar("Found")
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

_boards: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Board] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Discovery:
    """One DiscoveryRequest, as far as Davy reads it."""

    fleet: str
    token: str
    ask: Ask


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """The ASGI door to everything below `/v3/discovery:`."""
    try:
        kind = _kind(scope)
        asked = parse(await _body(scope, receive))
        found = await _answer(kind, asked)
    except Problem as refusal:
        await _refuse(send, refusal)
    except AwayError:
        away = Problem(503, "database_away", "Davy's database does not answer; keep what you have")
        await _refuse(send, away)
    except asyncio.CancelledError:  # this process is stopped while the Envoy waits: it shall ask another
        await _refuse(send, Problem(503, "stopping", "this process stops; ask again"))
    else:
        if found is None:
            await _send(send, 304, b"", "")
        else:
            await _send(send, 200, found.body, "application/json")


def parse(body: bytes) -> Discovery:
    """Read a DiscoveryRequest (proto3 JSON). Raises Problem naming the wrong field."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise Problem(400, "not_json", f"the body is not JSON: {err}") from None
    if not isinstance(request, dict):
        raise field("", "not_an_object", "a DiscoveryRequest is needed")
    node = _object(request, "node", "/node")
    metadata = _object(node, "metadata", "/node/metadata")
    error = _object(request, "error_detail", "/error_detail").get("message", "")
    return Discovery(
        fleet=_text(metadata, "fleet", "/node/metadata/fleet", NAME_CHARACTERS),
        token=_text(metadata, "token", "/node/metadata/token", NAME_CHARACTERS),
        ask=Ask(
            node=_text(node, "id", "/node/id", NAME_CHARACTERS, least=1),
            version=_text(request, "version_info", "/version_info", VERSION_CHARACTERS),
            error="".join(c if c.isprintable() else " " for c in str(error))[:ERROR_CHARACTERS],
        ),
    )


async def _answer(kind: Kind, asked: Discovery) -> Resource | None:
    board = _board()
    fleet = await board.admit(asked.fleet, asked.token)
    if fleet is None:
        raise Problem(
            403, "wrong_token", "node.metadata needs the fleet's name and a token of scope envoy for it"
        )
    return await board.answer((fleet, kind), asked.ask)


def _board() -> Board:
    """The board of this process (of its event loop)."""
    loop = asyncio.get_running_loop()
    if loop not in _boards:
        _boards[loop] = Board(Database())
    return _boards[loop]


class Database:
    """The board's source. Called in one thread, whose connection stays open."""

    def __init__(self) -> None:
        self._told: dict[str, float] = {}  # fleet → when its alert was last opened

    def exchange(self, reports: Sequence[Report], known: Mapping[Key, str]) -> dict[Key, Resource]:
        """Store the reports; return what is not as known. One query each, a third where something is new."""
        return self._reaching(lambda: self._exchange(reports, known))

    def admit(self, fleet: str, token: str) -> int | None:
        """The fleet's row; None, and the fleet's one alert, when the token is not its own."""
        return self._reaching(lambda: self._admit(fleet, token))

    def forget(self) -> None:
        """Drop Envoys that have not asked for a day."""
        self._reaching(lambda: EnvoyNode.objects.filter(seen_at__lt=timezone.now() - NODES_KEPT).delete())

    def close(self) -> None:
        """Close this thread's connection."""
        connection.close()

    def _exchange(self, reports: Sequence[Report], known: Mapping[Key, str]) -> dict[Key, Resource]:
        if reports:
            _store(reports)
        fleets = {fleet for fleet, _ in known}
        rows = EnvoyResource.objects.filter(fleet__in=fleets).values_list("fleet_id", "kind", "version")
        versions = {(fleet, kind): version for fleet, kind, version in rows}
        changed = {key for key, version in known.items() if versions.get(key, _UNSET) != version}
        found = {key: Resource(_UNSET, routes.empty(key[1])) for key in changed}
        if changed & versions.keys():
            for row in EnvoyResource.objects.filter(fleet__in={fleet for fleet, _ in changed}):
                for key in changed & {(row.fleet_id, row.kind)}:
                    found[key] = Resource(row.version, row.body.encode())
        return found

    def _admit(self, name: str, token: str) -> int | None:
        now = timezone.now()
        opened = access.authenticate_fleet(token, now)
        if opened is not None and opened.name == name:
            return opened.pk
        fleet = Fleet.objects.filter(name=name).first()
        if fleet is not None and time.monotonic() - self._told.get(name, -ALERT_SECONDS) >= ALERT_SECONDS:
            self._told[name] = time.monotonic()
            alerts.open(
                f"envoy/token/{name}",
                severity=Severity.WARNING,
                summary=(
                    f"An Envoy asks for the configuration of fleet {name} with a wrong token since "
                    f"{now:%H:%M:%S} UTC and is refused; give it a token of scope {access.FLEET_SCOPE} for this "
                    "fleet (node.metadata.token), then resolve this alert"
                ),
                now=now,
                fleet=fleet,
            )
        return None

    def _reaching(self, call: Callable[[], Found]) -> Found:
        try:
            return call()
        except (DatabaseError, InterfaceError) as err:
            connection.close()  # the next call makes a new one
            raise AwayError(str(err)) from err


def _store(reports: Sequence[Report]) -> None:
    """Keep what Envoys said; in the order of their keys, so that two processes cannot deadlock."""
    rows = [
        EnvoyNode(
            fleet_id=report.key[0],
            kind=report.key[1],
            node_id=report.node,
            version=report.version,
            refused_version=report.refused_version,
            refusal=report.refusal,
            seen_at=datetime.fromtimestamp(report.at, UTC),
        )
        for report in sorted(reports, key=lambda report: (report.key, report.node))
    ]
    try:
        with transaction.atomic():
            EnvoyNode.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["fleet", "kind", "node_id"],
                update_fields=["version", "refused_version", "refusal", "seen_at"],
            )
    except IntegrityError as err:
        log.warning("reports of a fleet that is gone are left out: %s", err)


def _kind(scope: Scope) -> Kind:
    for kind in KINDS:
        if scope["path"] == PREFIX + kind:
            if scope["method"] != "POST":
                raise Problem(405, "method_not_allowed", f"{scope['method']} is not possible here; POST is")
            return kind
    raise Problem(404, "not_found", f"nothing at {scope['path']}")


async def _body(scope: Scope, receive: Receive) -> bytes:
    """The body, of which no more than MOST_BYTES are read. Raises Problem (413)."""
    too_large = Problem(413, "body_too_large", f"a DiscoveryRequest may hold {MOST_BYTES} bytes")
    announced = dict(scope["headers"]).get(b"content-length", b"0")
    if not announced.isdigit() or int(announced) > MOST_BYTES:
        raise too_large
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MOST_BYTES:
            raise too_large
    return body


async def _send(send: Send, status: int, body: bytes, content_type: str) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    if content_type:
        headers.append((b"content-type", content_type.encode()))
    if status == 405:
        headers.append((b"allow", b"POST"))
    if status == 413:
        headers.append((b"connection", b"close"))  # the rest of the body is not read
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _refuse(send: Send, refusal: Problem) -> None:
    content = {
        "type": "about:blank",
        "title": HTTP_TITLES.get(refusal.status, ""),
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
        "errors": list(refusal.errors),
    }
    await _send(send, refusal.status, json.dumps(content).encode(), "application/problem+json")


def _object(parent: Mapping[str, Any], name: str, pointer: str) -> dict[str, Any]:
    value = parent.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise field(pointer, "not_an_object", "an object is needed")
    return value


def _text(parent: Mapping[str, Any], name: str, pointer: str, most: int, least: int = 0) -> str:
    value = parent.get(name, "")
    if not isinstance(value, str) or not least <= len(value) <= most or not value.isprintable():
        raise field(pointer, "bad_text", f"text of {least} to {most} printable characters is needed")
    return value
