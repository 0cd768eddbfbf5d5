"""Is every idle route still as it should be? Weights put back, stable loaded, slots that nobody needs released."""

from __future__ import annotations

import logging
from datetime import datetime

from django.db.models import Q

from controlplane import artifacts
from controlplane.models import Route
from rollout import drivers, tick
from rollout.drivers.base import Driver, DriverError
from rollout.models import ACTIVE, Rollout

log = logging.getLogger(__name__)


def keep(now: datetime) -> None:
    """Look after every route that no rollout moves; one fleet's trouble does not stop the others."""
    moving = Rollout.objects.filter(state__in=ACTIVE).values("route_id")
    idle = Route.objects.filter(stable__isnull=False).exclude(pk__in=moving)
    for route in idle.select_related("model", "fleet", "stable__model", "previous__model"):
        driver = drivers.make(route.fleet.driver, route.fleet.config)
        try:
            _keep_route(route, driver, now)
        except (DriverError, artifacts.ArtifactError) as err:
            log.warning("%s: %s", route, err)


def _keep_route(route: Route, driver: Driver, now: datetime) -> None:
    if route.stable is None:
        return
    spec = tick.spec(route)
    observed = tick.hold_weight(driver, spec, route.weight_percent)
    Route.objects.filter(pk=route.pk).update(observed_weight_percent=observed, observed_at=now)
    stable = tick.bundle(route.stable)
    if not driver.ready(stable, spec.stable_slot):
        driver.prepare(stable, spec.stable_slot)
    cold = route.keep_warm_until is None or route.keep_warm_until <= now
    if route.canary_id is not None or (route.previous_id is not None and cold):
        driver.release(spec.model, spec.canary_slot)
        unclaimed = Q(pk=route.pk, canary=route.canary, previous=route.previous)
        Route.objects.filter(unclaimed).update(canary=None, previous=None, keep_warm_until=None)
