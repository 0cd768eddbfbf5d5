"""Which fleet serves which version? Lookups of fleets and routes; a fleet's config, whose secrets are kept sealed.

A driver says which fields of its config are secrets. They are stored as {"sealed": <Fernet token>} in their place and
shown as {"sealed": true}; a config that says {"sealed": true} keeps the secret that is stored.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import transaction

from controlplane import audit, problems, sealing
from controlplane.models import Fleet

SEALED = {"sealed": True}


def get_fleet(name: str, pointer: str = "/fleet") -> Fleet:
    """The fleet of that name; a 404 problem at `pointer` when there is none."""
    fleet = Fleet.objects.filter(name=name).first()
    if fleet is None:
        raise problems.field(pointer, "unknown_fleet", f"no fleet {name!r}", status=404)
    return fleet


def with_kept_secrets(name: str, config: Mapping[str, Any], secrets: Iterable[str]) -> dict[str, Any]:
    """The config with stored secrets where it says {"sealed": true}; a 422 problem where there is nothing stored.

    `secrets` are the paths of the driver's secret fields, e.g. "credentials/token"; each is a text. One that stands
    in an object is kept for that object only: a token is not sent to another server than it was given for.
    """
    found = copy.deepcopy(dict(config))
    stored = Fleet.objects.filter(name=name).values_list("config", flat=True).first()
    for path in secrets:
        parent, key = _parent(found, path)
        if parent is None or key not in parent or isinstance(parent[key], str):
            continue
        before, _ = _parent(stored or {}, path)
        if parent[key] != SEALED or before is None or not isinstance(before.get(key), dict):
            detail = 'a text is needed, or {"sealed": true} to keep the secret that is stored'
            raise problems.field(f"/config/{path}", "bad_secret", detail)
        if "/" in path and before | {key: SEALED} != parent:
            detail = f"what stands beside it in {path.rpartition('/')[0]} has changed: give the secret again"
            raise problems.field(f"/config/{path}", "bad_secret", detail)
        parent[key] = before[key]
    return found


def save(
    name: str, driver: str, config: Mapping[str, Any], secrets: Iterable[str], *, actor: str
) -> tuple[Fleet, bool]:
    """Make a fleet, or give it this config; its secrets are sealed first. (fleet, whether it is new)."""
    sealed = copy.deepcopy(dict(config))
    for path in secrets:
        parent, key = _parent(sealed, path)
        if parent is not None and isinstance(parent.get(key), str):
            parent[key] = sealing.seal_text(parent[key])
    with transaction.atomic():
        fleet, created = Fleet.objects.get_or_create(name=name, defaults={"driver": driver, "config": sealed})
        if fleet.driver != driver:
            raise problems.field(
                "/driver", "driver_differs", f"{fleet} has driver {fleet.driver}", status=409
            )
        if fleet.config != sealed:
            fleet.config = sealed
            fleet.save(update_fields=["config"])
        audit.record(actor, "fleet.create" if created else "fleet.configure", fleet.name)
    return fleet, created


def shown(config: Any) -> Any:
    """The config as people may see it: what is sealed says only that it is."""
    if isinstance(config, dict):
        return SEALED if set(config) == {"sealed"} else {key: shown(value) for key, value in config.items()}
    return [shown(value) for value in config] if isinstance(config, list) else config


def _parent(config: Any, path: str) -> tuple[dict[str, Any] | None, str]:
    """(the object that holds the field, its last name); None when the config has no such object."""
    *above, key = path.split("/")
    for name in above:
        config = config.get(name) if isinstance(config, dict) else None
    return (config if isinstance(config, dict) else None), key
