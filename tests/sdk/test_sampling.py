"""Is *measure* unbiased with the probability it states, and *band* the few rows that it should be?"""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from davy.batch import Batch, segment_of
from davy.sampling import STRATA, Draw, Sampling, encode_row, uniform

SEGMENT = segment_of((("device", "ios"),))
HEAD = {"model": "m", "version": "v"}


def offer(
    draw: Draw, n: int, confidences: np.ndarray | None = None, first: int = 0, **columns: object
) -> None:
    if confidences is None:
        confidences = np.random.default_rng(first).random(n)
    batch = Batch.of([f"r{first + i}" for i in range(n)], {"confidences": confidences, **columns})
    draw.offer(batch, SEGMENT, uniform(batch.ids), 1_700_000_000.25, HEAD)


def test_hashes_are_uniform_independent_and_never_change():
    u, v = uniform([f"request-{i}" for i in range(20_000)])
    for hashes in (u, v):
        assert (hashes >= 0).all()
        assert (hashes < 1).all()
        assert np.abs(np.histogram(hashes, 20, (0, 1))[0] - 1000).max() < 5 * np.sqrt(1000)
    assert abs(np.corrcoef(u, v)[0, 1]) < 5 / np.sqrt(20_000)
    assert uniform(["a"])[0, 0] == pytest.approx(0.4981605753840723)


def test_each_stratum_is_drawn_with_its_own_probability():
    shares = {"<.3": 0.02, ".3-.6": 0.1, ".6-.9": 0.05}
    draw = Draw(Sampling(measure=shares, band_most=0))
    confidences = np.random.default_rng(0).random(40_000)
    offer(draw, 40_000, confidences)
    rows = draw.rows()
    drawn = Counter(row["stratum"] for row in rows)
    sizes = np.bincount(np.searchsorted([0.3, 0.6, 0.9], confidences, side="right"))
    assert drawn[">=.9"] == 0
    for stratum, size in zip(STRATA, sizes, strict=True):
        q = shares.get(stratum, 0.0)
        assert abs(drawn[stratum] - q * size) <= 5 * np.sqrt(q * size)
    assert {row["inclusion_probability"] for row in rows if row["stratum"] == ".3-.6"} == {0.1}


def test_weighting_by_the_stated_probability_gives_back_the_traffic():
    draw = Draw(Sampling(measure={"<.3": 0.2, ".3-.6": 0.1, ".6-.9": 0.05, ">=.9": 0.02}, band_most=0))
    offer(draw, 50_000)
    weights = np.array([1 / row["inclusion_probability"] for row in draw.rows()])
    assert weights.sum() == pytest.approx(50_000, abs=5 * np.sqrt((weights**2).sum()))


def test_the_same_request_is_drawn_on_every_server():
    draws = [Draw(Sampling(measure=0.05)) for _ in range(2)]
    for draw in draws:
        offer(draw, 2000)
    assert draws[0].rows() == draws[1].rows()


def test_too_many_rows_are_all_kept_and_lower_the_next_probability():
    draw = Draw(Sampling(measure=0.5, measure_most=100, band_most=0))
    offer(draw, 2000)
    drawn = len(draw.measured)
    assert drawn > 900
    scale = draw.next_scale()
    assert scale == pytest.approx(100 / drawn)
    lower = Draw(draw.sampling, scale)
    offer(lower, 2000, first=5000)
    assert {row["inclusion_probability"] for row in lower.measured} == {0.5 * scale}


def test_quiet_intervals_raise_the_probability_back_to_what_was_set():
    sampling = Sampling(measure=0.01)
    assert [Draw(sampling, scale).next_scale() for scale in (0.1, 0.4, 0.7, 1.0)] == [0.2, 0.8, 1.0, 1.0]


def test_the_band_keeps_the_smallest_hashes_up_to_its_budget():
    draw = Draw(Sampling(measure=0, band_most=10))
    confidences = np.random.default_rng(3).random(3000)
    for start in range(0, 3000, 30):
        offer(draw, 30, confidences[start : start + 30], first=start)
    rows = draw.rows()
    band = np.flatnonzero((confidences >= 0.3) & (confidences < 0.6))
    hashes = uniform([f"r{i}" for i in band])[1]
    assert {row["id"] for row in rows} == {f"r{i}" for i in band[np.argsort(hashes)[:10]]}
    assert {row["sampler"] for row in rows} == {"band"}
    assert {row["inclusion_probability"] for row in rows} == {10 / len(band)}


def test_a_row_is_never_drawn_twice():
    draw = Draw(Sampling(measure=0.5, band_most=50))
    offer(draw, 60, np.full(60, 0.5))
    ids = [row["id"] for row in draw.rows()]
    assert len(ids) == len(set(ids)) == 60 - max(0, draw.in_band - 50)


def test_the_same_id_twice_in_the_band_is_no_fault():
    draw = Draw(Sampling(measure=0, band_most=2))
    for _ in range(5):
        offer(draw, 3, np.full(3, 0.5))
    assert len(draw.rows()) == 2


def test_confidences_that_are_not_finite_are_never_drawn():
    draw = Draw(Sampling(measure=1.0))
    offer(draw, 3, np.array([np.nan, np.inf, 0.5]))
    assert [row["id"] for row in draw.rows()] == ["r2"]


def test_a_row_carries_what_labeling_needs():
    draw = Draw(Sampling(measure=1.0, embeddings=True))
    offer(
        draw,
        1,
        np.float32([0.45]),
        labels=[np.int64(3)],
        images=["s3://a.jpg"],
        keys=["u1"],
        latency_seconds=[0.0125],
        probabilities=np.float32([[0.45, 0.5500001, np.float32(1) - 1]]),
        embeddings=np.float16([[1, 0.1]]),
        detections=[[{"label": "cup", "confidence": 0.5, "box": np.arange(4.0)}]],
    )
    [row] = [json.loads(encode_row(row)) for row in draw.rows()]
    assert row == {
        "id": "r0",
        "model": "m",
        "version": "v",
        "at": "2023-11-14T22:13:20.250000+00:00",
        "confidence": 0.45,
        "label": "3",
        "probabilities": [0.45, 0.55, 0.0],
        "segment": {"device": "ios"},
        "latency_ms": 12.5,
        "image": "s3://a.jpg",
        "key": "u1",
        "embedding": [1.0, 0.09997559],
        "detections": [{"label": "cup", "confidence": 0.5, "box": [0, 1, 2, 3]}],
        "sampler": "measure",
        "inclusion_probability": 1.0,
        "stratum": ".3-.6",
    }


def test_values_that_are_not_finite_are_left_out_of_a_row():
    draw = Draw(Sampling(measure=1.0, embeddings=True))
    offer(
        draw,
        1,
        np.array([0.5]),
        latency_seconds=[np.nan],
        probabilities=[[0.5, np.nan]],
        embeddings=[[np.inf]],
        labels=[None],
    )
    assert not {"latency_ms", "probabilities", "embedding", "label"} & set(draw.rows()[0])


@pytest.mark.parametrize(
    "settings", [{"measure": 1.5}, {"measure": {"low": 0.1}}, {"measure": -0.1}, {"band": (0.6, 0.3)}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValueError):
        Sampling(**settings)
