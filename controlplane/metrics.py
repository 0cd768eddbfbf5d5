"""What can Prometheus scrape? Every exported metric, read from the database by whoever is asked."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from functools import cache

from django.conf import settings
from django.db.models import Count
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from controlplane.models import Alert, Route, Severity
from monitoring import exposition


@cache
def version() -> str:
    """Davy's own version, as pyproject.toml states it."""
    return str(tomllib.loads((settings.BASE_DIR / "pyproject.toml").read_text())["project"]["version"])


class DatabaseCollector:
    """Reads all metrics at the moment of a scrape, so there is nothing to merge between processes."""

    def collect(self) -> Iterator[Metric]:
        """One family per metric; a severity without open alerts is 0, a weight never observed is absent."""
        build = GaugeMetricFamily("davy_build_info", "Davy's version; always 1", labels=["version"])
        build.add_metric([version()], 1)
        yield build
        yield _alerts_open()
        yield _route_weights()
        yield from exposition.families(timezone.now())


def _alerts_open() -> Metric:
    family = GaugeMetricFamily("davy_alerts_open", "Alerts that are not resolved", labels=["severity"])
    open_by_severity = dict(
        Alert.objects.filter(resolved_at=None).values_list("severity").annotate(Count("id")).order_by()
    )
    for severity in Severity.values:
        family.add_metric([severity], open_by_severity.get(severity, 0))
    return family


def _route_weights() -> Metric:
    family = GaugeMetricFamily(
        "davy_route_weight_percent",
        "The canary's share of a route's traffic: asked by Davy, observed at the router",
        labels=["model", "fleet", "kind"],
    )
    rows = Route.objects.order_by("model__name", "fleet__name").values_list(
        "model__name", "fleet__name", "weight_percent", "observed_weight_percent"
    )
    for model, fleet, asked, observed in rows:
        family.add_metric([model, fleet, "asked"], asked)
        if observed is not None:
            family.add_metric([model, fleet, "observed"], observed)
    return family


def view(_request: HttpRequest) -> HttpResponse:
    """GET /metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DatabaseCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
