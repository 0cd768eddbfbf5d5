"""Every URL."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path
from ninja import NinjaAPI

from controlplane import api, health, http, metrics
from controlplane.api_docs import PlainDocs
from labeling import api as labeling_api
from monitoring import api as monitoring_api
from rollout import api as rollout_api

rest = NinjaAPI(title="Davy", version=metrics.version(), urls_namespace="api", docs=PlainDocs())
http.install(rest)
for router in (api.router, monitoring_api.router, rollout_api.router, labeling_api.router):
    rest.add_router("", router)

page_urls: list[URLPattern | URLResolver] = []

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", rest.urls),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.view, name="metrics"),
    *page_urls,
]
