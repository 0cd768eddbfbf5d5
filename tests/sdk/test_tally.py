"""Is every row counted once, and nothing that is not a number counted at all?"""

from __future__ import annotations

import zlib

import numpy as np
from davy.batch import Batch, segment_of
from davy.reference import finite_rows
from davy.tally import Tally, count_batch, good_rows
from davy.wire import MAX_WINDOWS, WindowCounts

from tests.sdk.test_reference import make_reference


def counted(n: int = 4, **columns: object) -> tuple[WindowCounts, int]:
    batch = Batch.of([str(i) for i in range(n)], columns)
    assert not batch.misfits
    return count_batch(batch, good_rows(batch))


def test_a_row_with_an_error_is_in_n_and_errors_only():
    counts, dropped = counted(
        confidences=[0.2, np.nan, 0.9, 0.9],
        latency_seconds=[0.1] * 4,
        detections=[1, 2, 3, 70],
        errors=[False, True, False, False],
    )
    assert (counts.n, counts.errors, dropped) == (4, 1, 0)
    assert (counts.confidence.sum(), counts.latency.sum()) == (3, 3)
    assert (counts.detections.sum(), counts.detections[2], counts.detections[63]) == (3, 0, 1)


def test_values_that_are_not_finite_are_dropped_and_the_rest_of_their_row_counts():
    counts, dropped = counted(confidences=[0.2, np.nan, np.inf, 1.0], latency_seconds=[0.1, 0.1, np.nan, 0.1])
    assert (counts.n, counts.errors, counts.confidence.sum(), counts.latency.sum()) == (4, 0, 2, 3)
    assert dropped == 3


def test_errors_are_counted_by_a_hash_of_their_key_that_never_changes():
    counts, _ = counted(errors=[True, True, False, True], keys=["u1", "u2", "u3", 7])
    expected = np.bincount([zlib.crc32(k) % 16 for k in (b"u1", b"u2", b"7")], minlength=16)
    assert counts.errors_by_key_bucket.tolist() == expected.tolist()
    for without in ({}, {"keys": ["", None, "", None]}):
        assert counted(errors=[True] * 4, **without)[0].errors_by_key_bucket.sum() == 0


def test_lists_of_detections_are_counted_by_length():
    counts, _ = counted(2, detections=[[{"label": "cup"}], []])
    assert counts.detections[:2].tolist() == [1, 1]


def test_windows_of_batches_add_up_to_the_window_of_all_rows():
    reference = make_reference()
    rng = np.random.default_rng(0)
    embeddings, confidences = rng.normal(size=(90, 12)), rng.random(90)
    tally = Tally(0, 10, reference)
    for start in range(0, 90, 30):
        rows = slice(start, start + 30)
        counts, _ = counted(30, confidences=confidences[rows], embeddings=embeddings[rows])
        tally.add("live", segment_of(()), counts, finite_rows(reference.project(embeddings[rows])))
    [window] = tally.report_windows()
    assert window.n == 90
    assert (window.confidence == counted(90, confidences=confidences)[0].confidence).all()
    assert (window.embedding == reference.count(embeddings)).all()


def test_without_live_rows_an_empty_live_window_is_reported():
    tally = Tally(0, 10, None)
    tally.add("shadow", segment_of(()), WindowCounts(n=3))
    assert [(w.purpose, w.n) for w in tally.report_windows()] == [("shadow", 3), ("live", 0)]


def test_segments_beyond_the_limit_are_counted_as_other_and_no_segment_stays_itself():
    tally = Tally(0, 10, None)
    had_room = [tally.add("live", segment_of((("user", str(i)),)), WindowCounts(n=1)) for i in range(500)]
    assert tally.add("live", segment_of(()), WindowCounts(n=7))
    windows = tally.report_windows()
    assert len(windows) <= MAX_WINDOWS
    assert sum(window.n for window in windows) == 507
    assert [w.n for w in windows if w.segment == {"segment": "other"}] == [had_room.count(False)]
    assert [w.n for w in windows if not w.segment] == [7]
