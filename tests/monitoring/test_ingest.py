from __future__ import annotations

import base64
import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import numpy as np
import pytest
from davy import wire
from django.db import connections

from controlplane.problems import Problem
from monitoring import ingest, references
from monitoring.models import Prediction, Report
from tests.monitoring.build import T0, report, version, window

NOW = T0 + timedelta(seconds=11)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


@pytest.fixture
def v1(db):
    return version()


def row(index=0, **fields):
    return {"id": f"r{index}", "model": "products", "version": "v1", "at": T0.isoformat(), **fields}


def refused(action, *args):
    with pytest.raises(Problem) as caught:
        action(*args)
    first = caught.value.errors[0]
    return caught.value.status, first["pointer"], first["code"]


# Reports


def test_a_report_is_stored_once_per_reporter_and_sequence(v1, rng):
    one = report(v1, [window(rng)])
    body = wire.encode_report(one)
    first, again = ingest.store_report(body, NOW), ingest.store_report(body, NOW)
    assert (first.accepted, first.duplicate) == (1, 0)
    assert (again.accepted, again.duplicate) == (0, 1)
    assert bytes(Report.objects.get().body) == body


@pytest.mark.parametrize(
    ("fields", "pointer", "code"),
    [
        ({"model": "shoes"}, "/model", "unknown_model"),
        ({"version": "v9"}, "/version", "unknown_version"),
        ({"reference_digest": "b" * 64}, "/reference_digest", "unknown_reference"),
        ({"sent_at": T0.timestamp() - 20}, "/from", "in_future"),
        ({"sequence": -1}, "/sequence", "invalid"),
        ({"end": T0.timestamp()}, "/to", "invalid"),
    ],
)
def test_a_wrong_field_of_a_report_is_named_and_nothing_is_stored(v1, rng, fields, pointer, code):
    body = wire.encode_report(report(v1, [window(rng)], **fields))
    assert refused(ingest.store_report, body, NOW)[1:] == (pointer, code)
    assert not Report.objects.exists()


def test_a_body_that_is_no_report_is_refused(v1):
    for body in (b"", b"{}", b"\xc1", b"\x81\xa1a"):
        assert refused(ingest.store_report, body, NOW)[0] == 422


def test_counts_of_another_shape_than_the_reference_are_refused(v1, rng):
    reference, _ = references.freeze(v1, rng.normal(size=(200, 4)).astype("f4"), rng.random(200))
    wrong = report(v1, [window(rng, embedding=np.zeros((2, 7)))], reference_digest=reference.digest)
    assert refused(ingest.store_report, wire.encode_report(wrong), NOW)[1] == "/windows/0/embedding"


def test_a_reporter_with_five_minutes_of_skew_is_marked_late(v1, rng):
    for skew in (299, 301):
        ingest.store_report(wire.encode_report(report(v1, [window(rng)])), T0 + timedelta(seconds=10 + skew))
    assert list(Report.objects.order_by("received_at").values_list("late", flat=True)) == [False, True]


def test_a_report_so_old_that_its_sequence_may_be_forgotten_is_refused(v1, rng):
    old = report(v1, [window(rng)], sent_at=(T0 + timedelta(hours=25)).timestamp())
    assert refused(ingest.store_report, wire.encode_report(old), T0 + timedelta(hours=25))[1] == "/to"


# Predictions


def test_good_rows_of_a_mixed_batch_are_kept_and_bad_ones_are_listed(v1):
    batch = [
        row(0, confidence=0.5),
        row(1, confidence=False),
        row(2, model="shoes"),
        row(3, version="v9"),
        row(4, confidence=float("nan")),
        row(5, confidence=1),
        "not a row",
        {k: v for k, v in row(7).items() if k != "id"},
    ]
    answer = ingest.store_predictions(batch, NOW)
    assert (answer.accepted, answer.duplicate) == (2, 0)
    assert [(r["index"], r["pointer"], r["code"]) for r in answer.rejected] == [
        (1, "/confidence", "float_type"),
        (2, "/model", "unknown_model"),
        (3, "/version", "unknown_version"),
        (4, "/confidence", "not_finite"),
        (6, "", "model_type"),
        (7, "/id", "missing"),
    ]
    assert sorted(Prediction.objects.values_list("request_id", flat=True)) == ["r0", "r5"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"confidence": 1.01}, "/confidence"),
        ({"confidence": -0.01}, "/confidence"),
        ({"confidence": "0.5"}, "/confidence"),
        ({"confidence": float("inf")}, "/confidence"),
        ({"at": "yesterday"}, "/at"),
        ({"at": "2026-11-20T12:00:00"}, "/at"),
        ({"at": True}, "/at"),
        ({"at": float("nan")}, "/at"),
        ({"at": 1e300}, "/at"),
        ({"at": (NOW + timedelta(hours=1)).timestamp()}, "/at"),
        ({"at": (NOW - timedelta(days=8)).timestamp()}, "/at"),
        ({"id": "a\0b"}, "/id"),
        ({"id": ""}, "/id"),
        ({"id": "\ud800"}, "/id"),
        ({"label": "x" * 256}, "/label"),
        ({"purpose": "test"}, "/purpose"),
        ({"probabilities": [0.1, float("nan")]}, "/probabilities"),
        ({"detections": [{"label": "a", "confidence": 2}]}, "/detections"),
        ({"segment": {"device": 3}}, "/segment"),
        ({"segment": {"device": "a\0"}}, "/segment"),
        ({"segment": {"device": "x" * 300}}, "/segment"),
        ({"latency_ms": -1}, "/latency_ms"),
        ({"latency_ms": True}, "/latency_ms"),
        ({"error": False}, "/error"),
        ({"embedding": "%%%"}, "/embedding"),
        ({"embedding": base64.b64encode(b"12345").decode()}, "/embedding"),
        ({"embedding": [1.0, float("nan")]}, "/embedding"),
        ({"embedding": [1e39]}, "/embedding"),
        ({"embedding": base64.b64encode(np.array([np.nan], "<f4")).decode()}, "/embedding"),
        ({"embedding": []}, "/embedding"),
        ({"sampler": "measure"}, "/inclusion_probability"),
        ({"sampler": "measure", "inclusion_probability": 0.0}, "/inclusion_probability"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_bad_field_is_named_and_a_batch_without_a_good_row_is_a_problem(v1, fields, pointer):
    status, where, _ = refused(ingest.store_predictions, [row(**fields)], NOW)
    assert (status, where) == (422, "/0" + pointer)
    assert not Prediction.objects.exists()


def test_every_field_of_a_row_is_stored(v1):
    ingest.store_predictions(
        [
            row(
                confidence=0.4,
                label="shoe",
                probabilities={"shoe": 0.4, "hat": 0.6},
                detections=[{"label": "lace", "confidence": 0.9, "box": [0, 1, 2.5, 3]}],
                embedding=[1, 2.5],
                segment={"device": "ios"},
                latency_ms=12.5,
                error="boom",
                image="s3://b/k",
                key="user 7",
                sampler="measure",
                inclusion_probability=0.25,
                stratum="s1",
                purpose="shadow",
            )
        ],
        NOW,
    )
    saved = Prediction.objects.get()
    assert (saved.at, saved.received_at, saved.version, saved.request_id) == (T0, NOW, v1, "r0")
    assert np.frombuffer(saved.embedding, "<f4").tolist() == [1, 2.5]
    assert saved.detections == [{"label": "lace", "confidence": 0.9, "box": [0, 1, 2.5, 3]}]
    assert (saved.probabilities, saved.segment) == ({"shoe": 0.4, "hat": 0.6}, {"device": "ios"})
    assert (saved.sampler, saved.inclusion_probability, saved.stratum) == ("measure", 0.25, "s1")
    assert (saved.purpose, saved.error, saved.image, saved.key) == ("shadow", "boom", "s3://b/k", "user 7")


def test_float16_and_float32_are_told_apart_by_the_reference(v1, rng):
    references.freeze(v1, rng.normal(size=(200, 4)).astype("f4"), rng.random(200))
    vector = np.array([1, -2, 3, 4.5])
    for index, kind in enumerate(("<f2", "<f4")):
        text = base64.b64encode(vector.astype(kind)).decode()
        ingest.store_predictions([row(index, embedding=text)], NOW)
    assert [np.frombuffer(p.embedding, "<f4").tolist() for p in Prediction.objects.all()] == [
        vector.tolist()
    ] * 2


@pytest.mark.parametrize(
    ("embedding", "code"),
    [
        ([1, 2, 3], "wrong_dimension"),
        (np.zeros(5, "<f4").tobytes(), "wrong_dimension"),
        ([1.0, 2.0, 3.0, float("inf")], "not_finite"),
        ([1.0, 2.0, 3.0, 1e39], "not_finite"),
        (np.array([1, 2, 3, np.nan], "<f2").tobytes(), "not_finite"),
        (b"12345", "invalid"),
    ],
)
def test_why_an_embedding_is_refused_has_a_code(v1, rng, embedding, code):
    references.freeze(v1, rng.normal(size=(200, 4)).astype("f4"), rng.random(200))
    assert refused(ingest.store_predictions, [row(9, embedding=embedding)], NOW) == (
        422,
        "/0/embedding",
        code,
    )


def test_duplicates_in_a_batch_and_of_earlier_batches_count_once(v1):
    ingest.store_predictions([row(0), row(1)], NOW)
    answer = ingest.store_predictions([row(1), row(2), row(2), row(2, sampler="band")], NOW)
    assert (answer.accepted, answer.duplicate, answer.rejected) == (2, 2, [])
    assert Prediction.objects.count() == 4


def test_a_batch_takes_the_same_few_queries_whatever_its_size(v1, django_assert_num_queries):
    with django_assert_num_queries(4):
        ingest.store_predictions([row(index) for index in range(500)], NOW)
    assert Prediction.objects.count() == 500


def test_an_empty_batch_is_accepted(v1):
    assert ingest.store_predictions([], NOW) == ingest.Answer()


@pytest.mark.django_db(transaction=True)
def test_batches_that_share_rows_do_not_block_each_other():
    version()
    together = threading.Barrier(4)

    def post(order):
        try:
            together.wait()
            return ingest.store_predictions([row(index) for index in order], NOW).accepted
        finally:
            connections.close_all()

    orders = [range(300), range(299, -1, -1)] * 2
    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(post, orders)) == 300


def test_every_sequence_of_a_reporter_is_stored(v1, rng):
    reporter = str(uuid.uuid4())
    for sequence in (1, 2):
        one = report(v1, [window(rng)], reporter=reporter, sequence=sequence)
        assert ingest.store_report(wire.encode_report(one), NOW).accepted == 1


def test_rejections_are_json(v1):
    answer = ingest.store_predictions([row(0), {1: 2}, row(1, probabilities="x")], NOW)
    assert json.dumps(answer.rejected)
