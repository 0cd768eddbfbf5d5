"""What a control chart of a version shows."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from davy import counting, wire

from controlplane.problems import Problem
from monitoring import chart_limits, charting, references
from monitoring.models import Rollup
from monitoring.statistics.charts import kinds, measures
from tests.monitoring.build import version
from tests.monitoring.charts import at, hour, hours, place, steady

pytestmark = pytest.mark.django_db


@pytest.fixture
def v1():
    return version()


def chart(where, until=40, **asked):
    return charting.chart_of(where, at(until), since=at(0), until=at(until), **asked)


def test_without_a_phase_1_the_limits_are_those_of_the_points_shown(v1):
    hours(v1, steady())
    drawn = chart(place(v1), until=30)
    assert drawn.limits_from == "points"
    assert drawn.estimate.center == pytest.approx(np.mean(steady()) / 1000)
    assert [point.phase for point in drawn.points] == [2] * 30


def test_the_references_share_is_the_centre_until_somebody_sets_a_phase_1(v1):
    rng = np.random.default_rng(1)
    references.freeze(v1, rng.normal(size=(200, 4)).astype("f4"), np.repeat([0.5, 0.9], [50, 150]))
    hours(v1, steady())
    drawn = chart(place(v1), until=30)
    assert (drawn.limits_from, drawn.estimate.center) == ("reference", 0.25)
    assert drawn.signals == 30


def test_an_hour_that_nothing_came_from_is_a_gap_in_the_middle_and_at_the_end_but_not_before_the_first(v1):
    hours(v1, [100, 101, None, 99], first=5)
    drawn = chart(place(v1), until=11)
    assert [point.value for point in drawn.points] == [0.1, 0.101, None, 0.099, None, None]
    assert drawn.points[0].start == at(5)
    assert drawn.points[2].upper is None


def test_the_open_hour_is_not_shown(v1):
    hours(v1, [100, 100, 5])
    drawn = charting.chart_of(place(v1), at(2.5), since=at(0))
    assert [point.end for point in drawn.points] == [at(1), at(2)]


def test_segments_fleets_and_purposes_are_added_up_and_pinned_requests_are_not(v1):
    for fields in (
        {"segment": {"device": "ios"}, "segment_key": "ios"},
        {"segment": {"device": "web"}, "segment_key": "web"},
        {"fleet": "local"},
        {"purpose": "import"},
        {"purpose": "late"},
        {"purpose": "pinned"},
        {"purpose": "shadow"},
    ):
        hour(v1, 0, 100, **fields)
    assert chart(place(v1), until=1).points[0].n == 5000


def test_a_segment_is_charted_alone(v1):
    hour(v1, 0, 100, segment={"device": "ios", "country": "de"}, segment_key="a")
    hour(v1, 0, 300, segment={"device": "web"}, segment_key="b")
    (point,) = chart(place(v1, device="ios"), until=1).points
    assert (point.n, point.value) == (1000, 0.1)


def test_points_that_break_a_rule_name_it(v1):
    hours(v1, steady())
    chart_limits.recalculate(place(v1), at(0), at(30), by="ann", reason="a calm month", now=at(30))
    hours(v1, [200, 112, 112, 112, 112, 112, 112, 112], first=30)
    points = chart(place(v1), until=38).points
    assert points[30].rules[0] == 1
    assert 4 in points[37].rules
    assert [point.phase for point in points] == [1] * 30 + [2] * 8


def test_a_point_of_a_group_chart_is_a_group_and_the_rest_waits(v1):
    hours(v1, steady())
    drawn = chart(place(v1, "xbar"), until=28)
    assert [point.end - point.start for point in drawn.points] == [timedelta(hours=5)] * 5
    assert drawn.points[0].n == 5000


def test_groups_begin_at_the_same_hours_whenever_one_looks(v1):
    hours(v1, steady())
    late = charting.chart_of(place(v1, "xbar"), at(30), since=at(3), until=at(30))
    assert late.points[0].start == at(5)


def test_limits_of_hours_are_not_drawn_around_days(v1):
    hours(v1, steady())
    chart_limits.recalculate(place(v1), at(0), at(30), by="ann", reason="calm", now=at(30))
    drawn = chart(place(v1), until=30, seconds=86400)
    assert (drawn.chart, drawn.estimate) == (None, None)


@pytest.fixture
def everything(v1):
    """Twelve hours of all that a collector sends."""
    rng = np.random.default_rng(2)
    stored, _ = references.freeze(v1, rng.normal(size=(200, 4)).astype("f4"), rng.random(200))
    for number in range(12):
        hour(
            v1,
            number,
            100,
            errors=int(rng.integers(20)),
            latency=wire.pack(counting.count_latency(rng.exponential(0.02, 500))),
            detections=wire.pack(counting.count_detections(rng.poisson(2, 500))),
            embedding=wire.pack(references.load(v1).count(rng.normal(size=(500, 4)))),
            reference_digest=stored.digest,
        )
    return v1


def test_every_chart_of_every_measure_is_drawn_or_refused_by_name(everything):
    for measure, found in measures.MEASURES.items():
        for kind in kinds.KINDS:
            if kind not in kinds.KINDS_OF[found.form]:
                with pytest.raises(Problem, match="is shown by the charts"):
                    place(everything, kind, measure)
                continue
            drawn = chart(place(everything, kind, measure), until=12)
            assert drawn.estimate is not None, (kind, measure)
            assert any(point.upper is not None for point in drawn.points), (kind, measure)


def test_a_distance_counts_only_rows_in_the_bins_of_the_present_reference(v1):
    rng = np.random.default_rng(3)
    bins, _ = references.freeze(v1, rng.normal(size=(200, 4)).astype("f4"), rng.random(200))
    counts = wire.pack(references.load(v1).count(rng.normal(size=(500, 4))))
    hour(v1, 0, 1, embedding=counts, reference_digest=bins.digest)
    hour(v1, 0, 1, embedding=b"not of these bins", reference_digest="old")
    assert chart(place(v1, "individuals", "d_max"), until=1).points[0].n == 500


def test_too_few_points_are_drawn_without_limits(v1):
    hours(v1, [100])
    drawn = chart(place(v1, "individuals"), until=1)
    assert (drawn.estimate, drawn.limits_from) == (None, "")
    assert (drawn.points[0].value, drawn.points[0].upper) == (0.1, None)


def test_a_version_without_any_telemetry_has_no_points(v1):
    assert chart(place(v1)).points == []


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"seconds": 10}, "/seconds"),
        ({"since": at(-5000)}, "/from"),
        ({"changes": {"lam": 2.0}}, "/lambda"),
        ({"changes": {"rules": "mine"}}, "/rules"),
    ],
)
def test_what_cannot_be_drawn_is_named(v1, asked, pointer):
    with pytest.raises(Problem) as refused:
        charting.chart_of(place(v1), at(0), **{"since": at(-5), **asked})
    assert refused.value.errors[0]["pointer"] == pointer


def test_minutes_are_another_level(v1):
    for minute in range(5):
        hour(v1, 0, 10, n=100, seconds=60, start=at(0) + timedelta(minutes=minute))
    drawn = charting.chart_of(place(v1), at(0.1), seconds=60)
    assert [point.n for point in drawn.points][:5] == [100] * 5
    assert Rollup.objects.count() == 5
