"""What a fleet's config may say of its Prometheus, whatever its driver; what is refused names its field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import Client

from controlplane import access, sealing
from controlplane.models import Fleet, User
from rollout import drivers
from rollout.drivers.base import DriverError
from rollout.drivers.memory import MemoryDriver
from rollout.drivers.scraped import Scraper
from tests.rollout.prometheus import REQUESTS, Played, config, played, vector

URL = "http://prometheus.monitoring:9090"
KSERVE: dict[str, Any] = {
    "namespace": "n",
    "service": "{model}",
    "storage_uri": "s3://{model}/{version}",
    "credentials": {"server": "https://10.0.0.1:6443", "token": "t"},
}


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("prometheus/colour", {"colour": "red"}),
        ("prometheus/url", {"url": "ftp://h"}),
        ("prometheus/url", {"url": None}),
        ("prometheus/scrape_seconds", {"scrape_seconds": 0}),
        ("prometheus/scrape_seconds", {"scrape_seconds": 301}),
        ("prometheus/scrape_seconds", {"scrape_seconds": "15s"}),
        ("prometheus/requests", {"requests": ""}),
        ("prometheus/requests", {"requests": "1" * 5000}),
        ("prometheus/requests", {"requests": 'sum(requests_total{service="{model}"})'}),
        ("prometheus/failures", {"failures": "failures_total{slot={slot}}"}),
        ("prometheus/failures", {"failures": 'failures_total{slot="{slto}"}'}),
        ("prometheus/failures", {"failures": None}),
        ("prometheus/token", {"token": 5}),
        ("prometheus/token", {"token": "two\nlines"}),
        ("prometheus/instead_of_router", {"instead_of_router": "yes"}),
    ],
)
def test_a_bad_field_is_refused_by_its_name(field: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        drivers.make("memory", {"prometheus": config(URL, **wrong)})


def test_an_object_is_needed() -> None:
    with pytest.raises(ValueError, match=r"^prometheus: an object is needed"):
        drivers.make("memory", {"prometheus": URL})


def test_arms_may_be_told_apart_by_version_too() -> None:
    by_version = {"requests": 'r{v="{version}"}', "failures": 'f{v="{version}"}'}
    assert Scraper.parse(config(URL, **by_version), "edge").requests == 'r{v="{version}"}'


def test_a_router_that_counts_itself_is_not_passed_over_unasked() -> None:
    with pytest.raises(ValueError, match=r"^prometheus/instead_of_router: "):
        drivers.make("memory", {"prometheus": config(URL, instead_of_router=False)})
    assert isinstance(drivers.make("memory", {"prometheus": config(URL)}), MemoryDriver)


def test_a_router_without_counters_needs_no_such_word() -> None:
    asks = config(URL)
    del asks["instead_of_router"]
    assert drivers.make("kserve", {**KSERVE, "prometheus": asks})


@pytest.fixture
def prometheus() -> Iterator[Played]:
    with played() as found:
        yield found


def checked(prometheus: Played) -> dict[str, Any]:
    fleet = Fleet(name="edge", driver="memory", config={"prometheus": config(prometheus.server.url)})
    return drivers.check(fleet)


def test_a_check_says_that_prometheus_answers(prometheus: Played) -> None:
    prometheus.says = (200, vector("0"))
    assert checked(prometheus)["prometheus"] == {"url": prometheus.server.url, "scrape_seconds": 15}


def test_a_check_names_the_query_that_prometheus_does_not_understand(prometheus: Played) -> None:
    prometheus.says = (400, {"status": "error", "error": "parse error: unexpected {"})
    with pytest.raises(DriverError, match=r"^prometheus/requests: .*parse error"):
        checked(prometheus)


# Its token


@pytest.fixture
def api() -> Client:
    _, text = access.create_token(User.objects.create(username="ann"), "test", ["admin"])
    return Client(raise_request_exception=False, headers={"Authorization": f"Bearer {text}"})


def post(api: Client, **changes: Any) -> Any:
    asks = config(URL, **changes)
    body = {"name": "edge", "driver": "memory", "config": {"prometheus": asks}}
    return api.post("/api/v1/fleets", body, content_type="application/json")


@pytest.mark.django_db
def test_the_token_is_stored_sealed_and_never_shown(api: Client) -> None:
    made = post(api, token="let-me-in")
    assert made.status_code == 201, made.json()
    assert made.json()["config"]["prometheus"]["token"] == {"sealed": True}
    stored = Fleet.objects.get().config["prometheus"]["token"]
    assert sealing.open_text(stored) == "let-me-in"
    assert post(api, token={"sealed": True}).status_code == 200
    assert Fleet.objects.get().config["prometheus"]["token"] == stored


@pytest.mark.django_db
def test_a_kept_token_is_not_sent_to_another_prometheus(api: Client) -> None:
    post(api, token="let-me-in")
    answer = post(api, token={"sealed": True}, url="http://elsewhere:9090")
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/config/prometheus/token"]


@pytest.mark.django_db
def test_a_refusal_points_to_the_field_and_stores_nothing(api: Client) -> None:
    answer = post(api, failures=REQUESTS.replace("{slot}", "b"))
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/config/prometheus/failures"]
    assert not Fleet.objects.exists()
