"""Is every idle route still as it should be? Weights put back, stable loaded, slots that nobody needs released."""

from __future__ import annotations

import logging
from datetime import datetime

from django.db.models import Q, QuerySet

from controlplane import artifacts
from controlplane.models import Route
from rollout import drivers, look, tick
from rollout.drivers.base import Driver, DriverError
from rollout.models import ACTIVE, Rollout

log = logging.getLogger(__name__)


def keep(now: datetime) -> None:
    """Look after every route that no rollout moves; one fleet's trouble does not stop the others."""
    for pk in _idle().values_list("pk", flat=True):
        # asked again, because the fleets before this one took their time
        route = _idle().filter(pk=pk).select_related("model", "fleet", "stable__model").first()
        if route is None:
            continue
        driver = drivers.of(route.fleet)
        try:
            _keep_route(route, driver, now)
        except (DriverError, artifacts.ArtifactError) as err:
            log.warning("%s: %s", route, err)


def _idle() -> QuerySet[Route]:
    moving = Rollout.objects.filter(state__in=ACTIVE).values("route_id")
    return Route.objects.filter(stable__isnull=False).exclude(pk__in=moving)


def _keep_route(route: Route, driver: Driver, now: datetime) -> None:
    if route.stable is None:
        return
    spec = look.spec(route)
    observed = tick.hold_weight(driver, spec, route.weight_percent)
    if observed is not None:
        tick.hold_mirror(driver, spec, 0)
    Route.objects.filter(pk=route.pk).update(observed_weight_percent=observed, observed_at=now)
    stable = look.bundle(route.stable)
    if not driver.ready(stable, spec.stable_slot):
        driver.prepare(stable, spec.stable_slot)
    if not _idle().filter(pk=route.pk).exists():
        return  # a rollout that has just begun needs the canary's slot
    cold = route.keep_warm_until is None or route.keep_warm_until <= now
    if route.canary_id is not None or (route.previous_id is not None and cold):
        driver.release(spec.model, spec.canary_slot)
        unclaimed = Q(pk=route.pk, canary=route.canary, previous=route.previous)
        Route.objects.filter(unclaimed).update(canary=None, previous=None, keep_warm_until=None)
