"""Does a bundle answer each request by itself, and tell the collector the truth?"""

import json

import numpy as np
import pytest

from demo import looks, train
from demo.backend_utils import InferenceRequest, Tensor, load_model_code


class RecordingCollector:
    def __init__(self):
        self.observed = []

    def observe(self, **columns):
        self.observed.append(columns)

    def close(self):
        self.observed.append("closed")


def load(version, parameters=None):
    folder = train.ARTIFACTS / version
    model = load_model_code(folder / "1" / "model.py").TritonPythonModel()
    config = json.dumps({"parameters": parameters or {}})
    model.initialize({"model_repository": str(folder), "model_version": "1", "model_config": config})
    return model


def observed_by(model):
    collector = RecordingCollector()
    model._telemetry._collector = collector
    return collector.observed


def request(index, identity="r", rows=1, **headers):
    images = looks.live_images("plain")[index : index + rows]
    return InferenceRequest(
        identity, [Tensor("image", images)], {f"x-davy-{k}": v for k, v in headers.items()}
    )


def outputs(response):
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors}


def flat_request(identity="flat"):
    return InferenceRequest(identity, [Tensor("image", np.full((1, 28, 28), 90, np.uint8))])


def test_a_batch_answers_each_request_as_if_alone():
    model = load("v1")
    together = model.execute([request(0), request(1, rows=3), request(4)])
    for response, alone in zip(together, [request(0), request(1, rows=3), request(4)], strict=True):
        expected = outputs(model.execute([alone])[0])
        for name, array in outputs(response).items():
            assert array.shape == expected[name].shape
            np.testing.assert_allclose(array, expected[name], atol=1e-5)


def test_shapes_are_those_of_the_configuration():
    answer = outputs(load("v1").execute([request(0, rows=2)])[0])
    assert {name: array.shape for name, array in answer.items()} == {
        "probabilities": (2, 10),
        "embedding": (2, 64),
        "label": (2, 1),
    }
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1, atol=1e-5)


def test_a_refused_image_fails_its_own_request_only():
    good, bad, also_good = load("v3").execute([request(0), flat_request(), request(1)])
    assert good.error is None
    assert also_good.error is None
    assert "contrast 0.0 is below 40" in bad.error.message()


def test_the_faulty_version_fails_by_request_id_and_always_the_same():
    model = load("v1-faulty")
    ids = [f"products-{number}" for number in range(2_000)]
    failed = [
        {r.request_id() for r, a in zip(batch, model.execute(batch), strict=True) if a.error}
        for batch in [[request(0, i) for i in ids], [request(1, i) for i in reversed(ids)]]
    ]
    assert failed[0] == failed[1]
    assert 20 <= len(failed[0]) <= 65


def test_the_collector_is_told_what_was_answered():
    model = load("v1")
    observed = observed_by(model)
    asked = request(
        0, "a", key="user-1", segment="camera=front", image="http://images/live/0.png", start="0.5"
    )
    answer = outputs(model.execute([asked])[0])
    (row,) = observed
    assert row["ids"] == ["a"]
    assert row["keys"] == ["user-1"]
    assert row["segments"] == {"camera": "front"}
    assert row["images"] == ["http://images/live/0.png"]
    assert row["purpose"] == "live"
    assert row["labels"] == [looks.class_names()[int(answer["label"][0][0])]]
    assert row["confidences"] == answer["probabilities"].max()
    assert row["latency_seconds"][0] > 1_000_000_000  # since the router's receipt, half a second into 1970
    assert not row["errors"].any()


def test_purposes_and_failures_are_reported_apart():
    model = load("v3")
    observed = observed_by(model)
    model.execute([request(0, "a"), request(1, "b", purpose="pinned"), flat_request("c"), request(2, "d")])
    by_ids = {tuple(row["ids"]): row for row in observed}
    assert by_ids[("a", "d")]["purpose"] == "live"
    assert by_ids[("b",)]["purpose"] == "pinned"
    assert by_ids[("c",)]["errors"].all()
    assert "confidences" not in by_ids[("c",)]


def test_segments_of_a_mixed_batch_are_given_row_by_row():
    model = load("v1")
    observed = observed_by(model)
    model.execute([request(0, segment="camera=front"), request(1, rows=2, segment="camera=side"), request(3)])
    assert observed[0]["segments"] == {"camera": ["front", "side", "side", ""]}


def test_header_names_count_in_any_case():
    model = load("v1")
    observed = observed_by(model)
    model.execute([InferenceRequest("a", request(0).inputs, {"X-Davy-Purpose": "pinned"})])
    assert observed[0]["purpose"] == "pinned"


@pytest.mark.parametrize("start", ["", "soon", "12:00"])
def test_a_malformed_start_gives_the_execution_time(start):
    model = load("v1")
    observed = observed_by(model)
    model.execute([request(0, start=start)])
    assert 0 <= observed[0]["latency_seconds"][0] < 10


def test_rows_of_one_request_have_ids_of_their_own():
    model = load("v1")
    observed = observed_by(model)
    model.execute([request(0, "a", rows=2)])
    assert observed[0]["ids"] == ["a/0", "a/1"]


def test_without_address_and_token_there_is_no_collector(monkeypatch):
    monkeypatch.delenv("DAVY_URL", raising=False)
    model = load("v1", {"davy_model": {"string_value": "products"}, "davy_version": {"string_value": "v1"}})
    assert model._telemetry._collector is None


def test_the_end_closes_the_collector():
    model = load("v1")
    observed = observed_by(model)
    model.finalize()
    assert observed == ["closed"]
