"""What does an Envoy fleet's config say? Where its Envoys get their routes, where they answer, and the two slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rollout.drivers.envoy.routes import Server
from rollout.drivers.triton import TritonSlot

SLOTS = ("a", "b")
KNOWN = {
    "directory",
    "discovery",
    "admin_urls",
    "protocol",
    "fallback",
    "timeout_seconds",
    "slots",
    "server_note",
    "assignment",
}


@dataclass(frozen=True)
class EnvoyConfig:
    """A fleet's config, checked.

    directory   the folder that the fleet's Envoys watch; None: they ask Davy (`"discovery": "rest"`)
    admin_urls  of all of the fleet's Envoys; empty: Davy cannot reach them, it knows what they report when they ask
    assignment  "key": the header x-davy-key decides the arm, so that a user stays in it; clusters of errors then fall
                into one arm as a whole, and errors count for less unless stable's history shows that there are none.
                "request": the arm is drawn for each request
    """

    directory: Path | None
    admin_urls: tuple[str, ...]
    protocol: str
    fallback: bool
    timeout_seconds: float
    servers: Mapping[str, Server]
    slots: Mapping[str, TritonSlot]
    assignment: str = "key"

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> EnvoyConfig:
        """Read and check a fleet's config. Raises ValueError("<field>: …")."""
        for name in config:
            if name not in KNOWN:
                raise ValueError(f"{name}: unknown; known are {', '.join(sorted(KNOWN))}")
        directory = _directory(config)
        admin_urls = _admin_urls(config.get("admin_urls", []), needed=directory is not None)
        protocol = config.get("protocol", "http")
        if protocol not in ("http", "grpc"):
            raise ValueError(f"protocol: {protocol!r} is neither http nor grpc")
        timeout = config.get("timeout_seconds", 5.0)
        if not isinstance(timeout, int | float) or isinstance(timeout, bool) or not 0.1 <= timeout <= 300:
            raise ValueError("timeout_seconds: a number from 0.1 to 300 is needed")
        servers, slots = _slots(config.get("slots"), protocol)
        fallback = config.get("fallback", True)
        if not isinstance(fallback, bool):
            raise ValueError("fallback: true or false is needed")
        assignment = config.get("assignment", "key")
        if assignment not in ("key", "request"):
            raise ValueError(f"assignment: {assignment!r} is neither key nor request")
        return cls(directory, admin_urls, protocol, fallback, float(timeout), servers, slots, assignment)


def _directory(config: Mapping[str, Any]) -> Path | None:
    """The watched folder; None where the Envoys ask."""
    if config.get("discovery", "files") not in ("files", "rest"):
        raise ValueError(f"discovery: {config['discovery']!r} is neither files nor rest")
    directory = config.get("directory")
    if config.get("discovery") == "rest":
        if directory is not None:
            raise ValueError("directory: Envoys that ask Davy (discovery rest) watch none")
        return None
    if not isinstance(directory, str) or not Path(directory).is_absolute():
        raise ValueError("directory: the absolute path of the folder that Envoy watches is needed")
    return Path(directory)


def _admin_urls(urls: object, *, needed: bool) -> tuple[str, ...]:
    if not isinstance(urls, list) or not all(isinstance(url, str) for url in urls) or (needed and not urls):
        raise ValueError("admin_urls: a list of at least one URL of Envoy's admin interface is needed")
    return tuple(url.rstrip("/") for url in urls)


def _slots(slots: object, protocol: str) -> tuple[dict[str, Server], dict[str, TritonSlot]]:
    if not isinstance(slots, dict) or set(slots) != set(SLOTS):
        raise ValueError("slots: exactly the slots a and b are needed")
    servers, loaders = {}, {}
    for name in SLOTS:
        slot = slots[name]
        if not isinstance(slot, dict) or not isinstance(slot.get("url"), str):
            raise ValueError(f"slots/{name}/url: http://host:port of the slot's model server is needed")
        if protocol == "grpc" and not isinstance(slot.get("grpc_url"), str):
            raise ValueError(f"slots/{name}/grpc_url: host:port is needed with protocol grpc")
        try:
            server = Server.parse(slot["url"], slot.get("grpc_url"))
        except ValueError as err:
            raise ValueError(f"slots/{name}/{err}") from None
        servers[name] = server if protocol == "grpc" else replace(server, grpc_port=None)
        repository = slot.get("repository")
        if repository is not None and not (isinstance(repository, str) and Path(repository).is_absolute()):
            raise ValueError(
                f"slots/{name}/repository: the absolute path of the slot's model folder is needed"
            )
        loaders[name] = TritonSlot(
            slot["url"].rstrip("/"), Path(repository) if repository else None, slot.get("grpc_url")
        )
    return servers, loaders
