"""Which Prometheus counts a fleet's requests where its router cannot be asked? The config's `prometheus`.

`requests` and `failures` are PromQL for cumulative counters of one arm, each giving one series. {slot} and {version} in
their strings become the arm's, {model} and {fleet} the route's. The counters that Prometheus holds are up to a scrape
interval old, each target's differently: see rollout.evidence.scraped for what that makes of them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.fernet import InvalidToken

from controlplane import outbound, sealing
from rollout import prometheus
from rollout.drivers.base import ArmCounts, RouterCounts, RouteSpec
from rollout.drivers.kube.config import known_only
from rollout.prometheus import QUERY_CHARACTERS, PrometheusError

FIELD = "prometheus"
SECRET_FIELD = f"{FIELD}/token"
KNOWN = ("url", "token", "scrape_seconds", "requests", "failures", "instead_of_router")
LABELS = ("slot", "version", "model", "fleet")
SCRAPE_SECONDS = 15.0
SCRAPE_RANGE = (1.0, 120.0)  # Prometheus forgets a series that it has not seen for 5 minutes
READ_SECONDS = 4.0  # all queries of one reading together: a tick waits so long, and no longer
LARGEST_COUNT = 2.0**53  # above it a float skips whole numbers


@dataclass(frozen=True)
class Scraper:
    """Both arms' requests and failures, as a Prometheus has scraped them."""

    url: str
    requests: str
    failures: str
    token: str | Mapping[str, str] = field(repr=False)  # "": none; a mapping: sealed
    scrape_seconds: float
    instead_of_router: bool  # although the driver counts requests itself
    fleet: str

    @classmethod
    def parse(cls, raw: object, fleet: str) -> Scraper:
        """Read and check a fleet's `prometheus`. Raises ValueError("prometheus[/<field>]: …")."""
        given = known_only(raw, FIELD, KNOWN)
        url = given.get("url")
        wrong = outbound.check_url(url) if isinstance(url, str) else "is needed"
        if wrong:
            raise ValueError(f"{FIELD}/url: the URL of Prometheus {wrong}")
        instead = given.get("instead_of_router", False)
        if not isinstance(instead, bool):
            raise ValueError(f"{FIELD}/instead_of_router: true or false is needed")
        return cls(
            url=str(url).rstrip("/"),
            requests=_query(given, "requests"),
            failures=_query(given, "failures"),
            token=_token(given.get("token", "")),
            scrape_seconds=_seconds(given.get("scrape_seconds", SCRAPE_SECONDS)),
            instead_of_router=instead,
            fleet=fleet,
        )

    def counts(self, route: RouteSpec, versions: Mapping[str, str], at: float) -> RouterCounts:
        """Both arms' counters, all evaluated at `at` (unix seconds).

        versions  {slot: name of the version in it}
        Since when they count is not known. Raises PrometheusError, naming the arm and the counter.
        """
        deadline = time.monotonic() + READ_SECONDS
        arms = []
        for arm, slot in (("canary", route.canary_slot), ("stable", route.stable_slot)):
            names = {"slot": slot, "version": versions[slot], "model": route.model, "fleet": self.fleet}
            queries = {"requests": self.requests, "failures": self.failures}
            found = [
                self._count(f"{arm}'s {counter}", query, names, at, deadline)
                for counter, query in queries.items()
            ]
            arms.append(ArmCounts(assigned=found[0], failed=found[1]))
        return RouterCounts(at, 0.0, *arms)

    def check(self) -> dict[str, Any]:
        """Whether it answers and understands both queries; reads only. Raises PrometheusError naming the query."""
        for counter, query in (("requests", self.requests), ("failures", self.failures)):
            filled = prometheus.fill(query, dict.fromkeys(LABELS, "?"))
            try:
                self._ask(f"count(({filled}\n)) or vector(0)", None, READ_SECONDS)
            except PrometheusError as err:
                raise PrometheusError(f"{FIELD}/{counter}: {err}") from err
        return {"url": self.url, "scrape_seconds": self.scrape_seconds}

    def _count(self, what: str, query: str, names: Mapping[str, str], at: float, deadline: float) -> int:
        left = deadline - time.monotonic()
        if left <= 0:
            raise PrometheusError(
                f"Prometheus took longer than {READ_SECONDS:g} s for the counters of both arms"
            )
        try:
            value = self._ask(prometheus.fill(query, names), at, min(left, prometheus.TIMEOUT_SECONDS))
        except ValueError as err:  # a name that the query's `raw` string cannot hold
            raise PrometheusError(f"the {what}: {err}") from err
        except PrometheusError as err:
            raise type(err)(f"Prometheus was asked for the {what}: {err}") from err
        if not (value.is_integer() and 0 <= value < LARGEST_COUNT):
            needed = "a counter of whole requests is needed, which rate() and increase() are not"
            raise PrometheusError(f"Prometheus was asked for the {what} and gives {value:g}: {needed}")
        return int(value)

    def _ask(self, query: str, at: float | None, seconds: float) -> float:
        try:
            token = sealing.open_text(self.token)
        except InvalidToken as err:
            told = "its token cannot be opened, SECRET_KEY has changed since: give it again"
            raise PrometheusError(f"Prometheus cannot be asked: {told}") from err
        return prometheus.instant(self.url, query, at, token=token, timeout=seconds)


def _query(given: Mapping[str, Any], name: str) -> str:
    """PromQL that asks something else of each arm."""
    query, where = given.get(name), f"{FIELD}/{name}"
    if not isinstance(query, str) or not 0 < len(query.strip()) <= QUERY_CHARACTERS:
        raise ValueError(f"{where}: PromQL of at most {QUERY_CHARACTERS} characters is needed")
    arms = []
    for slot in ("a", "b"):
        names = {"slot": slot, "version": slot, "model": "", "fleet": ""}
        try:
            arms.append(prometheus.fill(query, names))
        except ValueError as err:
            raise ValueError(f"{where}: {str(err).removeprefix('query: ')}") from None
    if arms[0] == arms[1]:
        raise ValueError(f"{where}: {{slot}} or {{version}} is needed in it, to tell the arms apart")
    return query


def _seconds(value: object) -> float:
    least, most = SCRAPE_RANGE
    if not isinstance(value, int | float) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{FIELD}/scrape_seconds: a number from {least:g} to {most:g} is needed")
    return float(value)


def _token(value: object) -> str | Mapping[str, str]:
    if isinstance(value, dict) and isinstance(value.get("sealed"), str):
        return value
    if not isinstance(value, str) or not re.fullmatch(r"[\x21-\x7e]*", value.strip()):
        raise ValueError(f"{SECRET_FIELD}: a text that can be a token is needed")
    return value.strip()
