"""What of a version's windows reaches a rollout: by interval and segment, only the columns asked for."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from monitoring import intervals, references, windows
from monitoring.models import Report, Window
from tests.monitoring.build import T0, report, store, version, window

pytestmark = pytest.mark.django_db
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
EVERY = (*intervals.HISTOGRAMS, intervals.EMBEDDING)
HOUR = timedelta(hours=1)


@pytest.fixture
def rng():
    return np.random.default_rng(20261120)


@pytest.fixture
def v1():
    return version()


@pytest.fixture
def reference(v1, rng):
    references.freeze(v1, rng.normal(size=(4_000, 8)).astype(np.float32), rng.random(4_000))
    return references.load(v1)


def read(of, columns=EVERY, *, bins=None, **options):
    (found,) = intervals.read([of], T0 - HOUR, T0 + HOUR, columns, bins=[bins], **options)
    return found


def fold(*reports):
    for one in reports:
        store(one)
    windows.fold(T0)


def test_segments_of_all_reporters_are_added_up_by_interval(v1, rng):
    parts = [window(rng, segment={"device": d}) for d in ("nano", "orin")]
    later = report(v1, [window(rng)], start=T0 + timedelta(seconds=10))
    fold(report(v1, parts), report(v1, parts), later)
    first, second = read(v1, ("confidence", "errors_by_key_bucket"))
    assert (first.n, first.errors, second.n) == (400, 12, 100)
    assert first.confidence.sum() == 400 - 12
    assert first.errors_by_key_bucket.sum() == 12


def test_what_nobody_asked_for_is_neither_read_nor_given(v1, rng):
    fold(report(v1, [window(rng, detections=np.ones(64, np.int64))]))
    with CaptureQueriesContext(
        connection,
    ) as queries:
        (found,) = read(v1, ("latency",))
    assert found.confidence is found.detections is found.embedding is None
    assert found.latency.sum() == 97
    assert not any(column in queries[0]["sql"] for column in ('"confidence"', '"detections"', '"embedding"'))


def test_what_nobody_counted_is_none(v1, rng):
    fold(report(v1, [window(rng)]))
    (found,) = read(v1)
    assert found.detections is None
    assert found.embedding is None


def test_each_value_of_a_segment_key_is_counted_besides_the_whole(v1, rng):
    parts = [
        window(rng, n=n, segment=segment)
        for n, segment in (
            (10, {"device": "nano", "camera": "side"}),
            (20, {"device": "nano"}),
            (40, {"camera": "side"}),
            (80, {}),
        )
    ]
    fold(report(v1, parts))
    (found,) = read(v1, ("latency",), by=("device",))
    assert found.n == 150
    assert {label: part.n for label, part in found.segments.items()} == {"device=nano": 30}
    assert found.segments["device=nano"].latency.sum() == 30 - 6


def test_embeddings_come_between_the_quantiles_of_the_reference(v1, rng, reference):
    live = reference.count(rng.normal(size=(500, 8)).astype(np.float32))
    fold(report(v1, [window(rng, n=500, embedding=live)], reference_digest=reference.digest))
    (found,) = read(v1, bins=intervals.coarse(v1, QUANTILES, 33))
    assert found.embedding.shape == found.reference.shape == (9, 6)
    assert (found.embedding.sum(axis=1) == 500).all()
    shares = np.cumsum(found.reference, axis=1)[:, :-1] / 4_000
    assert np.abs(shares[:8] - QUANTILES).max() < 1 / 256
    assert np.abs(np.cumsum(found.embedding, axis=1)[:8, :-1] / 500 - QUANTILES).max() < 0.1
    assert found.reference_digest == reference.digest


def test_of_many_components_the_first_ones_and_the_rest_are_kept(v1, reference):
    coarse = intervals.coarse(v1, QUANTILES, 4)
    assert coarse.rows.tolist() == [0, 1, 2, 8]
    assert coarse.reference.shape == (4, 6)


def test_counts_in_the_bins_of_another_reference_are_left_out_of_the_embedding_only(v1, rng, reference):
    live = reference.count(rng.normal(size=(100, 8)).astype(np.float32))
    fold(report(v1, [window(rng, embedding=live)], reference_digest=reference.digest))
    Window.objects.update(reference_digest="f" * 64)
    (found,) = read(v1, bins=intervals.coarse(v1, QUANTILES, 33))
    assert (found.n, found.embedding) == (100, None)


def test_a_version_without_a_reference_has_no_bins(v1):
    assert intervals.coarse(v1, QUANTILES, 33) is None


def test_only_live_windows_of_reporters_that_are_not_late_are_read(v1, rng):
    store(report(v1, [window(rng, purpose="shadow"), window(rng, purpose="pinned")]))
    late = store(report(v1, [window(rng)]), received_at=T0 + timedelta(seconds=410))
    Report.objects.filter(pk=late.pk).update(late=True)
    windows.fold(T0)
    assert read(v1) == []
    assert intervals.heard([v1], T0 - HOUR, T0 + HOUR) == [[]]


def test_who_has_reported_is_found_without_reading_counts(v1, rng, django_assert_num_queries):
    reports = [report(v1, [window(rng, segment={"cell": str(i)}) for i in range(3)]) for _ in range(2)]
    for one in reports:
        fold(one)
    with django_assert_num_queries(1):
        ((heard,),) = intervals.heard([v1], T0 - HOUR, T0 + HOUR)
    assert heard.reporters == {one.reporter for one in reports}
    assert (heard.start, heard.end) == (T0, T0 + timedelta(seconds=10))


def test_the_history_of_errors_tells_time_intervals_and_all_requests(v1, rng):
    quiet = {"errors": 0, "errors_by_key_bucket": np.zeros(16, np.int64)}
    fold(
        report(v1, [window(rng, **quiet)]),
        report(
            v1,
            [window(rng, segment={"d": "a"}), window(rng, segment={"d": "b"}, **quiet)],
            start=T0 + timedelta(seconds=50),
        ),
    )
    found = intervals.error_history(v1, T0 - HOUR, T0 + timedelta(seconds=60))
    assert found.seconds == 60
    (one,) = found.intervals
    assert (one.n, one.errors, one.errors_by_key_bucket.sum()) == (200, 3, 3)


def test_a_version_that_was_not_there_has_no_history(v1):
    assert intervals.error_history(v1, T0 - HOUR, T0).seconds == 0


def test_windows_of_another_fleet_are_left_out_and_unknown_ones_count_for_all(v1, rng):
    ours, theirs, unknown = (report(v1, [window(rng)], fleet=fleet) for fleet in ("shop", "lab", ""))
    fold(ours, theirs, unknown)
    assert [found.n for found in read(v1, ())] == [300]
    assert [found.n for found in read(v1, (), fleet="shop")] == [200]
    ((heard,),) = intervals.heard([v1], T0 - HOUR, T0 + HOUR, fleet="shop")
    assert heard.reporters == {ours.reporter, unknown.reporter}
    assert intervals.error_history(v1, T0 - HOUR, T0 + HOUR, fleet="lab").intervals[0].n == 200
