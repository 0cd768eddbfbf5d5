"""Claims about models and versions, as rules and over REST."""

from __future__ import annotations

import json

import pytest

from controlplane.models import AuditEntry, ModelVersion

D1, D2 = "1" * 64, "2" * 64
JSON = "application/json"


@pytest.fixture
def model(api):
    api.post("/api/v1/models", '{"name": "products"}', content_type=JSON)
    return "products"


def register(api, version="v1", digest=D1, model="products", **more):
    body = {"version": version, "artifact_uri": "file:///srv/v1", "digest": digest, **more}
    return api.post(f"/api/v1/models/{model}/versions", json.dumps(body), content_type=JSON)


def pointer_of(answer):
    return answer.status_code, answer.json()["errors"][0]["pointer"]


def test_a_new_version_is_201_and_the_same_again_is_200(api, model):
    first, again = register(api), register(api)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert AuditEntry.objects.filter(act="version.register", actor="root").count() == 1


def test_the_same_name_with_another_digest_is_409_and_changes_nothing(api, model):
    register(api)
    assert pointer_of(register(api, digest=D2)) == (409, "/digest")
    assert ModelVersion.objects.get().digest == D1


def test_another_name_for_a_known_digest_is_201(api, model):
    register(api)
    assert register(api, version="v1-again").status_code == 201


def test_an_unknown_model_is_404_at_model(api, db):
    assert pointer_of(register(api, model="shoes")) == (404, "/model")


def test_a_variant_needs_its_parent_in_the_same_model(api, model):
    int8 = {"precision": "int8", "device": "mobile", "parent": "v1"}
    assert pointer_of(register(api, version="v1-int8", variant=int8)) == (404, "/variant/parent")
    register(api)
    answer = register(api, version="v1-int8", digest=D2, variant=int8)
    assert (answer.status_code, answer.json()["variant"]) == (201, int8)


@pytest.mark.parametrize(
    ("more", "pointer"),
    [
        ({"digest": "ABC"}, "/digest"),
        ({"digest": D1 + "\n"}, "/digest"),
        ({"version": "V 1"}, "/version"),
        ({"version": "v1\n"}, "/version"),
        ({"artifact_uri": "/srv/v1"}, "/artifact_uri"),
        ({"variant": {"precision": "fp8"}}, "/variant/precision"),
        ({"variant": {"size": 1}}, "/variant/size"),
        ({"metadata": []}, "/metadata"),
        ({"mlflow_run_id": "x" * 65}, "/mlflow_run_id"),
    ],
)
def test_bad_fields_are_named_and_nothing_is_stored(api, model, more, pointer):
    assert pointer_of(register(api, **more)) == (422, pointer)
    assert not ModelVersion.objects.exists()


def test_a_model_again_is_200_and_with_another_task_409(api, model):
    assert api.post("/api/v1/models", '{"name": "products"}', content_type=JSON).status_code == 200
    other = api.post("/api/v1/models", '{"name": "products", "task": "detection"}', content_type=JSON)
    assert pointer_of(other) == (409, "/task")


def test_versions_are_listed_newest_first_and_shown(api, model):
    register(api)
    register(api, version="v2", digest=D2)
    listed = api.get("/api/v1/models/products/versions").json()["items"]
    assert [v["version"] for v in listed] == ["v2", "v1"]
    assert api.get("/api/v1/models/products/versions/v2").json() == listed[0]
    assert pointer_of(api.get("/api/v1/models/products/versions/v3")) == (404, "/version")
    assert pointer_of(api.get("/api/v1/models/shoes/versions/v3")) == (404, "/model")
    assert pointer_of(api.get("/api/v1/models/shoes/versions")) == (404, "/model")


def patch(api, **headers):
    return api.patch(
        "/api/v1/models/products/versions/v1",
        '{"metadata": {"owner": "ann"}}',
        content_type=JSON,
        headers=headers,
    )


def test_metadata_changes_only_from_the_state_that_was_seen(api, model):
    seen = register(api)["ETag"]
    assert patch(api).status_code == 428
    assert patch(api, **{"If-Match": '"another"'}).status_code == 412
    changed = patch(api, **{"If-Match": seen})
    assert (changed.status_code, changed.json()["metadata"]) == (200, {"owner": "ann"})
    assert patch(api, **{"If-Match": seen}).status_code == 412
    assert changed["ETag"] == api.get("/api/v1/models/products/versions/v1")["ETag"] != seen


def test_nothing_but_metadata_can_be_patched(api, model):
    seen = register(api)["ETag"]
    answer = api.patch(
        "/api/v1/models/products/versions/v1",
        json.dumps({"metadata": {}, "digest": D2}),
        content_type=JSON,
        headers={"If-Match": seen},
    )
    assert pointer_of(answer) == (422, "/digest")
