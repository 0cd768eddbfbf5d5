"""Which worker has a rollout for now, and what did it read when it took it?

A lease keeps two workers from doing the same work; it ends by itself when its worker dies. That two never both act is
the revision's business (journal.save).
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

from django.db import connection
from django.db import models as orm
from django.db.models import Value
from django.db.models.functions import NullIf

from controlplane.models import Fleet, Model, ModelVersion, Route
from rollout.models import ACTIVE, Rollout

LEASE = timedelta(seconds=20)

_VERSION = ("id", "model_id", "name", "artifact_uri", "digest")
#: What a tick reads of each row, by the row's name in the statement; what stands elsewhere is loaded when asked for.
_READ: dict[str, tuple[type[orm.Model], tuple[str, ...]]] = {
    "rollout": (Rollout, tuple(f.attname for f in Rollout._meta.concrete_fields if f.name != "gates")),
    "route": (Route, tuple(f.attname for f in Route._meta.concrete_fields if f.name != "created_at")),
    "model": (Model, ("id", "name")),
    "fleet": (Fleet, ("id", "name", "driver", "config")),
    "version": (ModelVersion, _VERSION),
    "stable": (ModelVersion, _VERSION),
}
_COLUMNS = ", ".join(
    f"{row}.{column} AS {row}_{column}" for row, (_, columns) in _READ.items() for column in columns
)
#: One statement, so that a tick pays for one. The lease is only taken of the very row that was read: a statement that
#: waited for somebody's commit sees that rollout anew, but not its route.
_TAKE = f"""
WITH seen AS (
    SELECT {_COLUMNS}
    FROM rollout_rollout AS rollout
    JOIN controlplane_route AS route ON route.id = rollout.route_id
    JOIN controlplane_model AS model ON model.id = route.model_id
    JOIN controlplane_fleet AS fleet ON fleet.id = route.fleet_id
    JOIN controlplane_modelversion AS version ON version.id = rollout.version_id
    LEFT JOIN controlplane_modelversion AS stable ON stable.id = rollout.stable_id
    WHERE rollout.id = %(pk)s AND rollout.state = ANY(%(active)s)
), leased AS (
    UPDATE rollout_rollout AS rollout SET leased_until = %(until)s FROM seen
    WHERE rollout.id = seen.rollout_id AND rollout.revision = seen.rollout_revision
        AND (rollout.leased_until IS NULL OR rollout.leased_until < %(now)s)
    RETURNING rollout.id
)
SELECT seen.* FROM seen JOIN leased ON leased.id = seen.rollout_id
"""  # noqa: S608 - columns of models


def take(rollout_id: int, now: datetime) -> Rollout | None:
    """The rollout with its route, fleet and versions; None when another worker has it or just had it, or it is over."""
    asked: dict[str, Any] = {"pk": rollout_id, "active": list(ACTIVE), "now": now, "until": now + LEASE}
    with connection.cursor() as cursor:
        cursor.execute(_TAKE, asked)
        found = cursor.fetchone()
    return None if found is None else _made(found, now + LEASE)


def _made(found: tuple[Any, ...], until: datetime) -> Rollout:
    rows: dict[str, Any] = {}
    at = 0
    for name, (model, columns) in _READ.items():
        values, at = found[at : at + len(columns)], at + len(columns)
        rows[name] = None if values[0] is None else _row(model, columns, values)
    rollout, route, version, stable = (rows[name] for name in ("rollout", "route", "version", "stable"))
    rollout.leased_until = until
    rollout.route, rollout.version, rollout.stable = route, version, stable
    route.fleet = rows["fleet"]
    for each in (route, version, stable):
        if each is not None:
            each.model = rows["model"]  # a route moves versions of its own model only
    return rollout  # type: ignore[no-any-return]


def _row(model: type[orm.Model], columns: tuple[str, ...], values: tuple[Any, ...]) -> orm.Model:
    fields = (model._meta.get_field(column) for column in columns)
    read = [
        json.loads(value) if isinstance(field, orm.JSONField) else value
        for field, value in zip(fields, values, strict=True)
    ]
    return model.from_db(connection.alias, columns, read)


def ended(rollout: Rollout) -> NullIf:
    """What `leased_until` is set to where the lease ends with a save; one that ran out and is another's stays."""
    return NullIf("leased_until", Value(rollout.leased_until, output_field=orm.DateTimeField()))


def end(rollout: Rollout) -> None:
    """Let the next worker have it."""
    Rollout.objects.filter(pk=rollout.pk, leased_until=rollout.leased_until).update(leased_until=None)
