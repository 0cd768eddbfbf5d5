from __future__ import annotations

from datetime import timedelta

import numpy as np
import pytest

from monitoring import references, rollups, series, windows
from monitoring.models import Prediction, Reference
from monitoring.statistics import scores
from tests.monitoring.build import T0, report, store, version, window

LATER = T0 + timedelta(days=2)
HOUR = timedelta(hours=1)


@pytest.fixture
def rng():
    return np.random.default_rng(13)


@pytest.fixture
def v1(db):
    return version()


def tell(v1, rng, hour, n=600, fleet="", **fields):
    """A report of the first ten seconds of an hour after T0."""
    store(report(v1, [window(rng, n, **fields)], start=T0 + hour * HOUR, fleet=fleet))


def roll():
    windows.fold(T0)
    rollups.roll(LATER)


def ns(cell):
    return [None if point is None else point.n for point in cell.points]


def test_an_hour_in_which_nobody_reported_is_a_gap(v1, rng):
    for hour in (0, 1, 3):
        tell(v1, rng, hour)
    roll()
    [cell] = series.series(v1, T0 - HOUR, T0 + 4 * HOUR, 3600)
    assert cell.start == T0 - HOUR
    assert ns(cell) == [None, 600, 600, None, 600]


def test_an_hour_without_traffic_of_a_segment_is_no_gap(v1, rng):
    tell(v1, rng, 0, segment={"device": "ios"})
    tell(v1, rng, 0, segment={"device": "web"})
    tell(v1, rng, 2, segment={"device": "web"})
    roll()
    found = series.series(v1, T0, T0 + 3 * HOUR, 3600, by=("device",))
    assert {cell.segment["device"]: ns(cell) for cell in found} == {
        "ios": [600, None, 0],
        "web": [600, None, 600],
    }
    [ios] = series.series(v1, T0, T0 + 3 * HOUR, 3600, where={"device": "ios"})
    assert ns(ios) == [600, None, 0]


def test_any_part_of_the_traffic_is_a_sum_of_its_segments(v1, rng):
    parts = [
        ({"device": device, "country": country}, fleet)
        for device in ("ios", "web")
        for country in ("de", "se")
        for fleet in ("edge", "lab")
    ]
    for index, (segment, fleet) in enumerate(parts):
        tell(v1, rng, 0, n=10 + 2**index, segment=segment, fleet=fleet)
    roll()

    def read(**kwargs):
        return {
            tuple(c.segment.values()): c.points[0].n for c in series.series(v1, T0, T0 + HOUR, 3600, **kwargs)
        }

    assert read() == {(): 80 + 255}
    assert read(by=("country",)) == {("de",): 40 + 0b00110011, ("se",): 40 + 0b11001100}
    assert read(by=("fleet",)) == {("edge",): 40 + 0b01010101, ("lab",): 40 + 0b10101010}
    assert read(where={"device": "ios", "fleet": "lab"}) == {("ios", "lab"): 20 + 0b00001010}
    assert read(by=("nothing",)) == {("",): 80 + 255}


@pytest.mark.parametrize(("seconds", "expected"), [(10, [600] * 2), (300, [1200]), (7200, [1200])])
def test_lengths_are_read_from_windows_minutes_or_hours(v1, rng, seconds, expected):
    for _ in range(2):
        store(report(v1, [window(rng, 300)]))
        store(report(v1, [window(rng, 300)], start=T0 + timedelta(seconds=10)))
    roll()
    until = T0 + timedelta(seconds=max(seconds, 20))
    [cell] = series.series(v1, T0, until, seconds, columns=("confidence",))
    assert ns(cell) == expected
    assert cell.points[0].counts["confidence"].sum() == expected[0] - 6 * (expected[0] // 600)


def test_only_asked_columns_are_read_and_late_and_imported_windows_count(v1, rng):
    tell(v1, rng, 0)
    tell(v1, rng, 0, purpose="shadow")
    roll()
    [cell] = series.series(v1, T0, T0 + HOUR, 3600)
    assert (cell.points[0].n, cell.points[0].counts) == (600, {})
    [shadow] = series.series(v1, T0, T0 + HOUR, 3600, purposes=("shadow",))
    assert shadow.points[0].n == 600


def test_confidence_scores_are_those_of_each_hours_histogram(v1, rng):
    tell(v1, rng, 0, segment={"device": "ios"})
    tell(v1, rng, 0, segment={"device": "web"})
    tell(v1, rng, 5)
    roll()
    found = series.scores(v1, "confidence", T0, T0 + 24 * HOUR)
    [cell] = series.series(v1, T0, T0 + HOUR, 3600, columns=("confidence",))
    counts = cell.points[0].counts["confidence"]
    first = int(T0.timestamp()) // 3600
    assert found.hours.tolist() == [first, first + 5]
    assert found.n.tolist() == [counts.sum(), 597]
    np.testing.assert_allclose(found.values[0], scores.confidence_scores(counts[None])[0])
    ios = series.scores(v1, "confidence", T0, T0 + 24 * HOUR, where={"device": "ios"})
    assert ios.n.tolist() == [597]


def predict(v1, embeddings, hour, device):
    for index, row in enumerate(embeddings):
        Prediction.objects.create(
            version=v1,
            request_id=f"{hour}-{device}-{index}",
            at=T0 + hour * HOUR,
            received_at=T0,
            embedding=row.tobytes(),
            segment={"device": device},
        )


def test_embedding_scores_of_cells_average_to_those_of_the_whole(v1, rng):
    references.freeze(v1, rng.normal(size=(300, 6)).astype("f4"), rng.random(300))
    predict(v1, rng.normal(size=(20, 6)).astype("f4"), 0, "ios")
    predict(v1, rng.normal(1, size=(10, 6)).astype("f4"), 0, "web")
    predict(v1, rng.normal(size=(5, 6)).astype("f4"), 1, "web")
    roll()
    whole = series.scores(v1, "embedding", T0, T0 + 2 * HOUR)
    parts = series.cells(v1, "embedding", T0, T0 + 2 * HOUR, ("device",))
    assert parts.names == (("ios",), ("web",))
    assert parts.n.tolist() == [[20, 10], [0, 5]]
    assert np.isnan(parts.means[1, 0]).all()
    assert whole.n.tolist() == [30, 5]
    expected = (20 * parts.means[0, 0] + 10 * parts.means[0, 1]) / 30
    np.testing.assert_allclose(whole.values, [expected, parts.means[1, 1]], atol=1e-12)
    bins = references.load(v1)
    [cell] = series.series(v1, T0, T0 + HOUR, 3600, columns=("embedding",))
    table = scores.score_table(bins.counts)
    np.testing.assert_allclose(
        whole.values[:1], scores.embedding_scores(table, cell.points[0].counts["embedding"][None]), atol=1e-12
    )


def test_embeddings_counted_in_the_bins_of_another_reference_are_left_out(v1, rng):
    first, _ = references.freeze(v1, rng.normal(size=(300, 6)).astype("f4"), rng.random(300))
    predict(v1, rng.normal(size=(20, 6)).astype("f4"), 0, "ios")
    roll()
    Reference.objects.filter(pk=first.pk).update(state=Reference.State.RETIRED)
    references.freeze(v1, rng.normal(size=(300, 6)).astype("f4"), rng.random(300))
    Reference.objects.exclude(pk=first.pk).update(state=Reference.State.ACTIVE)
    assert series.scores(v1, "embedding", T0, T0 + HOUR).hours.tolist() == []
    [cell] = series.series(v1, T0, T0 + HOUR, 3600, columns=("embedding",))
    assert (cell.points[0].n, cell.points[0].counts) == (20, {})


@pytest.mark.parametrize(
    ("family", "scores_of_one"), [("embedding", 0), ("confidence", 5), ("detections", 4)]
)
def test_without_history_there_are_no_hours(v1, family, scores_of_one):
    found = series.scores(v1, family, T0, T0 + HOUR)
    assert (len(found.hours), len(found.n), found.values.shape) == (0, 0, (0, scores_of_one))
    assert series.cells(v1, family, T0, T0 + HOUR, ("device",)).means.shape == (0, 0, scores_of_one)
