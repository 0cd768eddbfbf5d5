"""Do a file's hours hold each of its rows once, whatever their order?"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from davy import counting, wire
from davy.files import columns_of, read_rows
from davy.history import HOUR_SECONDS, hourly_reports, last_full_hour, read_through, told

from tests.sdk.history_files import T0, make_reference, rows, write


def reports(path, block=50, **asked):
    reference = make_reference()
    blocks = read_rows(path, columns_of(path), dimensions=4, block=block)
    return list(hourly_reports(blocks, reference, "products", "v7", "ab" * 32, **asked))


def summed(found):
    """(hour, segment) → counts added up."""
    whole: dict[tuple[float, str], wire.WindowCounts] = {}
    for report in found:
        for window in report.windows:
            key = (report.start, wire.segment_key(window.segment))
            whole.setdefault(key, wire.WindowCounts(segment=window.segment)).add(window)
    return whole


@pytest.mark.parametrize("sorted_", [True, False])
def test_each_hour_and_segment_counts_its_rows_once(tmp_path, sorted_):
    content = rows(500)
    if not sorted_:
        order = np.random.default_rng(3).permutation(500)
        content = {name: values[order] for name, values in content.items()}
    found = summed(reports(write(tmp_path / "rows.npz", content)))
    hours = content["at"] // HOUR_SECONDS * HOUR_SECONDS
    for (start, _), window in found.items():
        rows_of = (hours == start) & (content["segment.country"] == window.segment["country"])
        good = rows_of & ~content["error"]
        assert (window.n, window.errors) == (rows_of.sum(), (rows_of & content["error"]).sum())
        assert (window.confidence == counting.count_confidence(content["confidence"][good])).all()
        assert (window.latency == counting.count_latency(content["latency_ms"][good] / 1000)).all()
        assert (window.detections == counting.count_detections(content["detections"][good])).all()
        assert window.embedding is not None
        assert window.embedding[-1].sum() == good.sum()
    assert sum(window.n for window in found.values()) == 500


def test_reports_are_of_whole_hours_and_pass_the_wire(tmp_path):
    for report in reports(write(tmp_path / "rows.npz", rows())):
        again = wire.decode_report(wire.encode_report(report))
        assert again.end - again.start == HOUR_SECONDS
        assert again.start % HOUR_SECONDS == 0
        assert again.reference_digest == make_reference().digest


def test_the_same_file_makes_the_same_reports(tmp_path):
    path = write(tmp_path / "rows.npz", rows())
    once, again = ([wire.encode_report(report) for report in reports(path)] for _ in range(2))
    assert once == again


def test_another_file_model_or_version_is_another_reporter(tmp_path):
    path = write(tmp_path / "rows.npz", rows(20))
    named = [("products", "v7", "a"), ("products", "v8", "a"), ("shelf", "v7", "a"), ("products", "v7", "b")]
    reporters = {
        next(hourly_reports(read_rows(path, columns_of(path)), None, *name)).reporter for name in named
    }
    assert len(reporters) == 4


def test_with_little_memory_an_hour_comes_in_parts_that_add_up_to_it(tmp_path):
    content = rows(600, hours=8)
    shuffled = {name: np.random.default_rng(1).permutation(values) for name, values in content.items()}
    path = write(tmp_path / "rows.npz", shuffled)
    whole, parts = reports(path), reports(path, block=20, open_windows=6)
    assert len(parts) > len(whole) == 8
    assert max(Counter((report.reporter, report.sequence) for report in parts).values()) == 1
    for key, window in summed(parts).items():
        assert window.n == summed(whole)[key].n
        assert (window.confidence == summed(whole)[key].confidence).all()


def test_without_a_reference_the_rest_is_counted(tmp_path):
    path = write(tmp_path / "rows.npz", rows(30))
    (first, *_) = hourly_reports(read_rows(path, columns_of(path)), None, "products", "v7", "ab")
    assert first.reference_digest == ""
    assert all(window.embedding is None for window in first.windows)


def test_a_file_is_looked_at_whole_and_progress_is_told(tmp_path):
    path = write(tmp_path / "rows.npz", rows(120))
    blocks = lambda: read_rows(path, columns_of(path), block=50)  # noqa: E731
    seen: list[int] = []
    assert read_through(blocks(), seen.append) == 120
    assert seen == [50, 50, 20]
    assert [len(block.at) for block in told(blocks(), seen.append)] == [50, 50, 20]
    assert seen == [50, 50, 20] * 2


def test_the_hour_that_is_under_way_is_not_over():
    assert last_full_hour(T0 + 3599.0) == T0
