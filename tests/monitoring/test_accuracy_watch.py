"""When do labels say that a version is less accurate than it was?"""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from controlplane.models import Alert
from monitoring import accuracy_watch
from monitoring.models import DetectorState, Finding, Outcome
from tests.monitoring.build import T0, version

pytestmark = pytest.mark.django_db

NOW = T0 + timedelta(days=60)
CAUSE = "accuracy/products/v1"


@pytest.fixture
def v1():
    return version()


@pytest.fixture
def posted(v1):
    v1.metadata = {"accuracy": 0.95}
    v1.save()
    return v1


def labels(v1, n, wrong_share, at=NOW - timedelta(days=1)):
    """n outcomes of measured requests, spread evenly."""
    wrong = np.diff(np.floor(np.arange(n + 1) * wrong_share)) > 0
    known = Outcome.objects.count()
    Outcome.objects.bulk_create(
        Outcome(
            version=v1,
            request_id=str(known + i),
            requested_at=at,
            wrong=bool(missed),
            sampler="measure",
            inclusion_probability=0.1,
        )
        for i, missed in enumerate(wrong)
    )


def state():
    return DetectorState.objects.get(detector="accuracy")


def test_labels_that_exclude_the_baseline_raise_a_critical_alert(posted):
    labels(posted, 2000, 0.12)
    assert accuracy_watch.watch(NOW) == 1
    alert = Alert.objects.get(cause=CAUSE, resolved_at=None)
    assert (alert.severity, alert.version) == ("critical", posted)
    assert alert.summary.startswith("products v1 is less accurate: 88.00 % right in 2,000 labels")
    assert alert.detail["sequence"]["high"] < alert.detail["alarm_below"] == pytest.approx(0.999 * 0.95)
    assert Finding.objects.get().alert == alert


def test_a_loss_that_luck_can_explain_is_no_alarm_and_says_what_is_missing(posted):
    labels(posted, 200, 0.08)
    accuracy_watch.watch(NOW)
    assert not Alert.objects.exists()
    assert (state().status, "cannot tell yet, needs about" in state().reason) == ("TOO_FEW", True)


def test_the_same_labels_looked_at_again_page_nobody_again(posted):
    labels(posted, 2000, 0.12)
    accuracy_watch.watch(NOW)
    accuracy_watch.watch(NOW + timedelta(hours=1))
    assert (Alert.objects.get().count, Finding.objects.count()) == (1, 1)


def test_within_the_hour_nobody_looks_twice(posted):
    labels(posted, 100, 0.05)
    assert accuracy_watch.watch(NOW) == 1
    assert accuracy_watch.watch(NOW + timedelta(minutes=59)) == 0
    assert accuracy_watch.watch(NOW + timedelta(minutes=60)) == 1


def test_an_alarm_stays_while_the_estimate_is_below_the_line(posted):
    labels(posted, 2000, 0.12)
    accuracy_watch.watch(NOW)
    Outcome.objects.all().delete()
    labels(posted, 60, 0.12)
    accuracy_watch.watch(NOW + timedelta(hours=1))
    assert (state().status, Alert.objects.get().resolved_at) == ("DRIFTED", None)


@pytest.mark.parametrize(("n", "share"), [(500, 0.02), (0, 0.0)])
def test_it_resolves_when_labels_are_good_again_or_end(posted, n, share):
    labels(posted, 2000, 0.12)
    accuracy_watch.watch(NOW)
    Outcome.objects.all().delete()
    labels(posted, n, share)
    accuracy_watch.watch(NOW + timedelta(hours=1))
    assert Alert.objects.get().resolved_at == NOW + timedelta(hours=1)
    assert [finding.status for finding in Finding.objects.order_by("id")] == ["DRIFTED", state().status]


def test_labels_that_exclude_any_loss_say_so(posted):
    labels(posted, 3000, 0.01)
    accuracy_watch.watch(NOW)
    assert (state().status, state().reason[:24]) == ("STABLE", "is as accurate as it was")


def test_without_a_posted_baseline_the_first_thirty_days_are_it(v1):
    labels(v1, 400, 0.04, at=NOW - timedelta(days=35))
    labels(v1, 2000, 0.10)
    accuracy_watch.watch(NOW)
    stored = state().state["baseline"]
    assert (stored["accuracy"], stored["n"], stored["source"]) == (pytest.approx(0.96), 400, "labels")
    assert Alert.objects.filter(cause=CAUSE).exists()


def test_a_baseline_from_labels_never_moves_again(v1):
    labels(v1, 400, 0.04, at=NOW - timedelta(days=35))
    labels(v1, 100, 0.04)
    accuracy_watch.watch(NOW)
    first = state().state["baseline"]
    labels(v1, 5000, 0.5, at=NOW - timedelta(days=34))
    accuracy_watch.watch(NOW + timedelta(hours=1))
    assert state().state["baseline"] == first


def test_while_the_baseline_is_learned_nothing_is_compared(v1):
    labels(v1, 400, 0.5, at=NOW - timedelta(days=12))
    accuracy_watch.watch(NOW)
    assert "12 of 30 days" in state().reason
    assert not Alert.objects.exists()


def test_a_baseline_of_a_few_labels_is_none(v1):
    labels(v1, 50, 0.0, at=NOW - timedelta(days=40))
    labels(v1, 2000, 0.5)
    accuracy_watch.watch(NOW)
    assert "50 labels of its first 30 days, needs 200" in state().reason
    assert not Alert.objects.exists()


@pytest.mark.parametrize("nonsense", [True, "0.9", 0, 1.2, None, float("inf")])
def test_a_posted_accuracy_that_is_none_is_not_read(v1, nonsense):
    v1.metadata = {"accuracy": nonsense}
    assert accuracy_watch.baseline(v1, None, NOW)["source"] == "labels"


def test_the_calibration_of_confidences_is_stored_with_its_date(posted):
    labels(posted, 60, 0.1)
    accuracy_watch.watch(NOW)
    stored = state().state["calibration"]
    assert (stored["reason"], stored["made_at"]) == (
        "too few labels to calibrate: 0 of 500",
        NOW.isoformat(),
    )


def test_labels_of_other_samplers_say_nothing(posted):
    labels(posted, 500, 0.9)
    Outcome.objects.update(sampler="band")
    assert accuracy_watch.watch(NOW) == 0
