from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from davy import counting, wire
from django.db import connections

from controlplane.models import Alert, Channel, Delivery, Fleet, Route
from monitoring import checks, references, windows
from monitoring.models import DetectorState, Finding
from tests.monitoring.build import T0, report, store, version

pytestmark = pytest.mark.django_db


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def served(rng, settings):
    settings.DRIFT_WINDOW_SECONDS, settings.DRIFT_CHECK_SECONDS = 60, 10
    return serve(rng)


def serve(rng):
    v1 = version("shelf")
    references.freeze(v1, rng.normal(size=(2000, 8)).astype("f4"), rng.beta(8, 2, 2000))
    Route.objects.create(model=v1.model, fleet=Fleet.objects.create(name="local", driver="memory"), stable=v1)
    return v1


def traffic(v1, rng, start, seconds, shift=0.0, n=300):
    """Ten-second reports from `start` on, folded; a shift moves embeddings and confidences."""
    reference = references.load(v1)
    for offset in range(0, seconds, 10):
        rows = (rng.normal(size=(n, 8)) + shift).astype("f4")
        sure = np.clip(rng.beta(8, 2, n) - shift / 4, 0, 1)
        counts = wire.WindowCounts(
            n=n, confidence=counting.count_confidence(sure), embedding=reference.count(rows)
        )
        at = start + timedelta(seconds=offset)
        store(report(v1, [counts], start=at, reference_digest=reference.digest))
    windows.fold(start)


def check(start, seconds):
    """The checks that a timer would have made every second."""
    return sum(checks.run(start + timedelta(seconds=second)) for second in range(seconds))


def status(v1, detector="embedding_drift"):
    return DetectorState.objects.get(version=v1, detector=detector).status


def test_drift_opens_one_alert_that_resolves_when_the_images_are_back(served, rng):
    Channel.objects.create(name="log", kind="memory")
    traffic(served, rng, T0, 120)
    check(T0, 120)
    assert status(served) == "STABLE"
    assert not Alert.objects.exists()
    traffic(served, rng, T0 + timedelta(seconds=120), 60, shift=2)
    check(T0 + timedelta(seconds=120), 60)
    assert status(served) == "DRIFTED"
    alert = Alert.objects.get(cause="drift/embedding/shelf/v1")
    assert (alert.resolved_at, alert.version, alert.model) == (None, served, served.model)
    traffic(served, rng, T0 + timedelta(seconds=180), 120)
    check(T0 + timedelta(seconds=180), 120)
    alert.refresh_from_db()
    assert alert.resolved_at is not None
    assert status(served) == "STABLE"
    assert alert.count == 1
    assert sorted(alert.deliveries.values_list("event", flat=True)) == ["resolve", "trigger"]
    found = Finding.objects.filter(detector="embedding_drift").order_by("at")
    assert [finding.status for finding in found] == ["STABLE", "DRIFTED", "STABLE"]
    assert [finding.alert for finding in found][1:] == [alert, alert]


def test_the_summary_says_what_where_since_when_how_sure_and_what_to_do(served, rng):
    traffic(served, rng, T0, 60, shift=2)
    check(T0, 70)
    summary = Alert.objects.get(cause="drift/embedding/shelf/v1").summary
    assert summary.startswith("shelf v1 embeddings have drifted: D = 0.")
    assert "since 2026-11-20 12:00:" in summary
    assert "n = " in summary
    assert "reference images" in summary
    assert summary.endswith(".")
    assert "compare the live images" in summary
    assert "\n" not in summary


def test_each_closed_interval_is_looked_at_once(served, rng):
    traffic(served, rng, T0, 60)
    assert check(T0 + timedelta(seconds=63), 10) == 2  # two detectors, one interval
    assert check(T0 + timedelta(seconds=63), 10) == 0
    assert check(T0 + timedelta(seconds=73), 30) == 6


def test_only_closed_intervals_are_read(served, rng):
    traffic(served, rng, T0, 60)
    checks.run(T0 + timedelta(seconds=42))
    state = DetectorState.objects.get(version=served, detector="embedding_drift")
    assert state.evaluated_until == T0 + timedelta(seconds=30)
    assert state.result["to"] == (T0 + timedelta(seconds=30)).isoformat()
    assert state.result["n"] == 900


def test_a_version_without_reference_or_traffic_is_never_called_stable(rng):
    v1 = version()
    Route.objects.create(model=v1.model, fleet=Fleet.objects.create(name="local", driver="memory"), canary=v1)
    checks.run(T0)
    assert status(v1) == "TOO_FEW"
    assert not Finding.objects.exists()


def test_silence_does_not_resolve_an_alert_while_the_version_serves(served, rng):
    traffic(served, rng, T0, 60, shift=2)
    check(T0, 70)
    check(T0 + timedelta(seconds=300), 60)
    assert status(served) == "TOO_FEW"
    assert Alert.objects.get(cause="drift/embedding/shelf/v1").resolved_at is None


def test_the_alert_of_a_version_that_left_every_route_is_resolved(served, rng):
    traffic(served, rng, T0, 60, shift=2)
    check(T0, 70)
    Route.objects.update(stable=None)
    checks.run(T0 + timedelta(seconds=200))
    alert = Alert.objects.get(cause="drift/embedding/shelf/v1")
    assert alert.resolved_at is not None
    assert "serves no traffic any more" in alert.resolution


def test_versions_that_nobody_serves_are_not_looked_at():
    version()
    assert checks.run(T0) == 0
    assert not DetectorState.objects.exists()


def test_looking_when_nothing_is_due_costs_three_queries(served, rng, django_assert_num_queries):
    checks.run(T0)
    with django_assert_num_queries(3):
        checks.run(T0)


@pytest.mark.django_db(transaction=True)
def test_workers_checking_at_once_alert_once(rng, settings):
    settings.DRIFT_WINDOW_SECONDS, settings.DRIFT_CHECK_SECONDS = 60, 10
    v1 = serve(rng)
    Channel.objects.create(name="log", kind="memory")
    traffic(v1, rng, T0, 60, shift=2)

    def work(_index):
        try:
            return check(T0, 70)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as pool:
        answers = sum(pool.map(work, range(3)))
    assert answers == 2 * 8  # intervals ending 11:59:50 to 12:01:00
    assert Finding.objects.filter(status="DRIFTED").count() == 2
    assert Delivery.objects.filter(event="trigger").count() == 2
