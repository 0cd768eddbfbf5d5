from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from davy import wire
from django.db import connections, transaction

from monitoring import references, rollups, windows
from monitoring.models import Prediction, Report, Rollup, Unrolled, Window
from monitoring.rollups import DAY, HOUR, MINUTE
from monitoring.statistics import scores
from tests.monitoring.build import T0, report, store, version, window

LATER = T0 + timedelta(days=2)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def v1(db):
    return version()


def told(v1, rng, *seconds, n=100, **fields):
    """Reports of the ten seconds that begin so long after T0, folded."""
    for offset in seconds:
        store(report(v1, [window(rng, n, **fields)], start=T0 + timedelta(seconds=offset)))
    windows.fold(T0)


def rolled(seconds):
    return list(Rollup.objects.filter(seconds=seconds).order_by("start").values_list("start", "n"))


def test_windows_add_up_to_minutes_hours_and_days(v1, rng):
    told(v1, rng, 0, 50, 60, 3600)
    rollups.roll(LATER)
    minutes = [(T0, 200), (T0 + timedelta(minutes=1), 100), (T0 + timedelta(hours=1), 100)]
    assert rolled(MINUTE) == minutes
    assert rolled(HOUR) == [(T0, 300), (T0 + timedelta(hours=1), 100)]
    assert rolled(DAY) == [(T0 - timedelta(hours=12), 400)]
    whole = sum(wire.unpack(bytes(row.confidence), (100,)) for row in Window.objects.all())
    day = Rollup.objects.get(seconds=DAY)
    assert np.array_equal(wire.unpack(bytes(day.confidence), (100,)), whole)
    assert day.errors == 12


def test_an_interval_is_rolled_up_when_it_is_over_and_its_reports_had_time_to_come(v1, rng):
    told(v1, rng, 0)
    end = T0 + timedelta(minutes=1)
    assert rollups.roll(end + rollups.GRACE - timedelta(seconds=1)) == 0
    assert rollups.roll(end + rollups.GRACE) == 1
    assert (rolled(MINUTE), rolled(HOUR)) == ([(T0, 100)], [])
    assert rollups.closed(end + rollups.GRACE, MINUTE) == end


def test_rolling_again_without_news_does_nothing(v1, rng):
    told(v1, rng, 0)
    assert rollups.roll(LATER) == 3
    before = list(Rollup.objects.values())
    assert rollups.roll(LATER) == 0
    assert list(Rollup.objects.values()) == before


def test_a_late_window_is_in_its_hour_and_day_once(v1, rng):
    told(v1, rng, 0)
    rollups.roll(LATER)
    told(v1, rng, 30, n=50)
    assert rollups.roll(LATER) == 3
    assert (rolled(MINUTE), rolled(HOUR)) == ([(T0, 150)], [(T0, 150)])
    assert [n for _, n in rolled(DAY)] == [150]


def test_segments_fleets_and_purposes_stay_apart(v1, rng):
    told(v1, rng, 0, segment={"device": "ios"})
    told(v1, rng, 0, segment={"device": "web"})
    told(v1, rng, 0, purpose="shadow")
    store(report(v1, [window(rng)], fleet="edge"))
    late = store(report(v1, [window(rng)]), received_at=T0 + timedelta(seconds=10))
    Report.objects.filter(pk=late.pk).update(late=True)
    imported = store(report(v1, [window(rng)]))
    Report.objects.filter(pk=imported.pk).update(imported=True)
    windows.fold(T0)
    rollups.roll(LATER)
    found = Rollup.objects.filter(seconds=HOUR).values_list("purpose", "fleet", "segment_key", "n")
    assert sorted(found) == [
        ("import", "", "", 100),
        ("late", "", "", 100),
        ("live", "", '{"device":"ios"}', 100),
        ("live", "", '{"device":"web"}', 100),
        ("live", "edge", "", 100),
        ("shadow", "", "", 100),
    ]


def test_a_window_longer_than_a_minute_is_in_no_minute(v1, rng):
    store(report(v1, [window(rng)], seconds=3600))
    windows.fold(T0)
    rollups.roll(LATER)
    assert (rolled(MINUTE), rolled(HOUR)) == ([], [(T0, 100)])


def test_score_sums_are_those_of_all_counts_and_know_how_many(v1, rng):
    embeddings = rng.normal(size=(300, 6)).astype("f4")
    references.freeze(v1, embeddings, rng.random(300))
    for index in range(40):
        Prediction.objects.create(
            version=v1,
            request_id=str(index),
            at=T0 + timedelta(seconds=20 * index),
            received_at=T0,
            embedding=embeddings[index].tobytes(),
        )
    windows.fold(T0)
    rollups.roll(LATER)
    bins = references.load(v1)
    packed = Window.objects.values_list("embedding", flat=True)
    counts = sum(wire.unpack(bytes(data), bins.counts.shape) for data in packed)
    expected = scores.score_sums(scores.score_table(bins.counts), counts)
    for seconds in (HOUR, DAY):
        row = Rollup.objects.get(seconds=seconds)
        assert row.embedded == 40
        np.testing.assert_allclose(np.frombuffer(row.score_sums, "<f8"), expected, atol=1e-9)


def test_counts_in_bins_that_nobody_knows_are_kept_and_not_scored(v1, rng):
    store(report(v1, [window(rng, embedding=np.full((3, 4), 25))], reference_digest="a" * 64))
    windows.fold(T0)
    rollups.roll(LATER)
    row = Rollup.objects.get(seconds=HOUR)
    assert np.array_equal(wire.unpack(bytes(row.embedding), (3, 4)), np.full((3, 4), 25))
    assert (row.embedded, bytes(row.score_sums)) == (0, b"")


def test_an_hour_stays_when_its_windows_are_gone(v1, rng):
    told(v1, rng, 0)
    rollups.roll(LATER)
    Window.objects.all().delete()
    rollups._mark_day(Unrolled(version=v1, seconds=HOUR, start=T0))
    rollups.roll(LATER)
    assert [n for _, n in rolled(HOUR) + rolled(DAY)] == [100, 100]


@pytest.mark.django_db(transaction=True)
def test_folding_and_rolling_at_once_lose_nothing_and_add_nothing_twice(rng, monkeypatch):
    monkeypatch.setattr(windows, "REPORTS_PER_TRANSACTION", 2)
    v1 = version()
    for index in range(30):
        parts = [window(rng, segment={"cell": str(cell)}) for cell in range(3)]
        store(report(v1, parts, start=T0 + timedelta(seconds=10 * (index % 3))))
    together = threading.Barrier(4)

    def work(roll):
        try:
            together.wait()
            for _ in range(10):
                if roll:
                    rollups.roll(LATER)
                else:
                    windows.fold(T0, seconds=0)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(work, roll) for roll in (True, False, True, False)]:
            future.result()
    windows.fold(T0)
    rollups.roll(LATER)
    for seconds in (MINUTE, HOUR, DAY):
        assert sum(n for _, n in rolled(seconds)) == 30 * 3 * 100
    assert not Unrolled.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_window_that_is_folded_while_its_hour_is_rolled_marks_it_again(rng):
    v1 = version()
    told(v1, rng, 0)
    folded, may_commit = threading.Event(), threading.Event()

    def fold_slowly():
        try:
            with transaction.atomic():
                store(report(v1, [window(rng, 50)]))
                windows.fold(T0)
                folded.set()
                may_commit.wait(20)
        finally:
            connections.close_all()

    def roll():
        try:
            folded.wait(20)
            threading.Timer(0.5, may_commit.set).start()
            rollups.roll(LATER)  # reads before the commit, and its end waits for it
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(fold_slowly), pool.submit(roll)]:
            future.result()
    rollups.roll(LATER)
    assert rolled(MINUTE) == rolled(HOUR) == [(T0, 150)]


@pytest.mark.django_db(transaction=True)
def test_a_version_that_somebody_else_is_rolling_is_left_to_them(rng):
    """Else the one that read first could write last."""
    v1 = version()
    told(v1, rng, 0)
    locked, done = threading.Event(), threading.Event()

    def roll_slowly():
        try:
            with transaction.atomic():
                rollups._alone(v1.pk)
                locked.set()
                done.wait(20)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(roll_slowly)
        locked.wait(20)
        meanwhile = rollups.roll(LATER)
        done.set()
        other.result()
    assert meanwhile == 0
    assert rollups.roll(LATER) == 3
