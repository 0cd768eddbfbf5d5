"""Do demo/artifacts hold what demo/train.py makes, and are the versions as good and as bad as the demo needs?"""

import json

import numpy as np
import onnxruntime
import pytest

from demo import train

DATA = train.load_images()
MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def measured():
    return {
        name: train.measure(train.ARTIFACTS / name, DATA["live_images"], DATA["live_labels"])
        for name in train.VERSIONS
    }


def committed(name):
    return (train.ARTIFACTS / name / "1" / "model.onnx").read_bytes()


def labels_of(onnx_model, images):
    session = onnxruntime.InferenceSession(onnx_model)
    inputs = train.normalise(images).astype(np.float32)
    return session.run(["probabilities"], {"image": inputs})[0].argmax(axis=1)


def test_training_again_gives_the_committed_v1():
    again = train.export(train.train(train.VERSIONS["v1"].recipe, DATA))
    agreement = labels_of(again, DATA["live_images"]) == labels_of(committed("v1"), DATA["live_images"])
    assert agreement.mean() >= 0.999


def test_versions_of_one_recipe_share_their_weights():
    assert committed("v1") == committed("v4") == committed("v1-faulty")
    assert committed("v2") != committed("v3")


@pytest.mark.parametrize("name", train.VERSIONS)
def test_bundle_is_the_source_with_weights_and_preprocessing(name):
    folder = train.ARTIFACTS / name
    assert (folder / "config.pbtxt").read_bytes() == (train.BUNDLE / "config.pbtxt").read_bytes()
    assert (folder / "1" / "model.py").read_bytes() == (train.BUNDLE / "model.py").read_bytes()
    assert json.loads((folder / "1" / "preprocessing.json").read_text()) == train.VERSIONS[name].preprocessing
    assert len(committed(name)) <= MEGABYTE


@pytest.mark.parametrize("name", train.VERSIONS)
def test_readme_names_the_digest_of_each_bundle(name):
    digest = train.bundle_digest(train.ARTIFACTS / name)
    rows = (train.ARTIFACTS / "README.md").read_text().splitlines()
    assert [row for row in rows if row.startswith(f"| {name} |") and digest in row]


def test_digest_is_that_of_sha256sum_lines(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "b").write_text("x")
    (tmp_path / "1" / "a").write_text("")
    # find . -type f | sed 's|^\./||' | sort | xargs sha256sum | sha256sum
    assert train.bundle_digest(tmp_path) == "995bee8a56867d7c1681d17548e547b37101ba23cd039068b5a6fb27c3d25872"


@pytest.mark.parametrize("name", train.VERSIONS)
def test_reference_holds_finite_rows_of_one_dimension(name):
    path = train.ARTIFACTS / f"{name}.reference.npz"
    with np.load(path) as reference:
        embeddings, confidences, labels = (reference[k] for k in ("embeddings", "confidences", "labels"))
    assert embeddings.shape == (2_000, 64)
    assert confidences.shape == labels.shape == (2_000,)
    assert np.isfinite(embeddings).all()
    assert ((confidences > 0) & (confidences <= 1)).all()
    assert path.stat().st_size <= MEGABYTE


def test_v2_is_better_and_not_less_sure_than_v1(measured):
    assert measured["v2"]["accuracy"] > measured["v1"]["accuracy"] + 0.02
    assert measured["v2"]["below_60"] <= measured["v1"]["below_60"]


def test_v3_is_worse_in_accuracy_confidence_and_errors(measured):
    assert measured["v3"]["accuracy"] < measured["v1"]["accuracy"] - 0.05
    assert measured["v3"]["below_60"] > 2 * measured["v1"]["below_60"] + 0.02
    assert 0.015 < measured["v3"]["errors"] < 0.03


def test_v1_leaves_a_band_for_the_labeling_queue(measured):
    assert 0.05 < measured["v1"]["from_30_to_60"] < 0.16


def test_v4_answers_as_v1_and_the_faulty_one_fails_two_percent(measured):
    assert measured["v4"] == measured["v1"]
    assert 0.015 < measured["v1-faulty"]["errors"] < 0.025


def test_confidences_of_v1_are_calibrated():
    outputs = train.serve(train.ARTIFACTS / "v1", DATA["live_images"])
    right = outputs.probabilities.argmax(axis=1) == DATA["live_labels"]
    assert abs(outputs.probabilities.max(axis=1).mean() - right.mean()) < 0.03
