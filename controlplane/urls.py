"""Every URL."""

from __future__ import annotations

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import URLPattern, URLResolver, path
from ninja import NinjaAPI

from controlplane import api, api_access, api_alerts, health, http, metrics, pages, views
from controlplane.api_docs import PlainDocs
from labeling import api as labeling_api
from labeling import views as labeling_views
from monitoring import api as monitoring_api
from monitoring import chart_views
from monitoring import views as monitoring_views
from rollout import views as rollout_views
from rollout.api import flagger, judgements, pairs, plans
from rollout.api import rollouts as rollout_api
from rollout.api import waves as rollout_api_waves

rest = NinjaAPI(title="Davy", version=metrics.version(), urls_namespace="api", docs=PlainDocs())
http.install(rest)
for module in (
    *(api, api_alerts, api_access, monitoring_api, labeling_api),
    pairs,  # before /rollouts/{id}/{command}, which would take its paths
    *(rollout_api, rollout_api_waves, plans, judgements, flagger),
):
    rest.add_router("", module.router)

page_urls: list[URLPattern | URLResolver] = [
    path("", pages.fleet, name="fleet"),
    path("bar", pages.bar, name="bar"),
    path("login", LoginView.as_view(template_name="controlplane/login.html"), name="login"),
    path("logout", LogoutView.as_view(), name="logout"),
    path("models/<str:name>", pages.model, name="model"),
    path("models/<str:name>/versions/<str:version>/drift", monitoring_views.drift, name="drift"),
    path("models/<str:name>/versions/<str:version>/spc", chart_views.spc, name="spc"),
    path("models/<str:name>/versions/<str:version>/spc/act", chart_views.spc_act, name="spc-act"),
    path("rollouts", rollout_views.rollout_list, name="rollouts"),
    path("rollouts/<int:pk>", rollout_views.rollout_detail, name="rollout"),
    path("rollouts/<int:pk>/act", rollout_views.rollout_act, name="rollout-act"),
    path("alerts", views.alert_list, name="alerts"),
    path("alerts/<int:pk>", views.alert_detail, name="alert"),
    path("alerts/<int:pk>/act", views.alert_act, name="alert-act"),
    path("labeling", labeling_views.labeling, name="labeling"),
    path("labeling/answer", labeling_views.answer, name="labeling-answer"),
]

urlpatterns: list[URLPattern | URLResolver] = [
    path("api/v1/", rest.urls),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.view, name="metrics"),
    *page_urls,
]
