"""Which fleet serves which version? Lookups of fleets and routes."""

from __future__ import annotations

from controlplane import problems
from controlplane.models import Fleet, Model, Route


def get_fleet(name: str, pointer: str = "/fleet") -> Fleet:
    """The fleet of that name; a 404 problem at `pointer` when there is none."""
    fleet = Fleet.objects.filter(name=name).first()
    if fleet is None:
        raise problems.field(pointer, "unknown_fleet", f"no fleet {name!r}", status=404)
    return fleet


def get_route(model: Model, fleet: Fleet) -> Route:
    """The route of a model on a fleet, made empty (no stable version) when it is the first time they meet."""
    route, _created = Route.objects.select_related("model", "fleet", "stable", "canary").get_or_create(
        model=model, fleet=fleet
    )
    return route
