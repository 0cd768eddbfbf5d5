"""Which traffic drivers are there? Add a file here and one line to the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.models import Fleet
from rollout.drivers import gateway_api, scraped
from rollout.drivers.base import CountsRequests, Driver, DriverError
from rollout.drivers.envoy import driver
from rollout.drivers.kserve import KServeDriver
from rollout.drivers.kube.config import SECRET_FIELDS
from rollout.drivers.memory import MemoryDriver
from rollout.drivers.scraped import Scraper
from rollout.prometheus import PrometheusError

DRIVERS: dict[str, Callable[[Mapping[str, Any], str], Driver]] = {  # each takes its fleet's config and name
    "envoy": driver.driver,
    "gateway_api": gateway_api.driver,
    "kserve": KServeDriver,
    "memory": MemoryDriver,
}
SECRETS: dict[str, tuple[str, ...]] = {  # which fields of a config are stored sealed, and never shown
    "gateway_api": SECRET_FIELDS,
    "kserve": SECRET_FIELDS,
}


def of(fleet: Fleet) -> Driver:
    """The driver of a stored fleet."""
    return make(fleet.driver, fleet.config, fleet.name)


def make(name: str, config: Mapping[str, Any], fleet: str = "") -> Driver:
    """The driver `name` of a fleet. LookupError for an unknown one, ValueError("<field>: …") for a bad config.

    The config's `prometheus` may stand beside any driver's own fields: see `scraper`.
    """
    own = {field: value for field, value in config.items() if field != scraped.FIELD}
    made = _known(name)(own, fleet)
    found = _scraper(config, fleet)
    if found is not None and isinstance(made, CountsRequests) and not found.instead_of_router:
        field = f"{scraped.FIELD}/instead_of_router"
        raise ValueError(
            f"{field}: this fleet's router counts requests itself; true has Prometheus count instead"
        )
    return made


def scraper(fleet: Fleet) -> Scraper | None:
    """The Prometheus that counts the fleet's requests; None where the router, or collectors alone, do."""
    return _scraper(fleet.config, fleet.name)


def check(fleet: Fleet) -> dict[str, Any]:
    """What the fleet, and its Prometheus, say of themselves; reads only. Raises DriverError."""
    found, counts = of(fleet).check(), scraper(fleet)
    if counts is None:
        return found
    try:
        return {**found, scraped.FIELD: counts.check()}
    except PrometheusError as err:
        raise DriverError(str(err)) from err


def secret_fields(name: str) -> tuple[str, ...]:
    """The secret fields of a driver's config. Raises LookupError for an unknown driver."""
    _known(name)
    return (*SECRETS.get(name, ()), scraped.SECRET_FIELD)


def _scraper(config: Mapping[str, Any], fleet: str) -> Scraper | None:
    return Scraper.parse(config[scraped.FIELD], fleet) if scraped.FIELD in config else None


def _known(name: str) -> Callable[[Mapping[str, Any], str], Driver]:
    if name not in DRIVERS:
        raise LookupError(f"no driver {name!r}; there are {', '.join(sorted(DRIVERS))}")
    return DRIVERS[name]
