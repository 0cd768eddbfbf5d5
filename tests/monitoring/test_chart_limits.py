"""Whose limits, from which period, without which points."""

from __future__ import annotations

import pytest

from controlplane.models import AuditEntry
from controlplane.problems import Problem
from monitoring import chart_limits, charting
from monitoring.models import ChartExclusion, ControlChart
from tests.monitoring.build import version
from tests.monitoring.charts import at, hours, place, steady

pytestmark = pytest.mark.django_db


@pytest.fixture
def v1():
    found = version()
    hours(found, [900, *steady(29)])
    return found


def recalculate(where, since=0, until=30, **more):
    return chart_limits.recalculate(
        where, at(since), at(until), **{"by": "ann", "reason": "calm", "now": at(30), **more}
    )


def exclude(v1, number=0, **more):
    given = {"by": "ann", "reason": "lens cap on", "now": at(30)}
    return chart_limits.exclude(v1, "low_share", at(number), **{**given, **more})


def test_a_recalculation_keeps_the_old_chart_as_history(v1):
    first, second = (
        recalculate(place(v1)),
        recalculate(place(v1), since=1, by="bob", reason="without the first"),
    )
    assert (first.number, second.number) == (1, 2)
    first.refresh_from_db()
    assert first.retired_at == at(30)
    assert first.settings["estimate"]["center"] > second.settings["estimate"]["center"]
    assert [entry.act for entry in AuditEntry.objects.all()] == ["chart.recalculate"] * 2


def test_settings_and_level_stay_as_they_were_unless_they_are_given(v1):
    recalculate(place(v1, "ewma"), changes={"lam": 0.1, "width": 2.945})
    again = recalculate(place(v1, "ewma"), changes={"width": 3.0})
    assert (again.settings["lam"], again.settings["width"], again.settings["seconds"]) == (0.1, 3.0, 3600)


def test_limits_hold_on_when_their_own_hours_are_gone(v1):
    made = recalculate(place(v1), since=1)
    v1.rollups.filter(start__lt=at(20)).delete()
    drawn = charting.chart_of(place(v1), at(30), since=at(0))
    assert drawn.estimate.center == made.settings["estimate"]["center"]


def test_an_excluded_point_leaves_the_limits_at_once_and_is_shown_with_its_reason(v1):
    with_it = recalculate(place(v1))
    row = exclude(v1)
    drawn = charting.chart_of(place(v1), at(30), since=at(0))
    assert drawn.chart.number == with_it.number + 1
    assert drawn.chart.reason == "without 2026-11-03 00:00: lens cap on"
    assert drawn.estimate.center < with_it.settings["estimate"]["center"]
    assert drawn.points[0].exclusion == row
    assert drawn.points[0].value == 0.9
    assert drawn.points[0].rules == ()


def test_provisional_limits_leave_an_excluded_point_out_too(v1):
    before = charting.chart_of(place(v1), at(30), since=at(0)).estimate
    exclude(v1)
    after = charting.chart_of(place(v1), at(30), since=at(0)).estimate
    assert (before.points, after.points) == (30, 29)
    assert after.center < before.center


def test_a_point_outside_phase_1_changes_no_limits(v1):
    made = recalculate(place(v1), since=5)
    exclude(v1, 2)
    assert ControlChart.objects.get() == made


def test_every_chart_of_the_measure_follows_an_exclusion(v1):
    recalculate(place(v1))
    recalculate(place(v1, "individuals"))
    recalculate(place(v1, "individuals", "confidence_mean"))
    exclude(v1)
    assert {(c.kind, c.measure, c.number) for c in ControlChart.objects.filter(retired_at=None)} == {
        ("p", "low_share", 2),
        ("individuals", "low_share", 2),
        ("individuals", "confidence_mean", 1),
    }


def test_a_group_with_an_excluded_hour_is_left_out(v1):
    exclude(v1, 7)
    drawn = charting.chart_of(place(v1, "xbar"), at(30), since=at(0))
    assert [point.exclusion is not None for point in drawn.points] == [
        False,
        True,
        False,
        False,
        False,
        False,
    ]
    assert drawn.estimate.points == 5


def test_withdrawing_takes_the_point_back_in_and_keeps_what_was(v1):
    first = recalculate(place(v1))
    row = exclude(v1)
    chart_limits.withdraw(v1, row.pk, by="bob", reason="it was normal", now=at(31))
    drawn = charting.chart_of(place(v1), at(30), since=at(0))
    assert drawn.points[0].exclusion is None
    assert drawn.chart.number == 3
    assert drawn.estimate.center == first.settings["estimate"]["center"]
    assert ChartExclusion.objects.get().withdrawn_at == at(31)


def test_an_exclusion_of_one_segment_is_not_one_of_all(v1):
    exclude(v1, segment={"device": "ios"})
    assert charting.chart_of(place(v1), at(30), since=at(0)).points[0].exclusion is None


def refusal(call):
    with pytest.raises(Problem) as refused:
        call()
    return refused.value.status, refused.value.errors[0]["code"]


def test_a_point_is_excluded_once(v1):
    exclude(v1)
    assert refusal(lambda: exclude(v1)) == (409, "already_excluded")


def test_an_exclusion_is_withdrawn_once(v1):
    row = exclude(v1)
    chart_limits.withdraw(v1, row.pk, by="ann", reason="", now=at(31))
    again = refusal(lambda: chart_limits.withdraw(v1, row.pk, by="ann", reason="", now=at(31)))
    assert again == (409, "withdrawn")
    other = version(name="v2")
    assert refusal(lambda: chart_limits.withdraw(other, row.pk, by="ann", reason="", now=at(31)))[0] == 404


def test_a_time_without_an_interval_cannot_be_excluded(v1):
    assert refusal(lambda: exclude(v1, 0.5)) == (422, "no_point")


def test_a_phase_1_of_too_few_points_is_refused_and_the_old_one_stays(v1):
    recalculate(place(v1))
    assert refusal(lambda: recalculate(place(v1), since=27)) == (422, "too_few_points")
    assert ControlChart.objects.get().retired_at is None


def test_an_exclusion_that_would_leave_too_few_points_is_refused_whole(v1):
    recalculate(place(v1), since=0, until=5)
    assert refusal(lambda: exclude(v1)) == (422, "too_few_points")
    assert not ChartExclusion.objects.exists()
