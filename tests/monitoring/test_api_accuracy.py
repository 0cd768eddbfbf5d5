"""Accuracy over HTTP: labels, confidences, segments, and the comparison with the baseline."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from monitoring import accuracy_watch
from tests.monitoring.api import VERSION, api, client_for, v1
from tests.monitoring.test_accuracy import heard, label

__all__ = ["api", "client_for", "v1"]


@pytest.fixture
def yesterday():
    return timezone.now() - timedelta(days=1)


def read(api, query=""):
    return api.get(f"{VERSION}/accuracy{query}").json()


def test_without_enough_labels_the_estimate_says_how_many_are_missing(api, v1, yesterday):
    label(v1, np.zeros(60, bool), 0.9, at=yesterday)
    found = read(api)["label_free"]
    assert (found["accuracy"], found["reason"]) == (None, "too few labels to calibrate: 60 of 500")


def test_the_estimate_of_all_requests_stands_beside_the_labels(api, v1, yesterday):
    label(v1, np.arange(600) < 60, 0.9, at=yesterday)
    heard(v1, 0.9, 5000, start=yesterday.replace(minute=0, second=0, microsecond=0))
    body = read(api)
    found = body["label_free"]
    assert (body["accuracy"], body["n"]) == (pytest.approx(0.9), 600)
    assert (found["accuracy"], found["n"]) == (pytest.approx(0.9, abs=0.01), 5000)
    assert found["low"] < found["accuracy"] < found["high"]
    assert (found["calibrated_with"], found["labels"]) == ("labels", pytest.approx(600))
    assert "CBPE" in found["method"]


def test_segments_are_listed_and_compared_with_their_truth(api, v1, yesterday):
    hour = yesterday.replace(minute=0, second=0, microsecond=0)
    label(v1, np.arange(600) < 30, 0.9, at=yesterday, segment={"device": "ios"}, tag="i")
    label(v1, np.arange(100) < 60, 0.9, at=yesterday, segment={"device": "web"}, tag="w")
    for device in ("ios", "tv", "web"):
        heard(v1, 0.9, 1000, segment={"device": device}, start=hour)
    ios, tv, web = read(api, "?by=device")["segments"]
    assert [part["segment"]["device"] for part in (ios, tv, web)] == ["ios", "tv", "web"]
    assert [part["n"] for part in (ios, tv, web)] == [600, 0, 100]
    assert [part["agree"] for part in (tv, web)] == [None, False]
    assert web["label_free"]["low"] > web["high"]


@pytest.mark.parametrize("by", ["", "device,", "device,device"])
def test_bad_names_of_segments_are_refused(api, v1, by):
    answer = api.get(f"{VERSION}/accuracy?by={by}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/by")


def test_the_comparison_with_the_baseline_is_shown(api, v1, yesterday):
    assert read(api)["watch"]["reason"] == "no labels have been looked at yet"
    v1.metadata = {"accuracy": 0.95}
    v1.save()
    label(v1, np.arange(1000) < 200, 0.9, at=yesterday)
    accuracy_watch.watch(timezone.now())
    watch = read(api)["watch"]
    assert (watch["status"], watch["baseline"]) == ("DRIFTED", 0.95)
    assert watch["sequence"]["high"] < watch["alarm_below"]
