"""What is read over HTTP: drift, confidences and the accuracy."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from monitoring import checks, references, windows
from monitoring.models import Outcome, Prediction
from tests.monitoring.api import VERSION, api, arrays, client_for, now_window, packed, put, rng, v1
from tests.monitoring.build import store

__all__ = ["api", "client_for", "rng", "v1"]


def fill(rng, v1, shift=0.0, n=600, **fields):
    bins = references.load(v1)
    rows = (rng.normal(size=(n, 6)) + shift).astype("f4")
    one = now_window(
        rng, v1, n=n, errors=0, errors_by_key_bucket=np.zeros(16, int), embedding=bins.count(rows), **fields
    )
    one.reference_digest = bins.digest
    store(one)
    windows.fold(timezone.now())


def test_drift_is_read_with_bounds_times_and_n(api, v1, rng):
    put(api, packed(arrays(rng)))
    fill(rng, v1, shift=2.0)
    checks.run(timezone.now() + timedelta(seconds=15))
    body = api.get(f"{VERSION}/drift").json()
    assert (body["detector"], body["status"]) == ("embedding_drift", "STABLE")  # once is no drift yet
    assert body["evaluated_until"]
    assert (body["n"], body["reference"]["rows"], len(body["components"])) == (600, 300, 7)
    worst = body["components"][body["component"]]
    assert 0.5 < worst["d"] <= worst["d_upper"] <= 1
    assert worst["q"] < 1e-6
    curve = body["worst"]
    assert len(curve["edges"]) == len(curve["live"]) == len(curve["reference"])
    assert max(abs(np.array(curve["live"]) - curve["reference"])) == pytest.approx(worst["d"])
    assert body["from"] < body["to"]


def test_without_reference_or_traffic_drift_is_too_few_and_not_an_error(api, v1, rng):
    body = api.get(f"{VERSION}/drift").json()
    assert (body["status"], body["n"], body["components"]) == ("TOO_FEW", 0, [])
    put(api, packed(arrays(rng)))
    body = api.get(f"{VERSION}/drift").json()
    assert (body["status"], body["n"]) == ("TOO_FEW", 0)
    assert {row["d"] for row in body["components"]} == {0}


def test_a_period_and_a_segment_can_be_asked_for(api, v1, rng):
    put(api, packed(arrays(rng)))
    fill(rng, v1, segment={"device": "ios"})
    fill(rng, v1, segment={"device": "web", "country": "de"})
    assert api.get(f"{VERSION}/drift").json()["n"] == 1200
    assert api.get(f"{VERSION}/drift?segment.device=web").json()["n"] == 600
    assert api.get(f"{VERSION}/drift?segment.device=tv").json()["n"] == 0
    past = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00%2B00:00"
    assert api.get(f"{VERSION}/confidence?{past}").json()["n"] == 0


@pytest.mark.parametrize("path", ["drift", "confidence", "spc/p", "accuracy"])
@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("from=yesterday", "/from"),
        ("to=2026-01-01T00:00:00", "/to"),
        ("from=1e999", "/from"),
        ("to=0001-01-01T00:00:00Z", "/to"),
        ("from=99999999999999999999", "/from"),
        ("from=1700000000&to=1600000000", "/from"),
    ],
)
def test_bad_periods_are_named(api, v1, path, query, pointer):
    answer = api.get(f"{VERSION}/{path}?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_confidences_are_read_beside_the_references(api, v1, rng):
    put(api, packed(arrays(rng)))
    fill(rng, v1)
    body = api.get(f"{VERSION}/confidence").json()
    assert sum(body["counts"]) == body["n"] == 597
    assert sum(body["reference_counts"]) == body["reference_n"] == 300
    below = next(share for share in body["shares"] if share["name"] == "below_0.6")
    assert below["share"] == pytest.approx(sum(body["counts"][:60]) / 597)
    assert below["lower"] < below["reference"] < below["upper"]


def outcome(v1, index, wrong, sampler="measure", probability=0.1):
    Outcome.objects.create(
        version=v1,
        request_id=str(index),
        requested_at=timezone.now(),
        wrong=wrong,
        sampler=sampler,
        inclusion_probability=probability,
    )


def test_accuracy_uses_measure_labels_only(api, v1):
    empty = api.get(f"{VERSION}/accuracy").json()
    assert (empty["accuracy"], empty["low"], empty["high"], empty["n"]) == (None, 0, 1, 0)
    for index in range(40):
        outcome(v1, index, wrong=index < 4)
        outcome(v1, index, wrong=True, sampler="band", probability=None)
    Prediction.objects.create(
        version=v1, request_id="0", at=timezone.now(), sampler="measure", segment={"device": "ios"}
    )
    body = api.get(f"{VERSION}/accuracy").json()
    assert (body["accuracy"], body["n"]) == (pytest.approx(0.9), 40)
    assert 0.7 < body["low"] < 0.9 < body["high"] < 0.98
    assert api.get(f"{VERSION}/accuracy?segment.device=ios").json()["n"] == 1
