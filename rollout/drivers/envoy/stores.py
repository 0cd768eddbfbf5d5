"""Where does what Envoy shall do lie? In files that it watches, or in rows that it asks Davy for."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

from django.db import transaction
from django.db.models import Count, Q, QuerySet

from controlplane.models import Fleet
from rollout.drivers.base import DriverError
from rollout.drivers.envoy import routes as envoy_routes
from rollout.drivers.envoy.routes import KINDS, Json, Kind
from rollout.models import EnvoyNode, EnvoyResource

Change = Callable[[list[Json]], list[Json]]
SEEN_SECONDS = 60.0  # an Envoy that has not asked for so long is not waited for


@dataclass(frozen=True)
class Wanted:
    """A resource as it is stored: its version, since when, and where it lies, in words."""

    version: str
    age_seconds: float
    where: str


class Store(Protocol):
    """What a driver needs of either. Errors are DriverError."""

    @property
    def take_seconds(self) -> float:
        """An Envoy that still has another version after so long has refused it."""
        ...

    def edit(self, model: str, changes: Mapping[Kind, Change]) -> None:
        """Change one model's part of the resources, clusters first; nobody else changes them meanwhile."""
        ...

    def wanted(self, kind: Kind) -> Wanted | None:
        """The present version; None before there is any."""
        ...


@dataclass(frozen=True)
class Files:
    """`clusters.json` and `routes.json` in a folder: read, changed and replaced under a lock in the folder.

    Several workers may move several routes; Envoy sees a change within milliseconds, and after a restart it
    serves the last files.
    """

    directory: Path
    take_seconds: float = 2.0

    def edit(self, model: str, changes: Mapping[Kind, Change]) -> None:
        with self._locked():
            for kind in KINDS:
                if kind in changes:
                    self._replace(kind, model, changes[kind])

    def wanted(self, kind: Kind) -> Wanted | None:
        file = self._file(kind)
        try:
            age_seconds = time.time() - file.stat().st_mtime
            return Wanted(json.loads(file.read_bytes())["version_info"], age_seconds, str(file))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as err:
            raise DriverError(f"{file} cannot be read: {err!r}") from err

    def _file(self, kind: Kind) -> Path:
        return self.directory / f"{kind}.json"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The directory's lock; its file stays, for removing it would let two holders in. Raises DriverError."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with (self.directory / ".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as err:
            raise DriverError(f"cannot write Envoy's files in {self.directory}: {err}") from err

    def _replace(self, kind: Kind, model: str, change: Change) -> None:
        """Change one model's part of a file; Envoy watches the directory and takes atomic renames only."""
        path = self._file(kind)
        old = path.read_bytes() if path.exists() else b""
        new = _changed(str(path), old, kind, model, change)
        if new == old:
            return
        incoming = path.with_name(f".{path.name}.{os.getpid()}")
        with incoming.open("wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        incoming.rename(path)


@dataclass(frozen=True)
class Rows:
    """The same texts in the database, for Envoys that ask (rollout.xds), and what each of them said that it has."""

    fleet: str
    take_seconds: float = 10.0  # they are told within a second, and say so when they ask again

    def edit(self, model: str, changes: Mapping[Kind, Change]) -> None:
        with transaction.atomic():
            fleet = Fleet.objects.filter(name=self.fleet).first()
            if fleet is None:
                raise DriverError(f"no fleet {self.fleet!r}", retry=False)
            for kind in KINDS:
                if kind in changes:
                    self._replace(fleet, kind, model, changes[kind])

    def wanted(self, kind: Kind) -> Wanted | None:
        row = (
            EnvoyResource.objects.filter(fleet__name=self.fleet, kind=kind).only("version", "set_at").first()
        )
        if row is None:
            return None
        age = datetime.now(UTC) - row.set_at
        return Wanted(row.version, age.total_seconds(), f"Davy's {kind} of fleet {self.fleet}")

    def routes(self) -> tuple[str, Json] | None:
        """(version, route configuration) as it is stored; None before there is any."""
        row = EnvoyResource.objects.filter(fleet__name=self.fleet, kind="routes").first()
        return None if row is None else (row.version, json.loads(row.body)["resources"][0])

    def taken(self, kind: Kind, version: str) -> bool:
        """Whether every Envoy that asked within the last minute has this version, and there is one."""
        counted = self._asking(kind).aggregate(every=Count("pk"), have=Count("pk", filter=Q(version=version)))
        return bool(0 < counted["every"] == counted["have"])

    def check_not_refused(self) -> None:
        """Raises DriverError with an Envoy's own words, where one refuses the present version of anything."""
        for kind in KINDS:
            wanted = self.wanted(kind)
            if wanted is None:
                continue
            refusing = self._asking(kind).filter(refused_version=wanted.version)
            first = refusing.order_by("node_id").first()
            if first is not None:
                raise DriverError(
                    f"{refusing.count()} of {self._asking(kind).count()} Envoys serve older {kind} than "
                    f"{wanted.version}: {first.node_id} refused them: {first.refusal}"
                )

    def asking(self) -> int:
        """How many Envoys asked within the last minute."""
        return self._asking("routes").count()

    def _asking(self, kind: Kind) -> QuerySet[EnvoyNode]:
        since = datetime.now(UTC) - timedelta(seconds=SEEN_SECONDS)
        return EnvoyNode.objects.filter(fleet__name=self.fleet, kind=kind, seen_at__gte=since)

    def _replace(self, fleet: Fleet, kind: Kind, model: str, change: Change) -> None:
        EnvoyResource.objects.get_or_create(fleet=fleet, kind=kind, defaults=_nothing(kind))
        row = EnvoyResource.objects.select_for_update().get(fleet=fleet, kind=kind)
        new = _changed(f"what is stored for {fleet}", row.body.encode(), kind, model, change).decode()
        if new != row.body:
            row.body, row.version = new, json.loads(new)["version_info"]
            row.set_at = datetime.now(UTC)
            row.save(update_fields=["body", "version", "set_at"])


def _nothing(kind: Kind) -> dict[str, str]:
    return {"version": "0", "body": envoy_routes.empty(kind).decode()}


def _changed(where: str, old: bytes, kind: Kind, model: str, change: Change) -> bytes:
    try:
        return envoy_routes.with_model(old, kind, model, change)
    except (ValueError, KeyError, TypeError) as err:
        raise DriverError(
            f"{where} is not what Davy wrote ({err!r}); put back what Envoy's /config_dump shows",
            retry=False,
        ) from err
