"""May a version's picture of normal change? Only by a number, a source, and a person's yes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from davy import counting, wire
from davy.reference import Reference as Bins

from controlplane import mlflow_sync
from controlplane.models import AuditEntry
from monitoring import references
from monitoring.models import Reference, Rollup
from tests.monitoring.api import VERSION, api, arrays, client_for, packed, post, put, rng, v1
from tests.monitoring.build import report, window

__all__ = ["api", "client_for", "rng", "v1"]

MONDAY = datetime(2026, 11, 9, tzinfo=UTC)


def ask(api, path="references", **body):
    return api.post(f"{VERSION}/{path}", body, content_type="application/json")


def put_two(api, rng):
    """References 1, in force, and 2, proposed."""
    return [put(api, packed(arrays(rng))).json() for _ in range(2)]


# Numbers and states


def test_the_first_is_in_force_and_another_content_is_proposed(api, v1, rng):
    first, second = put_two(api, rng)
    assert [(r["number"], r["state"]) for r in (first, second)] == [(1, "active"), (2, "proposed")]
    assert api.get(f"{VERSION}/reference").json()["digest"] == first["digest"]
    assert references.load(v1).digest == first["digest"]


def test_a_proposed_one_is_in_force_once_approved_and_the_one_before_is_retired(api, v1, rng):
    _, second = put_two(api, rng)
    answer = ask(api, "references/2/approve", reason="the new factory is normal now")
    assert (answer.status_code, answer.json()["state"], answer.json()["approved_by"]) == (
        200,
        "active",
        "ann",
    )
    assert references.load(v1).digest == second["digest"]
    states = [(r["number"], r["state"]) for r in api.get(f"{VERSION}/references").json()["items"]]
    assert states == [(2, "active"), (1, "retired")]
    entry = AuditEntry.objects.get(act="reference.approve")
    assert (entry.actor, entry.reason) == ("ann", "the new factory is normal now")


def test_a_retired_one_can_be_put_in_force_again(api, v1, rng):
    first, _ = put_two(api, rng)
    ask(api, "references/2/approve", reason="new")
    assert ask(api, "references/1/approve", reason="that was wrong").status_code == 200
    assert references.load(v1).digest == first["digest"]


@pytest.mark.parametrize(
    ("number", "reason", "status", "code"),
    [(1, "why not", 409, "already_active"), (3, "why not", 404, "no_reference"), (2, "  ", 422, "missing")],
)
def test_an_approval_that_cannot_be_changes_nothing(api, v1, rng, number, reason, status, code):
    put_two(api, rng)
    answer = ask(api, f"references/{number}/approve", reason=reason)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert Reference.objects.get(state="active").number == 1


def test_approving_needs_the_scope(client_for, api, v1, rng):
    put_two(api, rng)
    assert ask(client_for("read", "telemetry"), "references/2/approve", reason="x").status_code == 403


def test_each_number_can_be_downloaded(api, v1, rng):
    for made in put_two(api, rng):
        path = f"{VERSION}/references/{made['number']}"
        assert api.get(path).json()["digest"] == made["digest"]
        assert (
            Bins.from_npz(api.get(path, headers={"Accept": "application/x-npz"}).content).digest
            == made["digest"]
        )


def test_another_dimension_is_refused(api, v1, rng):
    put(api, packed(arrays(rng)))
    answer = put(api, packed(arrays(rng, d=7)))
    assert (answer.status_code, answer.json()["code"]) == (422, "wrong_dimension")
    assert answer.json()["errors"][0]["pointer"] == "/embeddings"


def test_values_that_are_not_finite_are_refused_by_that_name(api, v1, rng):
    for name in ("embeddings", "confidences"):
        content = arrays(rng)
        content[name][7] = np.nan
        answer = put(api, packed(content)).json()
        assert (answer["code"], answer["errors"][0]["pointer"]) == ("not_finite", f"/{name}")


@pytest.mark.parametrize("approved", [False, True])
def test_a_collector_may_hold_any_of_the_versions_references(api, v1, rng, approved):
    made = put_two(api, rng)
    if approved:
        ask(api, "references/2/approve", reason="new")
    for sequence, reference in enumerate(made):
        held = Reference.objects.get(number=reference["number"])
        bins = references.arrays_of(held.pk, held.digest)
        counts = bins.count(rng.normal(size=(50, 6)))
        sent = report(
            v1,
            [window(rng, embedding=counts)],
            start=recent(),
            sequence=sequence,
            reference_digest=bins.digest,
        )
        answer = post(api, "windows", wire.encode_report(sent), wire.CONTENT_TYPE)
        assert (answer.status_code, answer.json()["accepted"]) == (202, 1)
        in_force = made[approved]["digest"]
        assert answer.json().get("reference_digest", bins.digest) == in_force  # so that it can fetch that one


def recent():
    return datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=20)


# What else a reference may know


def test_labels_and_predictions_say_how_often_each_confidence_is_right(api, v1, rng):
    content = arrays(rng) | {
        "labels": np.array(["a"] * 300),
        "predictions": np.array(["a"] * 200 + ["b"] * 100),
    }
    assert put(api, packed(content)).status_code == 201
    right, answered = references.correct_counts(Reference.objects.get())
    assert (right == counting.count_confidence(content["confidences"][:200])).all()
    assert (answered == counting.count_confidence(content["confidences"])).all()


def test_detections_are_kept_as_a_histogram(api, v1, rng):
    per_image = rng.integers(0, 5, 300)
    put(api, packed(arrays(rng) | {"detections": per_image}))
    stored = bytes(Reference.objects.get().detection_counts)
    assert (wire.unpack(stored, (64,)) == counting.count_detections(per_image)).all()


def test_times_give_the_natural_variation_of_hours(api, v1, rng):
    content = arrays(rng, n=4800)
    hour = np.repeat(np.arange(48), 100)
    content["embeddings"] += rng.normal(0, 0.5, 48)[hour, None].astype("f4")
    assert put(api, packed(content | {"times": 1.8e9 + 3600.0 * hour})).status_code == 201
    variation = np.frombuffer(bytes(Reference.objects.get().variation), "<f4")
    assert len(variation) == 2 * 7
    assert variation[:6].max() > 0.3
    assert np.isfinite(variation).all()


def test_what_a_reference_was_not_told_can_be_added_and_not_changed(api, v1, rng):
    content = arrays(rng)
    put(api, packed(content))
    told = put(api, packed(content | {"detections": np.full(300, 2)}))
    assert (told.status_code, told.json()["number"]) == (200, 1)
    assert bytes(Reference.objects.get().detection_counts)
    other = put(api, packed(content | {"detections": np.full(300, 3)}))
    assert (other.status_code, other.json()["code"]) == (409, "reference_differs")


@pytest.mark.parametrize(
    ("extra", "code", "pointer"),
    [
        ({"times": np.full(299, 1.8e9)}, "wrong_shape", "/times"),
        ({"times": np.full(300, np.nan)}, "not_finite", "/times"),
        ({"times": np.full(300, -5.0)}, "out_of_range", "/times"),
        ({"times": np.full(300, "now")}, "wrong_type", "/times"),
        ({"detections": np.full(300, 1.5)}, "wrong_type", "/detections"),
        ({"detections": np.full(300, -1)}, "wrong_type", "/detections"),
        ({"predictions": np.full(300, "a")}, "missing", "/labels"),
        ({"predictions": np.full(300, "a"), "labels": np.full(300, 1)}, "wrong_type", "/predictions"),
    ],
)
def test_bad_extra_arrays_are_refused_by_name(api, v1, rng, extra, code, pointer):
    answer = put(api, packed(arrays(rng) | extra))
    assert answer.status_code == 422
    assert (answer.json()["code"], answer.json()["errors"][0]["pointer"]) == (code, pointer)
    assert not Reference.objects.exists()


# From live windows


def roll_up(v1, bins, embeddings, hour, **fields):
    """An hour of that many live rows, as the timer leaves it."""
    return Rollup.objects.create(
        **{
            "version": v1,
            "start": MONDAY + timedelta(hours=hour),
            "seconds": 3600,
            "reference_digest": bins.digest,
            "n": len(embeddings),
            "errors": 0,
            "confidence": wire.pack(counting.count_confidence(np.full(len(embeddings), 0.9))),
            "embedding": wire.pack(bins.count(embeddings)),
            **fields,
        }
    )


def from_last_week(api, **body):
    week = {"from": MONDAY.isoformat(), "to": (MONDAY + timedelta(days=7)).isoformat()}
    return ask(api, source="windows", **(week | body))


def test_last_weeks_hours_become_a_proposed_reference_in_the_same_bins(api, v1, rng):
    put(api, packed(arrays(rng)))
    bins = references.load(v1)
    hours = [rng.normal(0.5, 1, size=(100, 6)) for _ in range(3)]
    for hour, rows in enumerate(hours):
        roll_up(v1, bins, rows, hour)
    roll_up(v1, bins, hours[0], 24 * 7)  # the week after
    roll_up(v1, bins, hours[0], 1, purpose="shadow")
    answer = from_last_week(api)
    assert answer.status_code == 201
    assert (answer.json()["state"], answer.json()["source"], answer.json()["rows"]) == (
        "proposed",
        "windows",
        300,
    )
    made = Reference.objects.get(number=2)
    found = references.arrays_of(made.pk, made.digest)
    assert (found.counts == bins.count(np.concatenate(hours))).all()
    assert (found.edges == bins.edges).all()
    assert found.confidence_counts[90] == 300


def test_one_segments_hours_can_be_taken_alone(api, v1, rng):
    put(api, packed(arrays(rng)))
    bins = references.load(v1)
    for device, n in (("a", 150), ("b", 200)):
        segment = {"device": device, "country": "de"}
        roll_up(v1, bins, rng.normal(size=(n, 6)), 0, segment=segment, segment_key=wire.segment_key(segment))
    assert from_last_week(api, segment={"device": "b"}).json()["rows"] == 200


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({}, "too_few_rows", "/from"),
        ({"from": "2026-11-20T00:00:00Z", "to": "2026-11-19T00:00:00Z"}, "bad_period", "/from"),
        ({"from": "last week"}, "bad_time", "/from"),
        ({"to": None}, "missing", "/to"),
    ],
)
def test_a_period_without_enough_rows_or_sense_is_refused(api, v1, rng, body, code, pointer):
    put(api, packed(arrays(rng)))
    answer = from_last_week(api, **body)
    assert answer.status_code == 422
    assert (answer.json()["code"], answer.json()["errors"][0]["pointer"]) == (code, pointer)


def test_windows_need_a_reference_that_they_were_counted_with(api, v1):
    answer = from_last_week(api)
    assert (answer.status_code, answer.json()["code"]) == (404, "no_reference")


# From MLflow


@pytest.fixture
def run(v1, settings, tmp_path):
    """The MLflow run that v1 came from, in a store without a server; logs an npz as its artifact."""
    settings.MLFLOW_TRACKING_URI = f"sqlite:///{tmp_path}/mlflow.db"
    mlflow_sync._client.cache_clear()
    client = mlflow_sync._client()
    experiment = client.create_experiment("products", artifact_location=(tmp_path / "artifacts").as_uri())
    v1.mlflow_run_id = client.create_run(experiment).info.run_id
    v1.save()

    def log(name, content):
        (tmp_path / name).write_bytes(content)
        client.log_artifact(v1.mlflow_run_id, str(tmp_path / name), "davy")

    yield log
    mlflow_sync._client.cache_clear()


def test_the_runs_artifact_becomes_the_reference(api, v1, rng, run):
    content = arrays(rng)
    run("reference.npz", packed(content))
    answer = ask(api, source="mlflow", artifact="davy/reference.npz")
    assert answer.status_code == 201
    assert (answer.json()["state"], answer.json()["source"]) == ("active", "mlflow")
    assert answer.json()["source_detail"] == {"artifact": "davy/reference.npz", "run": v1.mlflow_run_id}
    assert references.load(v1).counts.sum(axis=1).tolist() == [300] * 7


def test_an_artifact_that_is_no_reference_is_refused(api, v1, rng, run):
    run("notes.txt", b"hello")
    run("half.npz", packed({"embeddings": arrays(rng)["embeddings"]}))
    for artifact, code in (("davy/notes.txt", "not_npz"), ("davy/half.npz", "missing"), ("davy", "not_npz")):
        assert ask(api, source="mlflow", artifact=artifact).json()["code"] == code
    assert ask(api, source="mlflow", artifact="davy/none.npz").status_code == 502
    assert not Reference.objects.exists()


@pytest.mark.parametrize("artifact", ["", "/etc/passwd", "../other/reference.npz", "a\\b"])
def test_an_artifact_is_a_path_within_the_run(api, v1, artifact):
    answer = ask(api, source="mlflow", artifact=artifact)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_path")


def test_a_version_without_a_run_says_so(api, v1):
    answer = ask(api, source="mlflow", artifact="reference.npz")
    assert (answer.status_code, answer.json()["code"]) == (422, "no_run")


def test_another_source_is_refused(api, v1):
    assert ask(api, source="weather").status_code == 422
