from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from django.db import connections

from controlplane import alerts
from controlplane.models import AuditEntry
from controlplane.problems import Problem
from monitoring import calibrations, references
from monitoring.models import Calibration, DetectorState, Episode
from tests.monitoring.hours import START, at, shifted, store, watched

pytestmark = pytest.mark.django_db

DAY = 24


def embedding(v1):
    return Calibration.objects.filter(version=v1, family="embedding").order_by("number")


def test_two_weeks_of_hours_become_a_calibration_with_its_date_and_limits():
    v1, course = watched(20)
    store(v1, course, 0, 20 * DAY)
    assert calibrations.calibrate(at(20 * DAY)) == 2
    row = embedding(v1).get()
    assert (row.state, row.number, row.made_at, row.hours) == ("active", 1, at(20 * DAY), 20 * DAY)
    assert (row.history_from, row.history_until) == (START, START + timedelta(days=20))
    assert set(row.limits) == {"days", "baseline_days", "budget_days", "largest", "t2", "ewma"}
    assert row.limits["days"] == 20
    assert calibrations.limits_of(row).limits.tolist() == [
        row.limits[name] for name in ("largest", "t2", "ewma")
    ]
    assert Calibration.objects.get(version=v1, family="confidence").state == "active"
    assert not Calibration.objects.filter(family="detections").exists()  # nobody counts any


def test_below_two_weeks_it_is_learning_until_there_are_fourteen():
    v1, course = watched(15)
    store(v1, course, 0, 9 * DAY)
    calibrations.calibrate(at(9 * DAY))
    row = embedding(v1).get()
    assert (row.state, row.limits, bytes(row.data)) == ("learning", {"days": 9, "of": 14}, b"")
    store(v1, course, 9 * DAY, 14 * DAY)
    calibrations.calibrate(at(14 * DAY))
    row.refresh_from_db()
    assert (row.state, row.number, row.limits["days"]) == ("active", 1, 14)


def test_it_is_due_after_a_week_and_not_before():
    v1, course = watched(30)
    store(v1, course, 0, 20 * DAY)
    calibrations.calibrate(at(20 * DAY))
    assert calibrations.calibrate(at(20 * DAY, 20)) == 0
    store(v1, course, 20 * DAY, 27 * DAY)
    assert calibrations.calibrate(at(27 * DAY) - timedelta(minutes=1)) == 0
    assert calibrations.calibrate(at(27 * DAY)) == 2
    assert list(embedding(v1).values_list("number", "state")) == [(1, "retired"), (2, "active")]


def test_a_version_that_nobody_uses_any_more_is_left_as_it_is():
    v1, course = watched(20)
    store(v1, course, 0, 20 * DAY)
    calibrations.calibrate(at(20 * DAY))
    assert calibrations.calibrate(at(30 * DAY)) == 0


def test_another_reference_is_learnt_anew():
    v1, course = watched(40)
    store(v1, course, 0, 20 * DAY)
    calibrations.calibrate(at(20 * DAY))
    rng = np.random.default_rng(5)
    proposed, _ = references.freeze(v1, rng.normal(size=(2000, 3)).astype("f4"), rng.beta(8, 2, 2000))
    references.approve(v1, proposed.number, "ann", "new cameras", at(20 * DAY))
    store(v1, course, 20 * DAY, 23 * DAY)
    calibrations.calibrate(at(23 * DAY))
    assert list(embedding(v1).values_list("state", "reference_digest"))[1:] == [("learning", proposed.digest)]
    assert calibrations.in_force(v1, "embedding").limits == {"days": 3, "of": 14}


@pytest.mark.parametrize(("days", "counts"), [(1, False), (8, True)], ids=["an incident", "always so"])
def test_an_incident_of_the_first_weeks_is_not_learnt_as_normal(days, counts):
    v1, course = watched(20)
    store(v1, shifted(course, 5 * DAY, 5 * DAY + 20, 3.0), 0, 20 * DAY)
    began = START + timedelta(days=5)
    alert = alerts.open(calibrations.cause(v1, "embedding"), severity="warning", summary="D = .9", now=began)
    alerts.resolve(alert.cause, resolution="over", now=began + timedelta(days=days) - timedelta(minutes=1))
    calibrations.calibrate(at(20 * DAY))
    scale = calibrations.limits_of(embedding(v1).get()).scale[0]
    assert (scale > 0.3) == counts


def test_the_rate_that_is_set_today_counts(settings):
    v1, course = watched(20)
    store(v1, course, 0, 20 * DAY)
    calibrations.calibrate(at(20 * DAY))
    row = embedding(v1).get()
    before = calibrations.limits_of(row).limits
    settings.ALARM_BUDGET_DAYS = 365
    assert (calibrations.limits_of(row).limits > before).all()


def open_episode(v1, began):
    return Episode.objects.create(
        version=v1, family="embedding", began=began, last=began, statistic="largest", value=9, limit=5
    )


@pytest.fixture
def alarmed():
    """A version that has been calibrated, and whose first component moved by a fifth on day 20, which alarmed."""
    v1, course = watched(40)
    course = shifted(course, 20 * DAY, None, 0.2)
    store(v1, course, 0, 20 * DAY)
    calibrations.calibrate(at(20 * DAY))
    store(v1, course, 20 * DAY, 25 * DAY)
    open_episode(v1, START + timedelta(days=20))
    return v1


def test_while_an_alarm_is_on_a_new_level_is_only_proposed_and_a_day_later(alarmed):
    assert calibrations.calibrate(at(20 * DAY + 23)) == 0
    calibrations.calibrate(at(25 * DAY))
    (_, active), (_, proposed) = embedding(alarmed).values_list("number", "state")
    assert (active, proposed) == ("active", "proposed")
    first, second = embedding(alarmed)
    moved = calibrations.limits_of(second).baseline.level - calibrations.limits_of(first).baseline.level
    assert moved[0] == pytest.approx(0.2, abs=0.05)
    calibrations.calibrate(at(26 * DAY))
    assert list(embedding(alarmed).values_list("state", flat=True)) == ["active", "retired", "proposed"]


def test_an_approval_puts_the_proposal_in_force_and_is_audited(alarmed):
    calibrations.calibrate(at(25 * DAY))
    first, proposed = embedding(alarmed)
    calibrations.approve(proposed, "ann", "winter collection", at(25 * DAY))
    first.refresh_from_db()
    proposed.refresh_from_db()
    assert (first.state, proposed.state) == ("retired", "active")
    assert (proposed.approved_by, proposed.reason) == ("ann", "winter collection")
    assert AuditEntry.objects.get(act="calibration.approve").reason == "winter collection"
    with pytest.raises(Problem, match="not proposed"):
        calibrations.approve(proposed, "ann", "again", at(25 * DAY))


def test_a_proposal_is_not_approved_without_a_reason(alarmed):
    calibrations.calibrate(at(25 * DAY))
    with pytest.raises(Problem):
        calibrations.approve(embedding(alarmed).last(), "ann", "  ", at(25 * DAY))
    assert embedding(alarmed).last().state == "proposed"


def test_after_an_approved_change_it_learns_again_while_the_new_level_is_in_force(alarmed):
    calibrations.calibrate(at(25 * DAY))
    calibrations.approve(embedding(alarmed).last(), "ann", "winter collection", at(25 * DAY))
    Episode.objects.update(ended=at(25 * DAY))
    calibrations.calibrate(at(25 * DAY) + timedelta(days=7) - timedelta(hours=1))
    states = list(embedding(alarmed).values_list("state", flat=True))
    assert states[:2] == ["retired", "active"]


def test_a_slow_decline_counts_as_an_alarm():
    v1, course = watched(30)
    store(v1, course, 0, 20 * DAY)
    calibrations.calibrate(at(20 * DAY))
    hour = int(START.timestamp()) // 3600 + 15 * DAY
    DetectorState.objects.create(
        version=v1, detector=calibrations.slow("embedding"), status="DRIFTED", state={"since_hour": hour}
    )
    assert calibrations.changed_since(v1, "embedding") == hour
    store(v1, course, 20 * DAY, 22 * DAY)
    calibrations.calibrate(at(22 * DAY))
    assert embedding(v1).last().state == "proposed"


@pytest.mark.django_db(transaction=True)
def test_workers_calibrating_at_once_make_one():
    v1, course = watched(20)
    store(v1, course, 0, 20 * DAY)

    def work(_index):
        try:
            return calibrations.calibrate(at(20 * DAY))
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(work, range(3))) == 2
    assert embedding(v1).count() == 1
