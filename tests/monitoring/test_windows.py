from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from davy import wire
from django.db import DatabaseError, connection, connections, transaction
from django.utils import timezone

from monitoring import intervals, references, rollups, windows
from monitoring.models import Prediction, Report, VersionTotal, Window
from tests.monitoring.build import T0, report, store, version, window

HOUR = timedelta(hours=1)

CRASH_AT_THE_LAST_STATEMENT = """
    CREATE FUNCTION crash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'crashed'; END $$;
    CREATE TRIGGER crash BEFORE UPDATE OF folded_at ON monitoring_report EXECUTE FUNCTION crash();
"""


@pytest.fixture
def rng():
    return np.random.default_rng(7)


@pytest.fixture
def v1(db):
    return version()


def fold_and_crash():
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(CRASH_AT_THE_LAST_STATEMENT)
        windows.fold(T0)


def read(of, **kwargs):
    return windows.total(of, T0 - HOUR, T0 + HOUR, **kwargs)


def test_windows_of_several_reporters_and_segments_add_up_exactly(v1, rng):
    parts = [window(rng, n, segment={"device": d}) for n, d in [(100, "ios"), (50, "web")]]
    more = window(rng, 70, segment={"device": "ios"})
    store(report(v1, parts))
    store(report(v1, [more]))
    assert windows.fold(T0) == 2
    everything = read(v1)
    assert (everything.n, everything.errors) == (220, 9)
    assert np.array_equal(everything.confidence, sum(p.confidence for p in [*parts, more]))
    assert np.array_equal(everything.latency, sum(p.latency for p in [*parts, more]))
    assert read(v1, segment={"device": "ios"}).n == 170
    assert Window.objects.count() == 2


def test_folding_in_one_go_or_one_by_one_gives_the_same_windows(v1, rng):
    grid = rng.integers(0, 300, (5, 8))
    grid[:, -1] += grid.sum(axis=1).max() - grid.sum(axis=1)
    many = [
        report(
            v1,
            [window(rng, 20_000, embedding=grid, detections=np.eye(1, 64, 3, dtype=int)[0])],
            reference_digest="a" * 64,
        )
        for _ in range(3)
    ]
    for one in many:
        store(one)
        windows.fold(T0)
    row = Window.objects.get()
    assert np.array_equal(wire.unpack(bytes(row.embedding), grid.shape), 3 * grid)
    assert wire.unpack(bytes(row.detections), (64,))[3] == 3
    assert row.n == 60_000
    assert wire.unpack(bytes(row.errors_by_key_bucket), (16,)).sum() == 9


def test_a_report_without_embeddings_leaves_those_of_others_alone(v1, rng):
    grid = np.full((3, 4), 25)
    store(report(v1, [window(rng, embedding=grid)], reference_digest="a" * 64))
    windows.fold(T0)
    store(report(v1, [window(rng)], reference_digest="a" * 64))
    windows.fold(T0)
    assert np.array_equal(wire.unpack(bytes(Window.objects.get().embedding), grid.shape), grid)


def test_a_folded_report_is_never_folded_again(v1, rng):
    store(report(v1, [window(rng)]))
    assert [windows.fold(T0), windows.fold(T0)] == [1, 0]
    assert read(v1).n == 100


def test_a_crash_between_windows_and_reports_loses_and_doubles_nothing(v1, rng):
    for _ in range(3):
        store(report(v1, [window(rng)]))
    with pytest.raises(DatabaseError, match="crashed"):
        fold_and_crash()
    assert not Window.objects.exists()
    assert windows.fold(T0) == 3
    assert read(v1).n == 300


@pytest.mark.django_db(transaction=True)
def test_workers_folding_at_once_add_every_report_exactly_once(rng, monkeypatch):
    monkeypatch.setattr(windows, "REPORTS_PER_TRANSACTION", 3)
    v1 = version()
    for index in range(40):
        parts = [window(rng, segment={"cell": str(cell)}) for cell in rng.permutation(5)]
        store(report(v1, parts, start=T0 + timedelta(seconds=10 * (index % 2))))
    together = threading.Barrier(4)

    def work():
        try:
            together.wait()
            return windows.fold(T0)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        folded = [future.result() for future in [pool.submit(work) for _ in range(4)]]
    assert sum(folded) == 40
    assert read(v1).n == 40 * 5 * 100
    assert Window.objects.count() == 10


def test_folding_needs_the_same_number_of_queries_for_one_report_and_for_many(
    v1, rng, django_assert_num_queries
):
    parts = [window(rng, segment={"cell": str(cell)}) for cell in range(5)]
    store(report(v1, parts))
    windows.fold(T0)  # the segments are known from now on
    for count in (1, 20):
        for _ in range(count):
            store(report(v1, parts))
        with django_assert_num_queries(21):
            windows.fold(T0)


def test_folding_stops_when_its_time_is_over(v1, rng, monkeypatch):
    monkeypatch.setattr(windows, "REPORTS_PER_TRANSACTION", 2)
    for _ in range(5):
        store(report(v1, [window(rng)]))
    assert windows.fold(T0, seconds=0) == 2
    assert windows.fold(T0) == 3


def test_the_totals_of_a_version_and_fleet_never_shrink_and_hold_live_traffic_only(v1, rng):
    one = window(rng, detections=np.eye(1, 64, 3, dtype=int)[0])
    store(report(v1, [one, window(rng, purpose="shadow")], fleet="edge"))
    store(report(v1, [window(rng, 50, segment={"device": "ios"}), window(rng, 70)], fleet="edge"))
    store(report(v1, [window(rng, 30)]))
    windows.fold(T0)
    windows.fold(T0)
    Window.objects.all().delete()
    store(report(v1, [window(rng, 7)], fleet="edge"))
    windows.fold(T0)
    found = {row.fleet: row for row in VersionTotal.objects.all()}
    assert {fleet: (row.n, row.errors) for fleet, row in found.items()} == {"edge": (227, 12), "": (30, 3)}
    assert wire.unpack(bytes(found["edge"].confidence), (100,)).sum() == 227 - 12
    assert wire.unpack(bytes(found["edge"].detections), (64,))[3] == 1


def test_what_is_more_than_a_week_old_is_read_by_the_hour(v1, rng):
    now = timezone.now()
    for start in (now - timedelta(days=20), now - timedelta(days=19), now - HOUR):
        store(report(v1, [window(rng, segment={"device": "ios"})], start=windows.aligned(start, 3600)))
    windows.fold(now)
    rollups.roll(now)
    Window.objects.filter(start__lt=now - timedelta(days=10)).delete()
    total = windows.total(v1, now - timedelta(days=30), now, segment={"device": "ios"})
    assert (total.n, total.windows, total.confidence.sum()) == (300, 3, 291)
    assert total.start == windows.aligned(now - timedelta(days=20), 3600)
    assert windows.total(v1, now - timedelta(days=30), now - timedelta(days=19, hours=2)).n == 100


def test_intervals_are_separate_ordered_and_within_the_period(v1, rng):
    for seconds in (20, 0, 10, 60):
        store(
            report(
                v1, [window(rng, segment={"cell": "1"}), window(rng)], start=T0 + timedelta(seconds=seconds)
            )
        )
    store(report(v1, [window(rng, purpose="shadow")]))
    windows.fold(T0)
    found = windows.intervals(v1, T0, T0 + timedelta(seconds=30))
    assert [(c.start - T0).seconds for c in found] == [0, 10, 20]
    assert [c.n for c in found] == [200, 200, 200]
    assert found[0].confidence.sum() == found[0].n - found[0].errors


def test_late_reporters_are_shown_and_are_no_evidence(v1, rng):
    stored = store(report(v1, [window(rng)]), received_at=T0 + timedelta(seconds=10 + 400))
    Report.objects.filter(pk=stored.pk).update(late=True)
    windows.fold(T0)
    assert windows.intervals(v1, T0 - HOUR, T0 + HOUR) == []
    assert read(v1).n == 100


@pytest.mark.parametrize(("skew", "moved"), [(0.9, 0), (4, 0), (6, 10), (-6, -10), (31, 30), (-3600, -3600)])
def test_skewed_intervals_move_by_whole_intervals(v1, rng, skew, moved):
    one = report(v1, [window(rng)])
    received = T0 + timedelta(seconds=10 + skew)
    start, end = windows.corrected_interval(one, received)
    assert start == T0 + timedelta(seconds=moved)
    assert end - start == timedelta(seconds=10)


def test_a_report_that_cannot_be_read_does_not_stop_the_others(v1, rng, caplog):
    Report.objects.create(reporter="0" * 32, sequence=1, body=b"rubbish", received_at=T0)
    store(report(v1, [window(rng)]))
    assert windows.fold(T0) == 2
    assert read(v1).n == 100
    assert "cannot be read" in caplog.text


def test_raw_predictions_are_counted_once_into_aligned_windows(v1, rng):
    embeddings = rng.normal(size=(300, 6)).astype(np.float32)
    references.freeze(v1, embeddings, rng.random(300))
    at = T0 + timedelta(seconds=3)
    for index in range(4):
        Prediction.objects.create(
            version=v1,
            request_id=str(index),
            at=at,
            received_at=at,
            confidence=0.5,
            latency_ms=5,
            embedding=embeddings[index].tobytes(),
            error="boom" if index == 3 else "",
        )
    Prediction.objects.create(version=v1, request_id="s", at=at, received_at=at, sampler="band")
    assert [windows.fold(T0), windows.fold(T0)] == [4, 0]
    total = read(v1)
    assert (total.n, total.errors, total.start, total.end) == (4, 1, T0, T0 + timedelta(seconds=10))
    assert total.confidence[50] == 3
    assert total.latency.sum() == 3
    assert np.array_equal(total.embedding, references.load(v1).count(embeddings[:3]))
    ((heard,),) = intervals.heard([v1], T0 - HOUR, T0 + HOUR)
    assert heard.reporters == {str(windows.RAW_REPORTER)}


def test_segments_are_equal_whatever_their_order(v1, rng):
    store(report(v1, [window(rng, segment={"a": "1", "b": "2"})]))
    store(report(v1, [window(rng, segment={"b": "2", "a": "1"})]))
    windows.fold(T0)
    assert Window.objects.count() == 1


def test_nothing_found_is_empty_and_not_an_error(v1):
    total = read(v1)
    assert (total.n, total.start, total.windows, total.embedding) == (0, None, 0, None)
    assert windows.intervals(v1, T0, T0 + HOUR) == []


def test_packed_counts_survive_the_database(v1, rng):
    part = window(rng)
    store(report(v1, [part]))
    windows.fold(T0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT confidence FROM monitoring_window")
        assert np.array_equal(wire.unpack(bytes(cursor.fetchone()[0]), (100,)), part.confidence)
