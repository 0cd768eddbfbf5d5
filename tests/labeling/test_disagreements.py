"""Disagreements between stable and a canary: offered first, blindly, once, and their labels come back for both."""

from __future__ import annotations

from datetime import timedelta

import pytest

from labeling import disagreements, queue
from labeling.models import Task
from monitoring.models import Outcome, ShadowPair
from tests.labeling.scene import NOW, a_version, an_annotator, predictions, tasks

pytestmark = pytest.mark.django_db


@pytest.fixture
def versions():
    return a_version(name="v1"), a_version(name="v2", bundle={"classes": ["boot", "shoe"]})


def pairs(versions, count, **fields):
    stable, canary = versions
    start = ShadowPair.objects.count()
    values = {
        "stable_label": "shoe",
        "canary_label": "boot",
        "agreed": False,
        "inclusion_probability": 0.25,
        "image": "https://images.test/1.png",
        "matched_at": NOW,
        **fields,
    }
    return ShadowPair.objects.bulk_create(
        ShadowPair(version=canary, stable=stable, request_id=f"p{start + i}", at=NOW, **values)
        for i in range(count)
    )


def test_a_disagreement_becomes_a_measure_task_with_its_probability(versions):
    pairs(versions, 1)
    assert disagreements.route(NOW)["disagreement"] == 1
    task = Task.objects.get()
    assert (task.budget, task.sampler, task.inclusion_probability) == ("measure", "disagreement", 0.25)
    assert task.version == versions[1]


def test_the_annotator_is_not_told_which_version_said_what(versions):
    pairs(versions, 1)
    pairs(versions, 1, stable_label="boot", canary_label="shoe")
    disagreements.route(NOW)
    assert {task.why for task in Task.objects.all()} == {"two versions disagree: boot or shoe"}
    assert not any(task.suggestion["label"] for task in Task.objects.all())


def test_agreements_and_boxes_are_not_offered(versions):
    pairs(versions, 1, agreed=True)
    pairs(versions, 1, iou=0.3)
    disagreements.route(NOW)
    assert not Task.objects.exists()


def test_each_is_offered_once(versions):
    pairs(versions, 3)
    for _ in range(3):
        disagreements.route(NOW)
    assert Task.objects.count() == 3


def test_the_queue_stays_bounded_and_the_rest_waits_its_turn(versions):
    pairs(versions, 5)
    disagreements.route(NOW, open_limit=3)
    assert Task.objects.count() == 3
    Task.objects.update(state=Task.State.DONE)
    disagreements.route(NOW, open_limit=3)
    assert Task.objects.count() == 5


def test_a_full_queue_of_one_model_does_not_keep_another_waiting(versions):
    other = a_version("shoes", "v1"), a_version("shoes", "v2")
    pairs(versions, 5)
    pairs(other, 1)
    disagreements.route(NOW, open_limit=2)
    assert Task.objects.filter(model__name="shoes").count() == 1


def test_one_that_nobody_could_take_in_time_is_not_offered_any_more(versions):
    pairs(versions, 2, matched_at=NOW - disagreements.FRESH - timedelta(seconds=1))
    seen = disagreements.route(NOW)
    assert (seen["stale"], seen["disagreement"]) == (2, 0)


def test_without_an_image_there_is_nothing_to_label(versions):
    pairs(versions, 1, image="")
    assert disagreements.route(NOW)["no_image"] == 1
    assert not Task.objects.exists()


def test_disagreements_come_before_everything_else(versions):
    tasks(versions[0], 3, priority=0.9)
    tasks(versions[0], 3, budget="measure", sampler="measure", priority=1.0, inclusion_probability=0.1)
    pairs(versions, 3)
    queue.fill(NOW)
    ann = an_annotator()
    handed = []
    for i in range(6):
        lease = queue.next_task(ann, NOW + timedelta(seconds=i))
        handed.append(lease.task.sampler)
        if lease.task.sampler == "disagreement":
            queue.submit(lease.token, "shoe", NOW + timedelta(seconds=i))
    assert handed[:3] == ["disagreement"] * 3
    assert "disagreement" not in handed[3:]


@pytest.mark.parametrize(
    ("label", "wrong"), [("shoe", {"v1": False, "v2": True}), ("boot", {"v1": True, "v2": False})]
)
def test_a_label_is_an_outcome_of_both_versions(versions, label, wrong):
    pairs(versions, 1)
    queue.fill(NOW)
    lease = queue.next_task(an_annotator(), NOW)
    queue.submit(lease.token, label, NOW)
    assert dict(Outcome.objects.values_list("version__name", "wrong")) == wrong
    assert ShadowPair.objects.get().truth == label


def test_a_skipped_one_is_the_truth_of_nothing(versions):
    pairs(versions, 1)
    queue.fill(NOW)
    lease = queue.next_task(an_annotator(), NOW)
    queue.skip(lease.token, "blurred", NOW)
    assert not Outcome.objects.exists()
    assert ShadowPair.objects.get().truth == ""


def test_samples_that_wait_for_their_twin_are_no_tasks_and_no_loss(versions):
    predictions(versions[0], 2, sampler="shadow", inclusion_probability=0.5)
    seen = queue.fill(NOW)
    assert (seen["compared"], seen["unknown_sampler"]) == (2, 0)
    assert not Task.objects.exists()
