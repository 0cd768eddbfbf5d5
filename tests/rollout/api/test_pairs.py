"""Disagreements and parity over REST and on the page of a rollout."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

from controlplane.models import AuditEntry, ModelVersion, User
from monitoring.models import ShadowPair
from rollout.models import Rollout
from tests.rollout.api.test_rollouts import V1, client, named, post
from tests.rollout.scene import Scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene() -> Scene:
    return Scene("pairs")


@pytest.fixture
def api() -> Client:
    return client("admin")


@pytest.fixture
def rollout(scene: Scene) -> Rollout:
    scene.live()
    return scene.run(scene.start(scene.version("v2")), 20, until="running")


def pair(scene: Scene, rollout: Rollout, stable: str, canary: str, **fields: Any) -> None:
    ShadowPair.objects.create(
        version=rollout.version,
        stable=rollout.stable,
        request_id=f"p{ShadowPair.objects.count()}",
        **{
            "at": scene.now,
            "matched_at": scene.now,
            "stable_label": stable,
            "canary_label": canary,
            "stable_confidence": 0.7,
            "canary_confidence": 0.6,
            "agreed": stable == canary,
            "inclusion_probability": 0.5,
            "image": "https://images.test/1.png",
            **fields,
        },
    )


def test_disagreements_come_with_their_counts_and_examples(scene, rollout, api):
    for _ in range(3):
        pair(scene, rollout, "hat", "hat")
    pair(scene, rollout, "boot", "shoe")
    pair(scene, rollout, "hat", "cap", truth="hat")
    pair(scene, rollout, "hat", "cap")
    pair(scene, rollout, "hat", "cap", at=rollout.started_at - timedelta(days=1))  # another rollout's
    body = api.get(f"{V1}/rollouts/{rollout.pk}/disagreements").json()
    assert {key: body[key] for key in ("compared", "agreed", "agreement", "disagreed", "not_shown")} == {
        "compared": 6,
        "agreed": 3,
        "agreement": 0.5,
        "disagreed": 3,
        "not_shown": 0,
    }
    first, second = body["items"]
    assert (first["stable"], first["canary"], first["n"], first["only_canary_wrong"]) == ("hat", "cap", 2, 1)
    assert (first["unlabelled"], second["n"]) == (1, 1)
    assert [example["truth"] for example in first["examples"]] == [None, "hat"]
    assert first["examples"][0]["image"] == "https://images.test/1.png"


def test_a_rollout_without_mirroring_has_none(rollout, api):
    body = api.get(f"{V1}/rollouts/{rollout.pk}/disagreements").json()
    assert (body["compared"], body["agreement"], body["items"]) == (0, None, [])


def test_an_unknown_rollout_is_404(api, scene):
    assert api.get(f"{V1}/rollouts/999/disagreements").status_code == 404


def test_the_page_shows_the_disagreements(scene, rollout):
    pair(scene, rollout, "hat", "hat")
    pair(scene, rollout, "hat", "cap<script>")
    browser = Client()
    browser.force_login(User.objects.create_user("eve", role="engineer"))
    page = browser.get(f"/rollouts/{rollout.pk}").content.decode()
    assert "Both answered 2 mirrored requests and agreed on 1." in page
    assert "cap&lt;script&gt;" in page


def test_the_page_is_silent_where_nothing_was_mirrored(rollout):
    browser = Client()
    browser.force_login(User.objects.create_user("eve", role="engineer"))
    assert "Disagreements" not in browser.get(f"/rollouts/{rollout.pk}").content.decode()


# Parity on a golden set


@pytest.fixture
def variant(scene: Scene) -> ModelVersion:
    parent = scene.version("v1")
    variant = scene.version("v1-int8")
    variant.parent = parent
    variant.metadata = {"owner": "ann"}
    variant.save()
    return variant


def parity(api: Client, version: str = "v1-int8", **body: Any) -> Any:
    return post(api, f"/models/products/versions/{version}/parity", **body)


def test_a_golden_sets_result_is_kept_with_the_version(variant, api):
    answer = parity(api, compared=10_000, agreed=9_991, golden_set="2026-11", map_drop_points=0.1)
    assert answer.status_code == 201
    assert answer.json()["agreement"] == 0.9991
    shown = api.get(f"{V1}/models/products/versions/v1-int8/parity").json()
    assert (shown["against"], shown["compared"], shown["agreed"]) == ("v1", 10_000, 9_991)
    variant.refresh_from_db()
    assert variant.metadata["owner"] == "ann"
    assert AuditEntry.objects.filter(act="version.parity").count() == 1


def test_a_later_result_replaces_the_earlier(variant, api):
    parity(api, compared=100, agreed=90)
    parity(api, compared=100, agreed=100)
    assert api.get(f"{V1}/models/products/versions/v1-int8/parity").json()["agreed"] == 100


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"compared": 0, "agreed": 0}, "/compared"),
        ({"compared": 10, "agreed": 11}, "/agreed"),
        ({"compared": 10, "agreed": -1}, "/agreed"),
        ({"compared": 10}, "/agreed"),
        ({"compared": 10.5, "agreed": 1}, "/compared"),
        ({"compared": 10, "agreed": 1, "against": "v9"}, "/against"),
        ({"compared": 10, "agreed": 1, "against": "v1-int8"}, "/against"),
        ({"compared": 10, "agreed": 1, "map_drop_points": 1_000}, "/map_drop_points"),
        ({"compared": 10, "agreed": 1, "colour": "red"}, "/colour"),
    ],
)
def test_a_result_that_cannot_be_names_its_field(variant, api, body, pointer):
    answer = parity(api, **body)
    assert pointer in named(answer)[2]
    variant.refresh_from_db()
    assert "parity" not in variant.metadata


def test_a_version_without_a_parent_says_what_it_was_compared_with(variant, api):
    assert named(parity(api, "v1", compared=10, agreed=10)) == (422, "missing", ["/against"])
    assert parity(api, "v1", compared=10, agreed=10, against="v1-int8").status_code == 201


def test_a_reader_may_not_post_parity(variant):
    assert parity(client("read"), compared=10, agreed=10).status_code == 403


def test_nothing_posted_is_404(variant, api):
    assert named(api.get(f"{V1}/models/products/versions/v1-int8/parity")) == (404, "no_parity", ["/version"])
