"""What does one Envoy say of itself? Its admin interface: version, routes, health, counters and histograms."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from controlplane import outbound
from rollout.drivers.base import DriverError
from rollout.drivers.envoy import routes as envoy_routes
from rollout.drivers.envoy.routes import Json

ASK_SECONDS = 2.0


@dataclass(frozen=True)
class Admin:
    """One Envoy's admin interface. Every call may raise DriverError: it is away, or it is not Envoy's."""

    url: str

    def version(self) -> str:
        """Envoy's own version, as it tells it."""
        return str(self._json("/server_info").get("version", ""))

    def routes(self) -> tuple[str, Json] | None:
        """(version_info, route configuration) that it applies; None before it has taken any from Davy."""
        for entry in self._json("/config_dump?resource=dynamic_route_configs").get("configs", []):
            config = entry.get("route_config", {})
            if config.get("name") == envoy_routes.ROUTE_CONFIG:
                return entry.get("version_info", ""), config
        return None

    def healthy(self, model: str, slot: str) -> bool:
        """Whether it counts the slot's server as healthy, in either role."""
        own = [envoy_routes.own_cluster(model, role, slot) for role in envoy_routes.ROLES]
        found = self.counters(rf"^cluster\.({'|'.join(map(re.escape, own))})\.membership_healthy$")
        return len(found) == len(own) and min(found.values()) > 0

    def counters(self, regex: str) -> dict[str, int]:
        """Counters and gauges whose names match."""
        answer = self._ask("/stats", {"filter": regex})
        pairs = (line.rsplit(": ", 1) for line in answer.text.splitlines() if ": " in line)
        return {name: int(value) for name, value in pairs if value.isdecimal()}

    def histograms(self, regex: str) -> dict[str, list[Json]] | None:
        """Histograms whose names match: {lower_bound, width, count} since it started. None: it tells none so.

        These are the two-digit buckets that Envoy counts in, whatever buckets its bootstrap asks it to show.
        """
        query = {"type": "Histograms", "histogram_buckets": "detailed", "format": "json", "filter": regex}
        answer = self._ask("/stats", query, refusable=True)
        if answer.status != 200:
            return None
        found: dict[str, list[Json]] = {}
        for stat in self._object("/stats", answer).get("stats", []):
            for detail in stat.get("histograms", {}).get("details", []):
                found[detail["name"]] = detail["totals"]
        return found

    def _json(self, path: str) -> Json:
        return self._object(path, self._ask(path))

    def _object(self, path: str, answer: outbound.Answer) -> Json:
        try:
            found = json.loads(answer.text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DriverError(
                f"{self.url} is not Envoy's admin interface: {path} answered {answer.text[:100]!r}"
            )
        return found

    def _ask(
        self, path: str, query: Mapping[str, str] | None = None, *, refusable: bool = False
    ) -> outbound.Answer:
        """GET; with `refusable` a 400 is an answer too: an Envoy that does not know the question."""
        try:
            answer = outbound.fleet_get(
                self.url + path + (f"?{urlencode(query)}" if query else ""), ASK_SECONDS
            )
        except outbound.OutboundError as err:
            raise DriverError(f"Envoy's admin interface at {self.url} does not answer: {err}") from err
        if answer.status != 200 and not (refusable and answer.status == 400):
            raise DriverError(
                f"Envoy's admin interface at {self.url}{path} answered {answer.status}: {answer.text[:200]}"
            )
        return answer
