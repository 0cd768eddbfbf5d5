"""Claims about what Prometheus hears of models, and about the rules that come with it."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from davy import counting
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from controlplane.models import Fleet, Route
from monitoring import accuracy_watch, exposition, windows
from monitoring.models import Calibration, DetectorState, Episode, VersionTotal
from monitoring.statistics.label_free import calibrator
from tests.monitoring.build import report, store, version, window

RULES = Path(__file__).resolve().parents[2] / "deploy" / "prometheus"


@pytest.fixture
def rng():
    return np.random.default_rng(19)


@pytest.fixture
def v1(db):
    return version()


def text():
    return Client().get("/metrics").content.decode()


def samples():
    """Values by metric name and its labels' values, in the order of the labels' names."""
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text())
        for sample in family.samples
        if sample.name.startswith("davy_")
    }


def told(v1, rng, n=100, **fields):
    now = timezone.now()
    start = windows.aligned(now, 10) - timedelta(seconds=10)
    store(report(v1, [window(rng, n, **fields)], start=start, fleet="edge"))
    windows.fold(now)


def test_traffic_is_counted_by_model_version_and_fleet(v1, rng):
    confidence = counting.count_confidence(np.repeat([0.299, 0.3, 0.599, 0.6, 0.999], 19)[:97])
    told(v1, rng, confidence=np.append(confidence[:-1], confidence[-1] + 97 - confidence.sum()))
    found = samples()
    place = ("edge", "products", "v1")
    assert found[("davy_requests_total", *place)] == 100
    assert found[("davy_errors_total", *place)] == 3
    sure = {key[2]: value for key, value in found.items() if key[0] == "davy_confidence_bucket"}
    assert (sure["0.25"], sure["0.3"], sure["0.6"], sure["1"], sure["+Inf"]) == (0, 19, 57, 97, 97)
    assert found[("davy_confidence_count", *place)] == 97
    assert found[("davy_confidence_sum", *place)] == pytest.approx(
        19 * (0.295 + 0.305 + 0.595 + 0.605) + 21 * 0.995
    )
    assert abs(found[("davy_last_window_timestamp_seconds", *place)] - timezone.now().timestamp()) < 300
    assert not any(name == "davy_detections_per_image_bucket" for name, *_ in found)


def test_detections_per_image_are_a_histogram_where_a_model_counts_them(v1, rng):
    counts = np.zeros(64, int)
    counts[[0, 2, 63]] = 10, 20, 5
    told(v1, rng, detections=counts)
    found = samples()
    by_most = {key[2]: value for key, value in found.items() if key[0] == "davy_detections_per_image_bucket"}
    assert [by_most[most] for most in ("0", "1", "2", "62", "+Inf")] == [10, 10, 30, 30, 35]
    assert found[("davy_detections_per_image_sum", "edge", "products", "v1")] == 40 + 5 * 63


def test_a_version_that_nobody_serves_or_hears_is_left_out_and_a_routed_one_is_not(v1, rng):
    told(v1, rng)
    VersionTotal.objects.update(updated_at=timezone.now() - timedelta(hours=2))
    assert not any(name == "davy_requests_total" for name, *_ in samples())
    Route.objects.create(model=v1.model, fleet=Fleet.objects.create(name="edge"), stable=v1)
    assert samples()[("davy_requests_total", "edge", "products", "v1")] == 100


def test_labels_are_bounded_and_what_is_left_out_is_counted(v1, monkeypatch):
    monkeypatch.setattr(exposition, "MOST", 3)
    now = timezone.now()
    for index in range(5):
        seen = now - timedelta(seconds=index)
        VersionTotal.objects.create(version=v1, fleet=f"f{index}", n=1, updated_at=seen)
    found = samples()
    assert sorted(key[1] for key in found if key[0] == "davy_requests_total") == ["f0", "f1", "f2"]
    assert found[("davy_series_left_out",)] == 2


@pytest.mark.parametrize(("status", "value"), [("STABLE", 0), ("DRIFTED", 1), ("TOO_FEW", -1)])
def test_drift_has_a_distance_its_limit_and_three_states(v1, rng, status, value):
    told(v1, rng)
    DetectorState.objects.create(
        version=v1, detector="embedding_drift", status=status, result={"d": 0.31, "n": 900}
    )
    found = samples()
    assert found[("davy_drift_distance", "embedding", "products", "v1")] == 0.31
    assert found[("davy_drift_limit", "embedding", "products", "v1")] == 0.2
    assert found[("davy_drift_state", "embedding", "products", "v1")] == value


def test_an_open_episode_is_drift_too(v1, rng):
    told(v1, rng)
    now = timezone.now()
    DetectorState.objects.create(version=v1, detector="embedding_drift", status="STABLE")
    episode = Episode.objects.create(
        version=v1, family="embedding", began=now, last=now, statistic="t2", value=9, limit=5
    )
    assert samples()[("davy_drift_state", "embedding", "products", "v1")] == 1
    Episode.objects.filter(pk=episode.pk).update(ended=now)
    assert samples()[("davy_drift_state", "embedding", "products", "v1")] == 0


def test_the_shares_of_confidences_stand_between_their_chart_limits(v1, rng):
    told(v1, rng)
    row = {"name": "below_0.6", "share": 0.3, "lower": 0.1, "upper": 0.2, "change": 0.15}
    DetectorState.objects.create(version=v1, detector="confidence_chart", result={"shares": [row]})
    found = samples()
    place = ("share_below_0.6", "products", "v1")
    assert [found[(f"davy_chart_{name}", *place)] for name in ("value", "lower", "upper")] == [0.3, 0.1, 0.2]
    assert found[("davy_drift_distance", "confidence", "products", "v1")] == 0.15


def test_the_calibration_in_force_says_how_old_it_is_and_what_it_knows(v1, rng):
    told(v1, rng)
    made = timezone.now() - timedelta(days=3)
    for number, state in ((1, "retired"), (2, "active"), (3, "proposed")):
        Calibration.objects.create(
            version=v1, family="embedding", number=number, state=state, hours=480 * number, made_at=made
        )
    found = samples()
    assert found[("davy_calibration_days", "embedding", "products", "v1")] == 40
    assert found[("davy_calibration_timestamp_seconds", "embedding", "products", "v1")] == pytest.approx(
        made.timestamp()
    )


def test_accuracy_is_measured_by_labels_and_expected_by_confidences(v1, rng):
    told(v1, rng)
    learned = calibrator(np.full(100, 8), np.full(100, 10))
    DetectorState.objects.create(
        version=v1,
        detector=accuracy_watch.NAME,
        status="TOO_FEW",
        result={"accuracy": 0.9, "low": 0.85, "high": 0.94, "n": 400, "baseline": 0.92},
        state={"calibration": {"calibrator": learned.as_json()}},
    )
    found = samples()
    assert found[("davy_accuracy_estimate", "measured", "products", "v1")] == 0.9
    assert found[("davy_accuracy_high", "measured", "products", "v1")] == 0.94
    assert found[("davy_accuracy_baseline", "products", "v1")] == 0.92
    assert found[("davy_accuracy_state", "products", "v1")] == -1
    assert ("davy_accuracy_estimate", "expected", "products", "v1") not in found  # no closed minute yet


def promtool(*words, **kwargs):
    command = ["promtool", *words]
    return subprocess.run(command, check=False, cwd=RULES, capture_output=True, text=True, **kwargs)


@pytest.mark.system
def test_promtool_accepts_the_rules_and_their_tests_pass():
    for words in (("check", "rules", "rules.yml"), ("test", "rules", "tests.yml")):
        done = promtool(*words)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
def test_promtool_finds_no_fault_with_what_is_exported(v1, rng):
    told(v1, rng, detections=np.eye(1, 64, 3, dtype=int)[0])
    done = promtool("check", "metrics", input=text())
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_metric_that_a_rule_reads_is_exported(v1, rng):
    told(v1, rng, detections=np.eye(1, 64, 3, dtype=int)[0])
    DetectorState.objects.create(version=v1, detector=accuracy_watch.NAME)
    DetectorState.objects.create(version=v1, detector="embedding_drift")
    Calibration.objects.create(version=v1, family="embedding", state="active")
    exported = {name for name, *_ in samples()}
    rules = re.sub(r"#.*|summary:.*|description:.*", "", (RULES / "rules.yml").read_text())
    read = set(re.findall(r"\b(davy_\w+)", rules))
    assert read
    assert read - exported == set()
