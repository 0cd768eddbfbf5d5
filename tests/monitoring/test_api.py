"""What Davy takes in over HTTP: references that never change, reports and predictions."""

from __future__ import annotations

import gzip
import io
import json

import msgpack
import numpy as np
import pytest
from davy import wire
from davy.reference import Reference as Bins
from django.utils import timezone

from controlplane.models import AuditEntry
from monitoring import npz
from monitoring.models import Prediction, Reference, Report
from tests.monitoring.api import VERSION, api, arrays, client_for, now_window, packed, post, put, rng, v1
from tests.monitoring.build import report, window

__all__ = ["api", "client_for", "rng", "v1"]

# Reference


def test_a_reference_is_frozen_once_and_never_changes(api, v1, rng):
    content = arrays(rng)
    first, again = put(api, packed(content)), put(api, packed(content))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    answer = first.json()
    assert (answer["rows"], answer["dimensions"], answer["components"], answer["bins"]) == (300, 6, 6, 256)
    assert answer["max_bin_mass"] < 0.02
    assert Reference.objects.get().digest == answer["digest"]
    assert AuditEntry.objects.filter(act="reference.freeze", actor="ann").count() == 1


def test_collectors_read_the_arrays_and_people_the_numbers(api, v1, rng):
    content = arrays(rng)
    digest = put(api, packed(content)).json()["digest"]
    answer = api.get(f"{VERSION}/reference", headers={"Accept": "application/x-npz"})
    assert (answer["Content-Type"], answer["ETag"]) == ("application/x-npz", f'"{digest}"')
    bins = Bins.from_npz(answer.content)
    assert bins.digest == digest
    assert np.array_equal(bins.count(content["embeddings"]), bins.counts)
    assert api.get(f"{VERSION}/reference").json()["rows"] == 300


def bad(rng, **changes):
    content = arrays(rng)
    for name, change in changes.items():
        content[name] = change(content.get(name))
        if content[name] is None:
            del content[name]
    return content


def with_nan(array):
    array[7] = np.nan
    return array


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"embeddings": with_nan}, "/embeddings"),
        ({"confidences": with_nan}, "/confidences"),
        ({"embeddings": lambda a: a * np.float32(np.inf)}, "/embeddings"),
        ({"embeddings": lambda a: a * np.float32(1e30)}, "/embeddings"),
        ({"confidences": lambda a: a + 1}, "/confidences"),
        ({"embeddings": lambda a: a[:1], "confidences": lambda a: a[:1]}, "/embeddings"),
        ({"embeddings": lambda a: a[:0], "confidences": lambda a: a[:0]}, "/embeddings"),
        ({"embeddings": lambda a: a[:, :0]}, "/embeddings"),
        ({"embeddings": lambda a: a[0]}, "/embeddings"),
        ({"embeddings": lambda a: a[None]}, "/embeddings"),
        ({"embeddings": lambda a: a.astype("i4")}, "/embeddings"),
        ({"embeddings": lambda a: a[:-1]}, "/confidences"),
        ({"confidences": lambda a: a[:, None]}, "/confidences"),
        ({"confidences": lambda a: a > 0.5}, "/confidences"),
        ({"confidences": lambda _: None}, "/confidences"),
        ({"embeddings": lambda _: None}, "/embeddings"),
        ({"labels": lambda _: np.array(["a"])}, "/labels"),
        ({"colours": lambda _: np.array(["a"])}, "/colours"),
    ],
)
def test_a_bad_reference_is_refused_by_name_and_nothing_is_stored(api, v1, rng, changes, pointer):
    answer = put(api, packed(bad(rng, **changes)))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == pointer
    assert not Reference.objects.exists()
    assert not AuditEntry.objects.filter(act="reference.freeze").exists()


def pickled():
    file = io.BytesIO()
    np.savez(file, embeddings=np.array([{}], object), confidences=np.ones(3))
    return file.getvalue()


@pytest.mark.parametrize(
    "body", [b"", b"not a zip", pickled(), packed(arrays(np.random.default_rng(1)))[:-40]]
)
def test_what_is_no_npz_is_refused(api, v1, body):
    answer = put(api, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "not_npz")


def test_an_npz_that_unpacks_to_too_much_is_refused_before_it_is_unpacked():
    file = io.BytesIO()
    np.savez_compressed(file, embeddings=np.zeros((1000, 1000), "f4"))
    assert len(file.getvalue()) < 10_000
    with pytest.raises(ValueError, match="unpacks to more"):
        npz.read(file.getvalue(), 1_000_000)


def test_half_precision_and_labels_are_accepted(api, v1, rng):
    content = arrays(rng) | {"labels": np.arange(300)}
    content["embeddings"] = content["embeddings"].astype("f2")
    assert put(api, packed(content)).status_code == 201


@pytest.mark.parametrize("path", ["reference", "drift", "confidence", "spc/p", "accuracy"])
def test_unknown_models_and_versions_are_named(api, v1, path):
    for model, name, pointer in [("shoes", "v1", "/model"), ("products", "v9", "/version")]:
        answer = api.get(f"/api/v1/models/{model}/versions/{name}/{path}")
        assert answer.status_code == 404
        assert answer["Content-Type"] == "application/problem+json"
        assert answer.json()["errors"][0]["pointer"] == pointer


def test_a_version_without_reference_says_so(api, v1):
    answer = api.get(f"{VERSION}/reference")
    assert (answer.status_code, answer.json()["code"]) == (404, "no_reference")


# Telemetry


def row(index, **fields):
    return {
        "id": str(index),
        "model": "products",
        "version": "v1",
        "at": timezone.now().timestamp(),
        **fields,
    }


def test_a_report_is_accepted_once(api, v1, rng):
    body = wire.encode_report(now_window(rng, v1))
    first, again = (post(api, "windows", body, "application/msgpack") for _ in range(2))
    assert (first.status_code, first.json()) == (202, {"accepted": 1, "duplicate": 0})
    assert (again.status_code, again.json()) == (202, {"accepted": 0, "duplicate": 1})
    assert Report.objects.count() == 1


def test_a_bad_report_is_a_problem_that_names_the_field(api, v1, rng):
    answer = post(
        api, "windows", wire.encode_report(report(v1, [window(rng)], model="x")), "application/msgpack"
    )
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (404, "/model")


@pytest.mark.parametrize(
    ("encode", "kind"),
    [
        (json.dumps, "application/json"),
        (lambda rows: json.dumps({"predictions": rows}), "application/json; charset=utf-8"),
        (lambda rows: "\n".join(map(json.dumps, rows)) + "\n\n", "application/x-ndjson"),
        (msgpack.packb, "application/msgpack"),
    ],
)
def test_predictions_are_accepted_in_every_form_and_bad_rows_are_listed(api, v1, encode, kind):
    rows = [row(0, confidence=0.5), row(1, confidence=False), row(0)]
    answer = post(api, "predictions", encode(rows), kind)
    assert answer.status_code == 202
    body = answer.json()
    assert (body["accepted"], body["duplicate"]) == (1, 1)
    assert [(r["index"], r["pointer"]) for r in body["rejected"]] == [(1, "/confidence")]
    assert Prediction.objects.count() == 1


def test_embeddings_come_as_bytes_in_msgpack(api, v1):
    vector = np.array([1.5, -2], "<f4")
    post(api, "predictions", msgpack.packb([row(0, embedding=vector.tobytes())]), "application/msgpack")
    assert np.array_equal(np.frombuffer(Prediction.objects.get().embedding, "<f4"), vector)


def test_gzip_is_understood_and_bounded(api, v1, settings):
    body = gzip.compress(json.dumps([row(0)]).encode())
    assert post(api, "predictions", body, **{"Content-Encoding": "gzip"}).json()["accepted"] == 1
    settings.MAX_BODY_BYTES = 1_000_000
    bomb = gzip.compress(b" " * 2_000_000)
    assert post(api, "predictions", bomb, **{"Content-Encoding": "gzip"}).status_code == 413


@pytest.mark.parametrize(
    ("body", "kind", "headers", "status"),
    [
        (b"{", "application/json", {}, 400),
        (b"\xff", "application/json", {}, 400),
        (b"[" * 100_000, "application/json", {}, 400),
        (b"{}", "application/json", {}, 422),
        (b"3", "application/json", {}, 422),
        (b"\xc1", "application/msgpack", {}, 400),
        (b"{}\n{", "application/x-ndjson", {}, 400),
        (b"a,b", "text/csv", {}, 415),
        (b"[]", "application/json", {"Content-Encoding": "br"}, 415),
        (b"[]", "application/json", {"Content-Encoding": "gzip"}, 422),
        (gzip.compress(b"[]", mtime=0)[:-4], "application/json", {"Content-Encoding": "gzip"}, 422),
        (json.dumps([0] * 10_001).encode(), "application/json", {}, 413),
        (json.dumps([{"id": "1"}]).encode(), "application/json", {}, 422),
    ],
)
def test_bodies_that_are_no_predictions_are_problems(api, v1, body, kind, headers, status):
    answer = post(api, "predictions", body, kind, **headers)
    assert answer.status_code == status
    assert answer["Content-Type"] == "application/problem+json"
    assert not Prediction.objects.exists()


def test_every_path_asks_for_its_scope(client_for, v1, rng):
    reader, server = client_for("read"), client_for("telemetry")
    assert post(reader, "windows", b"").status_code == 403
    assert post(reader, "predictions", b"").status_code == 403
    assert put(server, b"").status_code == 403
    assert server.get(f"{VERSION}/drift").status_code == 403
    assert server.get(f"{VERSION}/reference").status_code == 404  # a collector may fetch it; there is none
