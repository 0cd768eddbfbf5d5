from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connections

from controlplane.models import Alert, Channel, Delivery
from monitoring import calibrations, hourly
from monitoring.models import DetectorState, Episode, Finding, Rollup, Segment, Unrolled
from tests.monitoring.hours import START, at, shifted, store, watched

pytestmark = pytest.mark.django_db

DAY = 24
HISTORY = 28 * DAY
CAUSE = "drift/embedding/shelf/v1"


@pytest.fixture
def fleet():
    return calibrated()


def calibrated():
    v1, course = watched(35)
    store(v1, course, 0, HISTORY)
    calibrations.calibrate(at(HISTORY))
    Channel.objects.create(name="log", kind="memory")
    return v1, course


def live(v1, course, start, end):
    """Hours as they close, each looked at before the next."""
    for hour in range(start, end):
        store(v1, course, hour, hour + 1)
        hourly.evaluate(at(hour + 1))


def state(v1, family="embedding"):
    return DetectorState.objects.get(version=v1, detector=f"{family}_hourly")


def test_natural_hours_are_stable_and_say_by_what(fleet):
    v1, course = fleet
    live(v1, course, HISTORY, HISTORY + 12)
    found = state(v1)
    assert found.status == "STABLE"
    assert found.evaluated_until == START + timedelta(hours=HISTORY + 12)
    assert found.result["value"] < found.result["limit"]
    assert (found.result["calibrated_on_days"], found.result["budget_days"]) == (28, 60)
    assert "chance alarms once in 60 days" in found.reason
    assert not Alert.objects.exists()


def test_a_shift_opens_one_episode_and_one_alert_that_end_when_it_is_over(fleet):
    v1, course = fleet
    course = shifted(course, HISTORY + 2, HISTORY + 5, 0.4)
    live(v1, course, HISTORY, HISTORY + 5)
    episode = Episode.objects.get()
    assert episode.began == START + timedelta(hours=HISTORY + 2)
    assert (episode.ended, episode.value > episode.limit) == (None, True)
    alert = Alert.objects.get(cause=CAUSE)
    assert (alert.resolved_at, alert.count, alert.detail["score"]) == (None, 1, "component 0 mean")
    live(v1, course, HISTORY + 5, HISTORY + 24)
    episode.refresh_from_db()
    alert.refresh_from_db()
    assert episode.ended is not None
    assert episode.last < START + timedelta(hours=HISTORY + 14)  # the EWMA forgets by a fifth an hour
    assert alert.resolved_at is not None
    assert state(v1).status == "STABLE"
    assert sorted(Delivery.objects.values_list("event", flat=True)) == ["resolve", "trigger"]
    assert list(Finding.objects.order_by("at").values_list("status", flat=True)) == ["DRIFTED", "STABLE"]


def test_alarms_less_than_seven_hours_apart_are_one_episode(fleet):
    v1, course = fleet
    course = shifted(shifted(course, HISTORY, HISTORY + 1, 0.4), HISTORY + 7, HISTORY + 8, 0.4)
    live(v1, course, HISTORY, HISTORY + 9)
    assert Episode.objects.count() == 1
    assert Alert.objects.get(cause=CAUSE).count == 1


def test_hours_that_close_while_no_worker_runs_are_looked_at_all_the_same(fleet):
    v1, course = fleet
    live(v1, course, HISTORY, HISTORY + 1)
    store(v1, shifted(course, HISTORY + 3, HISTORY + 4, 0.5), HISTORY + 1, HISTORY + 20)
    hourly.evaluate(at(HISTORY + 20))
    episode = Episode.objects.get()
    assert episode.began == START + timedelta(hours=HISTORY + 3)
    assert episode.ended is not None


def test_an_hour_is_looked_at_once(fleet):
    v1, course = fleet
    live(v1, course, HISTORY, HISTORY + 1)
    assert hourly.evaluate(at(HISTORY + 1, 30)) == 0


def test_an_hour_that_is_not_added_up_yet_is_awaited(fleet):
    v1, course = fleet
    live(v1, course, HISTORY, HISTORY + 1)
    store(v1, course, HISTORY + 1, HISTORY + 2)
    mark = Unrolled.objects.create(version=v1, seconds=3600, start=START + timedelta(hours=HISTORY + 1))
    assert hourly.evaluate(at(HISTORY + 2)) == 0
    mark.delete()
    assert hourly.evaluate(at(HISTORY + 2, 2)) == 2


def test_a_gap_neither_alarms_nor_ends_an_alarm_before_two_days(fleet):
    v1, course = fleet
    live(v1, shifted(course, HISTORY, None, 0.4), HISTORY, HISTORY + 2)
    hourly.evaluate(at(HISTORY + 26))
    assert Episode.objects.get().ended is None
    assert state(v1).status == "DRIFTED"
    hourly.evaluate(at(HISTORY + 52))
    assert Episode.objects.get().ended is not None
    assert Alert.objects.get(cause=CAUSE).resolution.endswith("too few images an hour for two days")


def test_the_alert_stays_while_the_sliding_window_still_says_drifted(fleet):
    v1, course = fleet
    live(v1, shifted(course, HISTORY, HISTORY + 1, 0.4), HISTORY, HISTORY + 1)
    DetectorState.objects.create(version=v1, detector="embedding_drift", state={"decided": "DRIFTED"})
    live(v1, course, HISTORY + 1, HISTORY + 20)
    assert Episode.objects.get().ended is not None
    assert Alert.objects.get(cause=CAUSE).resolved_at is None


def test_an_approved_level_ends_the_alarm_by_itself(fleet):
    v1, course = fleet
    course = shifted(course, HISTORY, None, 0.4)
    live(v1, course, HISTORY, HISTORY + 26)
    calibrations.calibrate(at(HISTORY + 26))
    proposed = calibrations.Calibration.objects.get(family="embedding", state="proposed")
    calibrations.approve(proposed, "ann", "new shelf", at(HISTORY + 26))
    live(v1, course, HISTORY + 26, HISTORY + 40)
    assert Episode.objects.get().ended is not None
    assert Alert.objects.get(cause=CAUSE).resolved_at is not None


def test_the_alert_says_where_it_comes_from(fleet):
    v1, course = fleet
    for device in ("nano", "orin"):
        Segment.objects.create(model=v1.model, key=f"device={device}", values={"device": device})
    live(v1, shifted(course, HISTORY, None, 0.4), HISTORY, HISTORY + 1)
    episode = Episode.objects.get()
    assert episode.attribution["sentence"]
    sentence = episode.attribution["sentence"]
    assert Alert.objects.get(cause=CAUSE).summary.endswith(f"{sentence[1:]}.")


def test_hours_in_the_bins_of_another_reference_are_not_compared(fleet):
    v1, course = fleet
    calibrations.Calibration.objects.filter(family="embedding").update(reference_digest="other")
    store(v1, course, HISTORY, HISTORY + 1)
    assert hourly.evaluate(at(HISTORY + 1)) == 1  # the confidences
    assert not DetectorState.objects.filter(detector="embedding_hourly").exists()


def test_an_hour_with_few_images_says_nothing(fleet):
    v1, course = fleet
    store(v1, shifted(course, HISTORY, None, 5.0), HISTORY, HISTORY + 1)
    Rollup.objects.filter(start=START + timedelta(hours=HISTORY)).update(embedded=400)
    hourly.evaluate(at(HISTORY + 1))
    assert not Episode.objects.filter(family="embedding").exists()


@pytest.mark.django_db(transaction=True)
def test_workers_looking_at_once_alert_once():
    v1, course = calibrated()
    store(v1, shifted(course, HISTORY, None, 0.4), HISTORY, HISTORY + 1)

    def work(_index):
        try:
            return hourly.evaluate(at(HISTORY + 1))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) == 2  # embedding and confidence
    assert Delivery.objects.filter(event="trigger").count() == 1
