"""Claims about whole rollouts whose errors Prometheus counts: one that is played, and Prometheus itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone
from prometheus_client import CollectorRegistry, Counter, start_http_server

from controlplane.models import Alert
from rollout import commands, dry_run, tick
from rollout.evidence import scraped
from rollout.models import Evidence, Rollout
from rollout.phases import TERMINAL
from tests.rollout.prometheus import Played, config, played, running, vector
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db
SCRAPE = 5
PATIENT = {**PLAN, "patience_seconds": 600}


class ScrapedScene(Scene):
    """A memory fleet whose counters a played Prometheus scrapes; collectors are silent."""

    prometheus: Played

    def traffic(self) -> None:
        super().traffic()
        second = round(self.now.timestamp())
        if second % SCRAPE == 3:
            counts = self.memory.counts.get("products", {})
            found = {slot: tuple(counts.get(slot, (0, 0))) for slot in ("a", "b")}
            self.prometheus.scrape(second, found)  # type: ignore[arg-type]


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Iterator[ScrapedScene]:
    with played() as prometheus:
        made = ScrapedScene(request.node.name[:60].lower(), collectors=False)
        made.prometheus = prometheus
        made.fleet.config |= {"prometheus": config(prometheus.server.url, scrape_seconds=SCRAPE)}
        made.fleet.save()
        yield made


def sources(rollout: Rollout) -> set[tuple[str, str]]:
    return set(Evidence.objects.filter(rollout=rollout).values_list("gate", "source"))


def test_a_bad_version_is_rolled_back_by_what_prometheus_counts(scene: ScrapedScene) -> None:
    scene.live(behaviour=Behaviour(errors=0.02))
    bad = scene.run(scene.start(scene.version("v2", Behaviour(errors=0.2)), PATIENT), 300)
    assert (bad.state, sources(bad)) == ("rolled_back", {("errors", "prometheus")})
    assert bad.reason.startswith("errors failed: canary ")
    assert ("router_counts", "products") not in scene.memory.calls


def test_a_good_version_is_promoted_on_intervals_that_meet_no_change_of_weight_nor_each_other(
    scene: ScrapedScene,
) -> None:
    scene.live(behaviour=Behaviour(errors=0.002))
    good = scene.run(scene.start(scene.version("v2", Behaviour(errors=0.002)), PATIENT), 1800)
    assert (good.state, sources(good)) == ("promoted", {("errors", "prometheus")}), good.reason
    rows = list(Evidence.objects.filter(rollout=good).order_by("start"))
    assert {row.weight_percent for row in rows} == {5, 50}
    assert all((row.end - row.start).total_seconds() >= SCRAPE for row in rows)
    assert all(row.end <= after.start for row, after in pairwise(rows))
    for since, to in good.sources["unsettled"]:
        for row in rows:
            assert row.end.timestamp() <= since or row.start.timestamp() >= to + SCRAPE + 1
    for arm, slot in (("canary", "b"), ("stable", "a")):
        total = [sum(row.arms[arm][name] for row in rows) for name in ("n", "errors")]
        assert 0 < total[0] <= scene.memory.counts["products"][slot][0]
        assert 0 < total[1] <= scene.memory.counts["products"][slot][1]


@pytest.mark.parametrize("phase", [0, 2, 3])
def test_a_canary_that_fails_outright_is_noticed_within_three_scrapes(
    scene: ScrapedScene, phase: int
) -> None:
    scene.live()
    long = {**PATIENT, "steps": [{"weight_percent": 5, "dwell_seconds": 3600}]}
    rollout = scene.start(scene.version("v2"), long)
    scene.run(rollout, 40 + phase)
    failed_at = scene.now
    scene.behaviour["v2"].errors = 1.0
    scene.run(rollout, 300, until="rolling_back")
    within = scraped.limits(SCRAPE)["notices_within_seconds"]
    assert (scene.now - failed_at).total_seconds() <= within + 1


def test_a_canary_that_fails_from_its_first_request_is_noticed_as_soon_as_a_dry_run_says(
    scene: ScrapedScene,
) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2", Behaviour(errors=1.0)), PATIENT), 60, until="running")
    begun = scene.now
    scene.run(rollout, 300, until="rolling_back")
    within = scraped.limits(SCRAPE)["first_within_seconds"]
    assert (scene.now - begun).total_seconds() <= within + 2  # the weight is observed a tick later


def test_without_an_answer_the_rollout_holds_after_its_patience_and_says_what_prometheus_said(
    scene: ScrapedScene,
) -> None:
    scene.live()
    scene.prometheus.says = (200, vector())
    held = scene.run(scene.start(scene.version("v2"), PLAN), 200, until="held")
    assert held.state == "held"
    assert held.reason.startswith("no evidence for errors since ")
    assert "Prometheus was asked for the canary's requests: the query finds no series" in held.reason
    assert Alert.objects.filter(resolved_at=None).exists()


def test_it_goes_on_by_itself_once_prometheus_answers_again(scene: ScrapedScene) -> None:
    scene.live()
    scene.prometheus.says = (503, {})
    rollout = scene.run(scene.start(scene.version("v2"), PLAN), 200, until="held")
    scene.prometheus.says = None
    assert scene.run(rollout, 1800).state == "promoted"


def test_requests_that_are_only_mirrored_are_not_counted(scene: ScrapedScene) -> None:
    scene.live()
    plan = {**PATIENT, "shadow": {"percent": 50, "least_seconds": 60}}
    rollout = scene.run(scene.start(scene.version("v2"), plan), 20)
    assert rollout.weight_percent == 0
    assert scene.memory.mirrors["products"] == ("b", 50.0)
    assert scene.prometheus.server.asked == []


def test_a_version_that_fails_outright_in_the_watch_is_taken_back(scene: ScrapedScene) -> None:
    scene.live()
    plan = {**PATIENT, "watch_seconds": 600}
    rollout = scene.run(scene.start(scene.version("v2"), plan), 1800, until="watching")
    scene.behaviour["v2"].errors = 1.0
    ended = scene.run(rollout, 300)
    assert ended.state == "rolled_back"
    assert "of the new version failed within" in ended.reason


def test_a_dry_run_names_prometheus_and_what_it_costs_in_time(scene: ScrapedScene) -> None:
    scene.live()
    said = dry_run.dry_run(scene.version("v2"), scene.fleet, commands.read_plan(PLAN), scene.now)
    counted = said["errors_counted_by"]
    assert counted["detail"].startswith("Prometheus scrapes every 5 s: what goes wrong is seen within 15 s")
    numbers = {key: counted[key] for key in counted if key.endswith("_seconds")}
    assert numbers == {
        "smallest_interval_seconds": 5,
        "notices_within_seconds": 15,
        "first_within_seconds": 21,
    }


def test_a_dry_run_knows_stable_s_errors_from_what_prometheus_counted_before(scene: ScrapedScene) -> None:
    scene.live(behaviour=Behaviour(errors=0.02))
    rollout = scene.run(scene.start(scene.version("v2", Behaviour(errors=0.2)), PATIENT), 300)
    said = dry_run.dry_run(scene.version("v3"), scene.fleet, commands.read_plan(PLAN), scene.now)["traffic"]
    stable = sum(row.arms["stable"]["n"] for row in Evidence.objects.filter(rollout=rollout))
    assert said["stable_by_router"]["requests"] == stable
    assert f"Prometheus' counts in rollout {rollout.pk}" in said["known_from"]


# Prometheus itself


class Exporter:
    """A gateway's counters of both slots, scraped by Prometheus every second."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.requests = Counter("shop_requests", "Requests.", ["slot"], registry=registry)
        self.failures = Counter("shop_failures", "Failed requests.", ["slot"], registry=registry)
        self.server, self.thread = start_http_server(0, addr="127.0.0.1", registry=registry)

    def settings(self) -> str:
        target = f"127.0.0.1:{self.server.server_port}"
        return (
            "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
            f"scrape_configs: [{{job_name: shop, static_configs: [{{targets: ['{target}']}}]}}]\n"
        )

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def shop() -> Iterator[Exporter]:
    exporter = Exporter()
    yield exporter
    exporter.close()


def live(scene: Scene, rollout: Rollout, shop: Exporter, errors: dict[str, float], seconds: float) -> Rollout:
    """Requests at 1,000 a second and a tick after each hundredth, until the rollout is over or time is up."""
    deadline, served_until = time.monotonic() + seconds, time.monotonic()
    while time.monotonic() < deadline:
        n, served_until = int(1000 * (time.monotonic() - served_until)), time.monotonic()
        for slot, percent in scene.memory.weights.get("products", {}).items():
            mine = int(scene.rng.binomial(n, percent / 100))
            held = scene.memory.loaded.get(("products", slot))
            shop.requests.labels(slot).inc(mine)
            shop.failures.labels(slot).inc(int(scene.rng.binomial(mine, errors[held.version])) if held else 0)
        scene.now = timezone.now()
        tick.tick(rollout.pk, scene.now)
        found = scene.get(rollout)
        if found.state in TERMINAL:
            return found
        time.sleep(0.05)
    return scene.get(rollout)


@pytest.mark.system
def test_prometheus_itself_takes_a_canary_back_that_fails_20_percent_instead_of_2(
    shop: Exporter, tmp_path: Path
) -> None:
    errors = {"v1": 0.02, "v2": 0.2}
    with running(tmp_path, shop.settings()) as url:
        scene = Scene("real-prometheus", now=timezone.now(), collectors=False)
        asks: dict[str, Any] = {
            "requests": 'sum(shop_requests_total{slot="{slot}"})',
            "failures": 'sum(shop_failures_total{slot="{slot}"}) or vector(0)',
        }
        scene.fleet.config |= {"prometheus": config(url, scrape_seconds=1, **asks)}
        scene.fleet.save()
        first = live(scene, scene.start(scene.version("v1")), shop, errors, 10)
        assert first.state == "promoted", first.reason
        ended = live(scene, scene.start(scene.version("v2"), PATIENT), shop, errors, 60)
    assert ended.state == "rolled_back", ended.reason
    assert ended.reason.startswith("errors failed: canary ")
    assert sources(ended) == {("errors", "prometheus")}
    assert scene.memory.weights["products"]["b"] == 0
