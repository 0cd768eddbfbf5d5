from __future__ import annotations

import pytest
from django.db import transaction

from labeling import queue, routing
from labeling.models import Lease, Task
from monitoring.models import Prediction
from tests.labeling.scene import NOW, a_version, an_annotator, predictions, tasks
from tests.labeling.threads import kill_when_waiting, together

pytestmark = pytest.mark.django_db


def test_a_raw_prediction_in_the_band_becomes_a_task_with_its_provenance() -> None:
    version = a_version()
    (row,) = predictions(version, 1, probabilities={"shoe": 0.47}, segment={"device": "kiosk"})
    assert routing.route(NOW)["improve"] == 1
    task = Task.objects.get()
    assert (task.model, task.version, task.request_id) == (version.model, version, row.request_id)
    assert (task.budget, task.sampler, task.segment) == ("improve", "band", {"device": "kiosk"})
    assert task.suggestion == {"label": "shoe", "confidence": 0.47, "probabilities": {"shoe": 0.47}}
    assert task.why == "confidence .47 is between .30 and .60"
    assert task.requested_at == row.at


def test_every_prediction_is_looked_at_once() -> None:
    predictions(a_version(), 3, confidence=0.95)
    assert routing.route(NOW)["not_chosen"] == 3
    assert routing.route(NOW)["looked_at"] == 0
    assert not Task.objects.exists()


def test_a_measure_draw_keeps_probability_and_stratum() -> None:
    predictions(
        a_version(), 1, confidence=0.99, sampler="measure", inclusion_probability=0.02, stratum="high"
    )
    assert routing.route(NOW)["measure"] == 1
    task = Task.objects.get()
    assert (task.budget, task.inclusion_probability, task.stratum) == ("measure", 0.02, "high")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"image": ""}, "no_image"),
        ({"purpose": "pinned"}, "not_live"),
        ({"purpose": "shadow"}, "not_live"),
        ({"sampler": "nope"}, "unknown_sampler"),
        ({"sampler": "measure"}, "no_probability"),
        ({"confidence": None}, "not_chosen"),
    ],
)
def test_what_is_not_a_task_is_counted_with_its_reason(fields: dict[str, object], reason: str) -> None:
    predictions(a_version(), 2, **fields)
    assert routing.route(NOW)[reason] == 2
    assert not Task.objects.exists()
    assert not Prediction.objects.filter(routed_at__isnull=True).exists()


def test_the_same_request_sent_raw_and_by_the_collector_is_one_task() -> None:
    version = a_version()
    for sampler in ("", "band"):
        Prediction.objects.create(
            version=version, request_id="same", at=NOW, confidence=0.4, image="x", sampler=sampler
        )
    routing.route(NOW)
    assert Task.objects.count() == 1


def test_a_full_queue_keeps_the_most_uncertain_and_counts_the_rest() -> None:
    version = a_version()
    predictions(version, 3, confidence=0.55)
    predictions(version, 2, confidence=0.35)
    seen = routing.route(NOW, open_limit=2)
    assert (seen["improve"], seen["dropped"]) == (5, 3)
    assert {task.suggestion["confidence"] for task in Task.objects.all()} == {0.35}


def test_measure_tasks_are_never_dropped() -> None:
    version = a_version()
    predictions(version, 20, sampler="measure", inclusion_probability=0.1)
    predictions(version, 20, confidence=0.31)
    routing.route(NOW, open_limit=0)
    assert Task.objects.filter(budget="measure").count() == 20
    assert not Task.objects.filter(budget="improve").exists()


def test_the_bound_holds_for_each_model_by_itself() -> None:
    quiet = tasks(a_version("returns"), 1, priority=-1)[0]
    predictions(a_version("products"), 5)
    routing.route(NOW, open_limit=1)
    assert Task.objects.filter(model=quiet.model).count() == 1
    assert Task.objects.exclude(model=quiet.model).count() == 1


def test_a_task_that_was_ever_handed_out_is_never_dropped() -> None:
    version = a_version()
    (held,) = tasks(version, 1, priority=-1)
    assert queue.next_task(an_annotator(), NOW) is not None
    predictions(version, 5)
    routing.route(NOW, open_limit=2)
    assert Lease.objects.filter(task=held).exists()


@pytest.mark.django_db(transaction=True)
def test_two_workers_filling_at_once_make_no_duplicates_and_lose_nothing() -> None:
    version = a_version()
    predictions(version, 600)
    predictions(version, 600, sampler="measure", inclusion_probability=0.5)
    together(lambda _: queue.fill(NOW), 4)
    queue.fill(NOW)
    assert Task.objects.filter(sampler="band").count() == 600
    assert Task.objects.filter(sampler="measure").count() == 600


@pytest.mark.django_db(transaction=True)
def test_a_worker_killed_between_tasks_and_mark_leaves_nothing_half_done() -> None:
    version = a_version()
    rows = predictions(version, 3)
    with transaction.atomic():
        # An uncommitted twin of the last task holds the worker between its insert and its mark.
        tasks(version, 1)
        Task.objects.update(request_id=rows[-1].request_id)
        kill_when_waiting(lambda: routing.route(NOW))
        transaction.set_rollback(True)
    assert not Task.objects.exists()
    assert Prediction.objects.filter(routed_at__isnull=True).count() == 3
    assert routing.route(NOW)["improve"] == 3
    assert Task.objects.count() == 3
