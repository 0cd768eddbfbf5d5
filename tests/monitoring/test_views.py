"""The Drift page."""

from __future__ import annotations

import re
from datetime import timedelta

import numpy as np
import pytest
from davy import counting, wire
from django.test import Client
from django.utils import timezone

from controlplane.models import ModelVersion, User
from monitoring import references, views
from monitoring.models import Finding, Outcome, Window
from tests.monitoring.build import version

pytestmark = pytest.mark.django_db
PATH = "/models/products/versions/v1/drift"


@pytest.fixture
def page() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("vera", role="viewer"))
    return client


def with_reference(rng: np.random.Generator) -> ModelVersion:
    of = version()
    references.freeze(of, rng.normal(size=(2000, 4)).astype("f4"), rng.uniform(0.7, 1, 2000))
    return of


def window(of: ModelVersion, embeddings: np.ndarray, confidences: np.ndarray) -> Window:
    """One window of the last ten seconds."""
    now = timezone.now()
    bins = references.load(of)
    assert bins is not None
    return Window.objects.create(
        version=of,
        start=now - timedelta(seconds=20),
        end=now - timedelta(seconds=10),
        n=len(embeddings),
        errors=0,
        reference_digest=bins.digest,
        confidence=wire.pack(counting.count_confidence(confidences)),
        latency=wire.pack(counting.count_latency([0.01] * len(embeddings))),
        embedding=wire.pack(bins.count(embeddings)),
    )


def text(response) -> str:
    """What a person reads: without tags, spaces as one."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", response.content.decode()))


def test_an_unknown_version_is_not_found(page: Client) -> None:
    assert page.get(PATH).status_code == 404


def test_without_a_reference_the_page_says_how_to_freeze_one(page: Client) -> None:
    version()
    shown = text(page.get(PATH))
    assert "No reference yet" in shown
    assert "No predictions in this window" in shown


def test_a_reference_without_traffic_says_that_nothing_came(page: Client) -> None:
    with_reference(np.random.default_rng(1))
    assert "No live embeddings in this window" in text(page.get(PATH))


def test_a_shift_is_told_with_d_and_both_n(page: Client) -> None:
    rng = np.random.default_rng(1)
    of = with_reference(rng)
    window(of, rng.normal(1.5, 1, size=(800, 4)).astype("f4"), rng.uniform(0.3, 0.6, 800))
    shown = text(page.get(PATH))
    assert re.search(r"D = \.[4-9]\d\d", shown)
    assert "n = 800 / 2,000" in shown
    assert "100 % of live confidences lie from .3 to .6; in the reference 0 %" in shown


def test_each_component_shows_its_distance_with_its_bound_and_n(page: Client) -> None:
    rng = np.random.default_rng(3)
    of = with_reference(rng)
    window(of, rng.normal(size=(700, 4)).astype("f4"), rng.uniform(0.7, 1, 700))
    shown = page.get(PATH).content.decode()
    table = shown[shown.index('id="components-title"') :]
    assert table.count('<th scope="row">') == references.load(of).counts.shape[0]
    assert "left out" in table
    assert ">700<" in table


def test_the_p_chart_counts_intervals_beyond_its_limits(page: Client) -> None:
    rng = np.random.default_rng(4)
    of = with_reference(rng)
    window(of, rng.normal(size=(700, 4)).astype("f4"), rng.uniform(0.3, 0.6, 700))
    assert "1 of 1 intervals lie beyond three sigmas" in text(page.get(PATH))


def test_accuracy_is_shown_with_interval_and_n_once_there_are_labels(page: Client) -> None:
    of = version()
    assert "no labels yet" in text(page.get(PATH))
    for i in range(50):
        Outcome.objects.create(
            version=of,
            request_id=str(i),
            requested_at=timezone.now(),
            wrong=i < 5,
            sampler="measure",
            inclusion_probability=0.1,
        )
    assert re.search(r"90\.0 %\s*7\d\.\d % to 9\d\.\d % \(95 %\), n = 50", text(page.get(PATH)))


def test_findings_are_listed_latest_first(page: Client) -> None:
    of = version()
    for minute, reason in ((1, "first finding"), (2, "second finding")):
        at = timezone.now() - timedelta(minutes=10 - minute)
        Finding.objects.create(version=of, detector="embedding_drift", status="DRIFTED", reason=reason, at=at)
    shown = text(page.get(PATH))
    assert shown.index("second finding") < shown.index("first finding")


def test_too_few_rows_are_marked_in_the_history(page: Client) -> None:
    rng = np.random.default_rng(2)
    of = with_reference(rng)
    window(of, rng.normal(size=(40, 4)).astype("f4"), rng.uniform(0.7, 1, 40))
    bins = references.load(of)
    assert bins is not None
    history = views.history(of, bins, timezone.now())
    assert history["points"][0][2] == 40 < history["enough"]
