"""Labels and mirrored requests in whole rollouts: behaviours 20, 29 and 38."""

from __future__ import annotations

import itertools
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from controlplane.models import ModelVersion, User
from controlplane.problems import Problem
from labeling import queue
from monitoring import disagreements, ingest, shadow
from monitoring.models import Outcome, ShadowDraw, ShadowPair
from rollout import replay, tick
from rollout.evidence import sources
from rollout.models import Evidence, Rollout
from rollout.phases import TERMINAL
from rollout.plan import load
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db
_numbers = itertools.count()

LABELS = {"name": "accuracy", "weight": 1.0, "required": False, "settings": {"mature_seconds": 120}}
ALONE: dict[str, Any] = {**PLAN, "watch_seconds": 600, "gates": [*PLAN["gates"], LABELS]}
MIRRORED: dict[str, Any] = {
    **PLAN,
    "shadow": {"percent": 100, "least_seconds": 20},
    "gates": [*PLAN["gates"], {"name": "parity", "weight": 1.0}],
    "patience_seconds": 3_600,
}


class Labelling(Scene):
    """A scene in which people label a share of the requests, each after 90 s; `wrong` by version."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.wrong: dict[str, float] = {}
        self.share = 0.05
        self.requests = itertools.count()

    def window(self, name: str, n: int, failed: int, does: Behaviour) -> None:
        super().window(name, n, failed, does)
        version = ModelVersion.objects.get(model=self.model, name=name)
        labelled = int(self.rng.binomial(n - failed, self.share))
        wrong = self.rng.random(labelled) < self.wrong.get(name, 0.05)
        Outcome.objects.bulk_create(
            Outcome(
                version=version,
                request_id=f"r{next(self.requests)}",
                requested_at=self.now - timedelta(seconds=0.5),
                wrong=bool(each),
                sampler="measure",
                inclusion_probability=0.05,
                created_at=self.now + timedelta(seconds=90),
            )
            for each in wrong
        )


@pytest.fixture
def scene() -> Labelling:
    return Labelling(f"labels-{next(_numbers)}")


def reasons(rollout: Rollout) -> list[str]:
    return list(rollout.events.values_list("reason", flat=True))


def wait(scene: Scene, rollout: Rollout, seconds: int) -> Rollout:
    """Let time pass without traffic, up to the end of the rollout."""
    for _ in range(seconds // 30):
        scene.now += timedelta(seconds=30)
        tick.tick(rollout.pk, scene.now)
        if scene.get(rollout).state in TERMINAL:
            break
    return scene.get(rollout)


def mirrored(scene: Scene, rollout: Rollout, seconds: int, *, agree: float, each: int = 100) -> Rollout:
    """Tick while `each` mirrored requests a second are matched, of which a share agrees."""
    for _ in range(seconds):
        if scene.get(rollout).weight_percent == 0 and scene.get(rollout).state == "running":
            same = scene.rng.random(each) < agree
            ShadowPair.objects.bulk_create(
                ShadowPair(
                    version=rollout.version,
                    stable=rollout.stable,
                    request_id=f"{scene.now.timestamp()}-{i}",
                    at=scene.now,
                    matched_at=scene.now,
                    stable_label="hat",
                    canary_label="hat" if agreed else "cap",
                    agreed=bool(agreed),
                    inclusion_probability=1.0,
                )
                for i, agreed in enumerate(same)
            )
        scene.run(rollout, 1)
    return scene.get(rollout)


# 20: ground truth after the promotion


def test_20_ground_truth_that_comes_after_the_promotion_and_is_bad_rolls_back(scene: Labelling) -> None:
    scene.live()
    scene.wrong["v2"] = 0.6
    rollout = scene.run(scene.start(scene.version("v2"), ALONE), 600, until="watching")
    assert rollout.state == "watching"
    ended = wait(scene, rollout, 600)
    assert ended.state == "rolled_back"
    assert ended.reason.startswith("accuracy failed: canary wrong in")
    assert "seen after the promotion" in ended.reason
    assert scene.route.stable is not None
    assert scene.route.stable.name == "v1"


def test_20_good_labels_after_the_promotion_change_nothing(scene: Labelling) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2"), ALONE), 600, until="watching")
    ended = wait(scene, rollout, 900)
    assert ended.state == "promoted"
    accuracy = next(gate for gate in ended.gates if gate["name"] == "accuracy")
    assert accuracy["n"] > 0


def test_20_labels_that_nobody_gives_hold_nothing_up_where_they_are_not_required(scene: Labelling) -> None:
    scene.live()
    scene.share = 0
    rollout = scene.run(scene.start(scene.version("v2"), ALONE), 600, until="watching")
    rollout = wait(scene, rollout, 900)
    assert rollout.state == "promoted"
    accuracy = next(gate for gate in rollout.gates if gate["name"] == "accuracy")
    assert accuracy["reason"].startswith("no labels yet")


def test_required_labels_are_waited_for(scene: Labelling) -> None:
    scene.live()
    wanted = {**LABELS, "required": True, "settings": {"mature_seconds": 120, "margin_points": {"50": 10.0}}}
    steps = [{"weight_percent": 50, "dwell_seconds": 5}]
    slow = {**ALONE, "steps": steps, "gates": [*PLAN["gates"], wanted], "patience_seconds": 3_600}
    rollout = scene.run(scene.start(scene.version("v2"), slow), 100)
    assert rollout.state == "running"
    assert rollout.reason == "step 1 at 50 %: waits for accuracy"
    assert scene.run(rollout, 300, until="watching").state == "watching"


def test_the_record_of_labels_replays_to_the_same_verdict(scene: Labelling) -> None:
    scene.live()
    scene.wrong["v2"] = 0.6
    rollout = scene.run(scene.start(scene.version("v2"), ALONE), 600, until="watching")
    rollout = wait(scene, rollout, 600)
    records = [
        replay.Record(
            row.gate,
            row.step,
            row.weight_percent,
            sources.from_json(row.start.timestamp(), row.end.timestamp(), row.arms),
        )
        for row in Evidence.objects.filter(rollout=rollout).order_by("id")
    ]
    again = replay.again(load(rollout.plan), records)
    assert again.failed is not None
    assert again.failed.name == "accuracy"
    told = next(gate for gate in rollout.gates if gate["name"] == "accuracy")
    assert again.failed.log_e_fail == pytest.approx(told["log_e_fail"])


# 29: mirrored requests count for parity


def test_29_a_faithful_canary_goes_from_mirroring_to_its_first_step(scene: Labelling) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"), MIRRORED)
    state = mirrored(scene, rollout, 80, agree=1.0)
    assert state.weight_percent > 0
    assert any("mirrored" in reason for reason in reasons(rollout))
    assert scene.run(rollout, 900, until="watching").state == "watching"


def test_29_while_requests_are_mirrored_only_pairs_count(scene: Labelling) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"), MIRRORED)
    state = mirrored(scene, rollout, 15, agree=1.0, each=10)
    assert (state.state, state.weight_percent) == ("running", 0)
    assert state.reason.startswith("mirroring: waits for parity")
    found = Evidence.objects.filter(rollout=rollout)
    assert found.filter(gate="parity").exists()
    assert not any(row.arms["canary"]["n"] for row in found.exclude(gate="parity"))


def test_29_both_collectors_are_asked_for_samples_as_long_as_requests_are_mirrored(scene: Labelling) -> None:
    stable = scene.live()
    rollout = scene.start(scene.version("v2"), MIRRORED)
    mirrored(scene, rollout, 10, agree=1.0, each=1)
    assert shadow.share(stable, scene.now) == shadow.share(rollout.version, scene.now) > 0
    draw = ShadowDraw.objects.get()
    mirrored(scene, rollout, 70, agree=1.0)
    assert scene.get(rollout).weight_percent > 0
    scene.run(rollout, 90)
    assert shadow.share(stable, scene.now) == 0
    assert ShadowDraw.objects.get() == draw


def test_29_a_plan_that_mirrors_without_a_gate_of_pairs_goes_on_after_its_time(scene: Labelling) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"), {**PLAN, "shadow": {"percent": 10, "least_seconds": 20}})
    assert scene.run(rollout, 15).weight_percent == 0
    assert scene.run(rollout, 20).weight_percent > 0


# 38: a variant below its parity


def test_38_a_variant_that_disagrees_too_often_never_gets_traffic(scene: Labelling) -> None:
    scene.live()
    rollout = scene.start(scene.version("v2"), MIRRORED)
    state = mirrored(scene, rollout, 60, agree=0.97)
    assert state.state == "rolled_back"
    assert "parity failed" in state.reason
    assert "at least 99.9 % is asked for" in state.reason
    assert set(rollout.events.values_list("weight_percent", flat=True)) == {0.0}


def test_38_a_variant_below_its_parity_on_the_golden_set_is_refused(scene: Labelling) -> None:
    scene.live()
    variant = scene.version("v2")
    ModelVersion.objects.filter(pk=variant.pk).update(
        metadata={"parity": {"against": "v1", "compared": 10_000, "agreed": 9_950}}
    )
    variant.refresh_from_db()
    with pytest.raises(Problem, match=r"99\.50 % of 10,000 golden images"):
        scene.start(variant, MIRRORED)
    assert not Rollout.objects.filter(version=variant).exists()


def test_38_a_golden_set_that_shows_parity_is_enough_without_mirroring(scene: Labelling) -> None:
    scene.live()
    variant = scene.version("v2")
    variant.metadata = {"parity": {"against": "v1", "compared": 10_000, "agreed": 9_999}}
    variant.save()
    plan = {key: value for key, value in MIRRORED.items() if key != "shadow"}
    rollout = scene.run(scene.start(variant, plan), 900, until="watching")
    assert rollout.state == "watching"
    parity = next(gate for gate in rollout.gates if gate["name"] == "parity")
    assert (parity["verdict"], parity["n"]) == ("PASS", 10_000)


# Paired labels


def test_labels_of_disagreements_decide_the_accuracy_gate(scene: Labelling) -> None:
    """Mirrored for a minute, then labelled: where they differ the canary is wrong, so it is rolled back."""
    scene.live()
    scene.share = 0
    plan = {**ALONE, "shadow": {"percent": 100, "least_seconds": 60}}
    rollout = scene.start(scene.version("v2"), plan)
    mirrored(scene, rollout, 65, agree=0.9)
    for pair in ShadowPair.objects.filter(agreed=False):
        disagreements.settle(rollout.version, pair.request_id, "hat", scene.now)
    scene.run(rollout, 60)
    ended = wait(scene, rollout, 900)
    assert ended.state == "rolled_back"
    assert "mirrored requests only the canary was wrong in" in ended.reason
    assert np.isfinite([gate["log_e_fail"] for gate in ended.gates]).all()


def test_a_mirrored_request_goes_the_whole_way_from_two_collectors_to_a_rollback(scene: Labelling) -> None:
    """Sampled by both versions, matched, handed to an annotator, labelled, matured, judged."""
    scene.live()
    scene.share = 0
    plan = {**ALONE, "shadow": {"percent": 100, "least_seconds": 60}}
    rollout = scene.run(scene.start(scene.version("v2"), plan), 10)
    assert ingest.store_predictions(
        [*_sampled(scene, "v1", "live"), *_sampled(scene, "v2", "shadow")], scene.now
    )
    assert shadow.match(scene.now) == 300
    queue.fill(scene.now)
    ann = User.objects.create_user("ann", role="annotator")
    labelled = 0
    while lease := queue.next_task(ann, scene.now):
        queue.submit(lease.token, "hat", scene.now)
        labelled += 1
    assert labelled == 60
    ended = wait(scene, rollout, 900)
    assert ended.state == "rolled_back"
    assert (
        "only the canary was wrong in 60, only stable in 0, 0 disagreements without a label" in ended.reason
    )


def _sampled(scene: Labelling, version: str, purpose: str) -> list[dict[str, Any]]:
    """300 answers of a version; the canary takes every fifth hat for a cap."""
    return [
        {
            "id": f"request-{i}",
            "model": "products",
            "version": version,
            "at": scene.now.isoformat(),
            "purpose": purpose,
            "label": "cap" if purpose == "shadow" and i % 5 == 0 else "hat",
            "confidence": 0.8,
            "image": f"https://images.test/{i}.png",
            "sampler": "shadow",
            "inclusion_probability": 0.5,
        }
        for i in range(300)
    ]
