"""Do mirrored requests meet stable's answers: once, in either order, whoever is late?"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from davy import wire

from monitoring import ingest, retention, shadow
from monitoring.models import Prediction, ShadowDraw, ShadowPair, Window
from tests.labeling.threads import together
from tests.monitoring.build import T0, report, version, window

NOW = T0 + timedelta(seconds=20)


@pytest.fixture
def versions(db: None) -> tuple[Any, Any]:
    """Stable and a canary, of which mirrored requests are drawn."""
    stable, canary = version(name="v1"), version(name="v2")
    shadow.ask(canary, stable, NOW)
    return stable, canary


def row(i: int = 0, name: str = "v2", **fields: Any) -> dict[str, Any]:
    purpose = "shadow" if name == "v2" else "live"
    sampled = {"sampler": "shadow", "inclusion_probability": 0.5}
    answer = {"label": "hat", "confidence": 0.8, "image": f"https://images.test/{i}.png"}
    head = {"id": f"r{i}", "model": "products", "version": name, "at": T0.isoformat(), "purpose": purpose}
    return {**head, **answer, **sampled, **fields}


def post(*rows: dict[str, Any], at: Any = NOW) -> None:
    assert not ingest.store_predictions(rows, at).rejected


# What the collectors hear


def test_both_collectors_hear_the_share_while_requests_are_mirrored(versions):
    rng = np.random.default_rng(1)
    other = version("shoes")
    heard = {
        of: ingest.store_report(wire.encode_report(report(of, [window(rng)])), NOW).shadow_share
        for of in (*versions, other)
    }
    assert heard == {versions[0]: 0.01, versions[1]: 0.01, other: 0.0}


def test_a_draw_that_nobody_asks_for_ends_by_itself(versions):
    assert shadow.share(versions[0], NOW + shadow.LASTS + timedelta(seconds=1)) == 0.0
    for seconds in range(0, 300, 10):
        shadow.ask(versions[1], versions[0], NOW + timedelta(seconds=seconds))
        assert shadow.share(versions[0], NOW + timedelta(seconds=seconds + 5)) > 0
    assert ShadowDraw.objects.count() == 1


@pytest.mark.parametrize(("n", "share"), [(600, 1.0), (6_000, 1.0), (60_000, 0.1), (6_000_000, 0.001)])
def test_the_share_keeps_the_samples_of_a_second_near_100_however_large_the_fleet(versions, n, share):
    stable, canary = versions
    ShadowDraw.objects.all().delete()
    Window.objects.create(version=stable, start=NOW - timedelta(seconds=60), end=NOW, n=n, errors=0)
    shadow.ask(canary, stable, NOW)
    assert shadow.share(stable, NOW) == pytest.approx(share)


# Matching


@pytest.mark.parametrize("first", ["v1", "v2"])
def test_either_answer_may_come_first(versions, first):
    second = {"v1": "v2", "v2": "v1"}[first]
    post(row(name=first, label="hat"))
    assert shadow.match(NOW) == 0
    post(row(name=second, label="hat"))
    assert shadow.match(NOW + timedelta(seconds=5)) == 1
    pair = ShadowPair.objects.get()
    assert (pair.agreed, pair.stable_label, pair.canary_label) == (True, "hat", "hat")
    assert (pair.version, pair.stable) == versions[::-1]


def test_a_pair_is_drawn_with_the_smaller_of_both_probabilities(versions):
    post(row(name="v1", inclusion_probability=0.2), row(name="v2", inclusion_probability=0.6))
    shadow.match(NOW)
    assert ShadowPair.objects.get().inclusion_probability == 0.2


def test_what_is_posted_again_makes_no_second_pair(versions):
    for _ in range(3):
        post(row(name="v1"), row(name="v2"))
        shadow.match(NOW)
    assert ShadowPair.objects.count() == 1


def test_other_requests_purposes_and_versions_are_no_twins(versions):
    version(name="v3")
    post(row(0), row(1, "v1"), row(0, "v3", purpose="live"), row(0, "v1", purpose="pinned"))
    assert shadow.match(NOW) == 0


def test_a_request_without_a_twin_is_given_up_and_not_looked_at_again(versions):
    post(row(0))
    late = NOW + shadow.WAIT + timedelta(seconds=1)
    shadow.match(late)
    assert Prediction.objects.get().paired_at == late
    post(row(0, "v1"), at=late)
    assert shadow.match(late) == 0


def test_raw_predictions_are_matched_without_a_collector(versions):
    raw = {"sampler": "", "inclusion_probability": None}
    post(row(name="v1", **raw), row(name="v2", label="boot", **raw))
    assert shadow.match(NOW) == 1
    pair = ShadowPair.objects.get()
    assert (pair.agreed, pair.inclusion_probability) == (False, 1.0)


def test_detections_are_compared_by_boxes_and_told_in_words(versions):
    box = {"label": "hat", "confidence": 0.9, "box": [0.0, 0.0, 10.0, 10.0]}
    moved = {**box, "box": [1.0, 0.0, 10.0, 10.0]}
    post(row(0, "v1", detections=[box]), row(0, "v2", detections=[moved]))
    post(row(1, "v1", detections=[box]), row(1, "v2", detections=[]))
    shadow.match(NOW)
    same, differs = ShadowPair.objects.order_by("request_id")
    assert (same.agreed, same.stable_label) == (True, "1 hat")
    assert same.iou == pytest.approx(9 / 11)
    assert (differs.agreed, differs.canary_label, differs.iou) == (False, "nothing", 0.0)


def test_embeddings_are_compared_where_both_sent_one(versions):
    post(row(0, "v1", embedding=[1.0, 0.0]), row(0, "v2", embedding=[1.0, 1.0]))
    post(row(1, "v1", embedding=[1.0, 0.0]), row(1, "v2"))
    shadow.match(NOW)
    both, one = ShadowPair.objects.order_by("request_id")
    assert both.cosine == pytest.approx(0.5**0.5)
    assert one.cosine is None


def test_answers_that_cannot_be_compared_make_no_pair(versions):
    post(row(0, "v1", label=""), row(0, "v2"))
    shadow.match(NOW)
    assert not ShadowPair.objects.exists()
    assert not Prediction.objects.filter(purpose="shadow", paired_at__isnull=True).exists()


def test_more_than_one_batch_is_matched_in_one_go(versions, monkeypatch):
    monkeypatch.setattr(shadow, "BATCH", 10)
    post(*(row(i, name) for i in range(35) for name in ("v1", "v2")))
    assert shadow.match(NOW) == 35


@pytest.mark.django_db(transaction=True)
def test_workers_share_the_work_and_make_no_pair_twice(monkeypatch):
    stable, canary = version(name="v1"), version(name="v2")
    shadow.ask(canary, stable, NOW)
    monkeypatch.setattr(shadow, "BATCH", 7)
    post(*(row(i, name) for i in range(200) for name in ("v1", "v2")))
    assert sum(together(lambda _: shadow.match(NOW), 4)) == 200
    assert ShadowPair.objects.count() == 200


def test_a_shadow_sample_states_its_probability(versions):
    answer = ingest.store_predictions([row(0), row(1, inclusion_probability=None)], NOW)
    assert [(bad["index"], bad["pointer"]) for bad in answer.rejected] == [(1, "/inclusion_probability")]


def test_pairs_are_kept_as_long_as_windows(versions):
    post(row(name="v1"), row(name="v2"))
    shadow.match(NOW)
    retention.prune(NOW + retention.SHADOW_PAIR - timedelta(minutes=1))
    assert ShadowPair.objects.exists()
    retention.prune(NOW + retention.SHADOW_PAIR + timedelta(minutes=1))
    assert not ShadowPair.objects.exists()
