from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from controlplane.models import Alert
from monitoring import calibrations, declines
from monitoring.models import Calibration, DetectorState, Finding
from monitoring.statistics.calibration import Series
from tests.monitoring.hours import START, at, store, watched

pytestmark = pytest.mark.django_db

DAY = 24
HISTORY = 28 * DAY
CAUSE = "decline/embedding/shelf/v1"


@pytest.fixture
def ramp():
    """28 days of history, then a component that moves by .3 in 40 days."""
    v1, course = watched(70)
    values = course.values.copy()
    values[:, 0] += 0.3 * np.clip((np.arange(len(values)) - HISTORY) / (40 * DAY), 0, 1)
    store(v1, course, 0, HISTORY)
    calibrations.calibrate(at(HISTORY))
    return v1, Series(course.hours, course.n, values)


def state(v1):
    return DetectorState.objects.get(version=v1, detector="embedding_slow")


def test_a_level_that_stays_is_stable(ramp):
    v1, _ = ramp
    declines.evaluate(at(HISTORY))
    found = state(v1)
    assert found.status == "STABLE"
    assert found.result["largest"] < found.result["limits"]["largest"]
    assert found.evaluated_until == START + timedelta(hours=HISTORY)


def test_a_day_is_looked_at_once(ramp):
    assert declines.evaluate(at(HISTORY)) == 2
    assert declines.evaluate(at(HISTORY + 23)) == 0


def test_a_ramp_alarms_with_since_when_and_how_fast_and_a_new_level_is_only_proposed(ramp):
    v1, course = ramp
    store(v1, course, HISTORY, HISTORY + 35 * DAY)
    now = at(HISTORY + 35 * DAY)
    declines.evaluate(now)
    found = state(v1)
    assert found.status == "DRIFTED"
    assert found.result["score"] == "component 0 mean"
    assert found.result["slope_per_30_days"] == pytest.approx(0.15, abs=0.1)
    assert len(found.result["shape"]) == len(found.result["days"]) == 63
    alert = Alert.objects.get(cause=CAUSE)
    assert "a yearly season looks like this, too" in alert.summary
    assert "shape" not in alert.detail
    calibrations.calibrate(now)
    states = Calibration.objects.filter(family="embedding").order_by("number").values_list("state", flat=True)
    assert list(states) == ["active", "proposed"]
    declines.evaluate(at(HISTORY + 36 * DAY))
    assert Alert.objects.get(cause=CAUSE).count == 1
    assert Finding.objects.filter(detector="embedding_slow", status="DRIFTED").count() == 1


def test_an_approval_ends_the_alarm(ramp):
    v1, course = ramp
    store(v1, course, HISTORY, HISTORY + 35 * DAY)
    now = at(HISTORY + 35 * DAY)
    declines.evaluate(now)
    calibrations.calibrate(now)
    proposed = Calibration.objects.get(family="embedding", state="proposed")
    calibrations.approve(proposed, "ann", "winter", now)
    declines.evaluate(at(HISTORY + 36 * DAY))
    assert state(v1).status == "TOO_FEW"  # a week under the new level
    assert Alert.objects.get(cause=CAUSE).resolved_at is not None


def test_without_new_hours_an_alarm_that_was_on_stays_on(ramp):
    v1, course = ramp
    store(v1, course, HISTORY, HISTORY + 35 * DAY)
    declines.evaluate(at(HISTORY + 35 * DAY))
    declines.evaluate(at(HISTORY + 60 * DAY))
    assert state(v1).status == "DRIFTED"
    assert Alert.objects.get(cause=CAUSE).resolved_at is None


def test_too_few_days_say_nothing(ramp):
    v1, _ = ramp
    declines.evaluate(at(HISTORY + 20 * DAY))
    assert state(v1).status == "TOO_FEW"
    assert not Alert.objects.exists()
