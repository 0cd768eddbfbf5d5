from __future__ import annotations

import gzip
import io
import json
from datetime import timedelta

import msgpack
import numpy as np
import pytest
from davy import wire
from davy.reference import Reference as Bins
from django.test import Client
from django.utils import timezone

from controlplane import access
from controlplane.models import AuditEntry, User
from monitoring import checks, npz, references, windows
from monitoring.models import Outcome, Prediction, Reference, Report
from tests.monitoring.build import report, store, version, window

VERSION = "/api/v1/models/products/versions/v1"


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture
def v1(db):
    return version()


@pytest.fixture
def client_for(db):
    def make(*scopes):
        user, _ = User.objects.get_or_create(username="ann", defaults={"role": "engineer"})
        _token, text = access.create_token(user, "test", scopes)
        return Client(headers={"Authorization": f"Bearer {text}"})

    return make


@pytest.fixture
def api(client_for):
    return client_for("read", "telemetry", "deploy")


def arrays(rng, n=300, d=6):
    return {"embeddings": rng.normal(size=(n, d)).astype("f4"), "confidences": rng.random(n)}


def packed(content):
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def put(api, body):
    return api.put(f"{VERSION}/reference", body, content_type="application/x-npz")


def post(api, path, body, kind="application/json", **headers):
    return api.post(f"/api/v1/telemetry/{path}", body, content_type=kind, headers=headers)


def now_window(rng, v1, **fields):
    """A report of the last closed ten seconds."""
    return report(
        v1, [window(rng, **fields)], start=windows.aligned(timezone.now(), 10) - timedelta(seconds=10)
    )


# Reference


def test_a_reference_is_frozen_once_and_never_changes(api, v1, rng):
    content = arrays(rng)
    first, again = put(api, packed(content)), put(api, packed(content))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    answer = first.json()
    assert (answer["rows"], answer["dimensions"], answer["components"], answer["bins"]) == (300, 6, 6, 256)
    assert answer["max_bin_mass"] < 0.02
    other = put(api, packed(arrays(np.random.default_rng(6))))
    assert (other.status_code, other.json()["code"]) == (409, "reference_differs")
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


def test_another_dimension_than_the_frozen_one_is_refused(api, v1, rng):
    put(api, packed(arrays(rng)))
    assert put(api, packed(arrays(rng, d=7))).status_code == 409


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
        (gzip.compress(b"[]")[:-4], "application/json", {"Content-Encoding": "gzip"}, 422),
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


# Reading


def fill(rng, v1, shift=0.0, n=600, **fields):
    bins = references.load(v1)
    rows = (rng.normal(size=(n, 6)) + shift).astype("f4")
    one = now_window(
        rng, v1, n=n, errors=0, errors_by_key_bucket=np.zeros(16, int), embedding=bins.count(rows), **fields
    )
    one.reference_digest = bins.digest
    store(one)
    windows.fold(timezone.now())


def test_drift_is_read_with_bounds_times_and_n(api, v1, rng):
    put(api, packed(arrays(rng)))
    fill(rng, v1, shift=2.0)
    checks.run(timezone.now() + timedelta(seconds=15))
    body = api.get(f"{VERSION}/drift").json()
    assert (body["detector"], body["status"]) == ("embedding_drift", "STABLE")  # once is no drift yet
    assert body["evaluated_until"]
    assert (body["n"], body["reference"]["rows"], len(body["components"])) == (600, 300, 7)
    worst = body["components"][body["component"]]
    assert 0.5 < worst["d"] <= worst["d_upper"] <= 1
    assert worst["q"] < 1e-6
    curve = body["worst"]
    assert len(curve["edges"]) == len(curve["live"]) == len(curve["reference"])
    assert max(abs(np.array(curve["live"]) - curve["reference"])) == pytest.approx(worst["d"])
    assert body["from"] < body["to"]


def test_without_reference_or_traffic_drift_is_too_few_and_not_an_error(api, v1, rng):
    body = api.get(f"{VERSION}/drift").json()
    assert (body["status"], body["n"], body["components"]) == ("TOO_FEW", 0, [])
    put(api, packed(arrays(rng)))
    body = api.get(f"{VERSION}/drift").json()
    assert (body["status"], body["n"]) == ("TOO_FEW", 0)
    assert {row["d"] for row in body["components"]} == {0}


def test_a_period_and_a_segment_can_be_asked_for(api, v1, rng):
    put(api, packed(arrays(rng)))
    fill(rng, v1, segment={"device": "ios"})
    fill(rng, v1, segment={"device": "web", "country": "de"})
    assert api.get(f"{VERSION}/drift").json()["n"] == 1200
    assert api.get(f"{VERSION}/drift?segment.device=web").json()["n"] == 600
    assert api.get(f"{VERSION}/drift?segment.device=tv").json()["n"] == 0
    past = "from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00%2B00:00"
    assert api.get(f"{VERSION}/confidence?{past}").json()["n"] == 0


@pytest.mark.parametrize("path", ["drift", "confidence", "spc/p", "accuracy"])
@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("from=yesterday", "/from"),
        ("to=2026-01-01T00:00:00", "/to"),
        ("from=1e999", "/from"),
        ("to=0001-01-01T00:00:00Z", "/to"),
        ("from=99999999999999999999", "/from"),
        ("from=1700000000&to=1600000000", "/from"),
    ],
)
def test_bad_periods_are_named(api, v1, path, query, pointer):
    answer = api.get(f"{VERSION}/{path}?{query}")
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


def test_confidences_are_read_beside_the_references(api, v1, rng):
    put(api, packed(arrays(rng)))
    fill(rng, v1)
    body = api.get(f"{VERSION}/confidence").json()
    assert sum(body["counts"]) == body["n"] == 597
    assert sum(body["reference_counts"]) == body["reference_n"] == 300
    below = next(share for share in body["shares"] if share["name"] == "below_0.6")
    assert below["share"] == pytest.approx(sum(body["counts"][:60]) / 597)
    assert below["lower"] < below["reference"] < below["upper"]


def test_the_p_chart_has_a_point_per_interval_with_its_own_limits(api, v1, rng):
    put(api, packed(arrays(rng)))
    for n in (100, 1000):
        start = windows.aligned(timezone.now(), 10) - timedelta(seconds=10 + n)
        one = report(v1, [window(rng, n=n)], start=start)
        store(one)
    windows.fold(timezone.now())
    body = api.get(f"{VERSION}/spc/p").json()
    assert [point["n"] for point in body["points"]] == [997, 97]
    wide = [point["upper"] - point["lower"] for point in body["points"]]
    assert wide[0] < wide[1]
    assert body["center_from"] == "reference"
    assert api.get(f"{VERSION}/spc/p?share=x").json()["errors"][0]["pointer"] == "/share"
    assert api.get(f"{VERSION}/spc/xyz").json()["errors"][0]["pointer"] == "/chart"


def outcome(v1, index, wrong, sampler="measure", probability=0.1):
    Outcome.objects.create(
        version=v1,
        request_id=str(index),
        requested_at=timezone.now(),
        wrong=wrong,
        sampler=sampler,
        inclusion_probability=probability,
    )


def test_accuracy_uses_measure_labels_only(api, v1):
    empty = api.get(f"{VERSION}/accuracy").json()
    assert (empty["accuracy"], empty["low"], empty["high"], empty["n"]) == (None, 0, 1, 0)
    for index in range(40):
        outcome(v1, index, wrong=index < 4)
        outcome(v1, index, wrong=True, sampler="band", probability=None)
    Prediction.objects.create(
        version=v1, request_id="0", at=timezone.now(), sampler="measure", segment={"device": "ios"}
    )
    body = api.get(f"{VERSION}/accuracy").json()
    assert (body["accuracy"], body["n"]) == (pytest.approx(0.9), 40)
    assert 0.7 < body["low"] < 0.9 < body["high"] < 0.98
    assert api.get(f"{VERSION}/accuracy?segment.device=ios").json()["n"] == 1
