from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import transaction

from controlplane.models import User
from controlplane.problems import Problem
from labeling import queue
from labeling.models import Annotation, Lease, Task
from monitoring.models import Outcome
from tests.labeling.scene import NOW, a_version, an_annotator, predictions, tasks
from tests.labeling.threads import kill_when_waiting, together

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(seconds=settings.LEASE_SECONDS)


def _lease(annotator: User, **at: object) -> Lease:
    lease = queue.next_task(annotator, **{"now": NOW, **at})  # type: ignore[arg-type]
    assert lease is not None
    return lease


def _refused(code: str, status: int, call: object) -> None:
    with pytest.raises(Problem) as caught:
        call()  # type: ignore[operator]
    assert (caught.value.code, caught.value.status) == (code, status)


# Leasing


def test_the_highest_priority_comes_first_and_then_the_oldest() -> None:
    version, ann = a_version(), an_annotator()
    low, first, second = (tasks(version, 1, priority=p)[0] for p in (0.1, 0.9, 0.9))
    assert [_lease(ann).task for _ in range(3)] == [first, second, low]
    assert queue.next_task(ann, NOW) is None


def test_measure_tasks_come_before_improve_tasks() -> None:
    version = a_version()
    predictions(version, 1, confidence=0.31)
    predictions(version, 1, sampler="measure", inclusion_probability=0.1)
    queue.fill(NOW)
    assert _lease(an_annotator()).task.budget == "measure"


def test_a_model_can_be_chosen() -> None:
    tasks(a_version("products"), 1, priority=1)
    (wanted,) = tasks(a_version("returns"), 1)
    assert _lease(an_annotator(), model=wanted.model).task == wanted


def test_the_model_with_the_most_urgent_task_comes_first() -> None:
    tasks(a_version("products"), 1)
    (urgent,) = tasks(a_version("returns"), 1, priority=1)
    assert _lease(an_annotator()).task == urgent


def test_a_leased_task_is_nobody_elses() -> None:
    tasks(a_version(), 1)
    _lease(an_annotator("ann"))
    assert queue.next_task(an_annotator("bob"), NOW) is None


def test_an_overlap_of_two_lets_two_people_answer_and_no_third() -> None:
    tasks(a_version(), 1, overlap=2)
    ann, bob, eve = (an_annotator(name) for name in ("ann", "bob", "eve"))
    lease = _lease(ann)
    _lease(bob)
    assert queue.next_task(eve, NOW) is None
    queue.submit(lease.token, "shoe", NOW)
    assert queue.next_task(eve, NOW) is None
    assert queue.next_task(ann, NOW) is None
    assert Task.objects.get().state == "open"


def test_an_expired_lease_returns_the_task_to_the_queue() -> None:
    tasks(a_version(), 1)
    lease = _lease(an_annotator("ann"))
    assert _lease(an_annotator("bob"), now=LATER).task == lease.task


def test_a_heartbeat_extends_the_lease() -> None:
    tasks(a_version(), 1)
    lease = _lease(an_annotator("ann"))
    halfway = NOW + timedelta(seconds=settings.LEASE_SECONDS / 2)
    assert queue.heartbeat(lease.token, halfway).expires_at > LATER
    assert queue.next_task(an_annotator("bob"), LATER) is None


def test_who_let_a_lease_run_out_may_get_the_task_again_under_a_new_token() -> None:
    tasks(a_version(), 1)
    ann = an_annotator()
    old = _lease(ann)
    new = _lease(ann, now=LATER)
    assert (new.pk, new.task) == (old.pk, old.task)
    _refused("unknown_lease", 404, lambda: queue.submit(old.token, "shoe", LATER))
    assert queue.submit(new.token, "shoe", LATER).label == "shoe"


# Submitting


def test_a_label_closes_the_task_and_records_the_outcome() -> None:
    version = a_version()
    (task,) = tasks(version, 1, budget="measure", sampler="measure", inclusion_probability=0.1, stratum="low")
    queue.submit(_lease(an_annotator()).token, "boot", NOW + timedelta(seconds=3))
    task.refresh_from_db()
    assert (task.state, task.closed_at) == ("done", NOW + timedelta(seconds=3))
    assert Annotation.objects.get().seconds == 3
    outcome = Outcome.objects.get()
    assert (outcome.version, outcome.request_id, outcome.requested_at) == (version, task.request_id, NOW)
    assert (outcome.wrong, outcome.sampler, outcome.arm) == (True, "measure", "")
    assert (outcome.inclusion_probability, outcome.stratum) == (0.1, "low")


def test_a_label_that_agrees_with_the_suggestion_is_not_wrong() -> None:
    tasks(a_version(), 1)
    queue.submit(_lease(an_annotator()).token, "shoe", NOW)
    assert Outcome.objects.get().wrong is False


def test_without_a_suggested_label_nothing_can_be_wrong() -> None:
    tasks(a_version(), 1, suggestion={"label": "", "confidence": None, "probabilities": None})
    queue.submit(_lease(an_annotator()).token, "shoe", NOW)
    assert Task.objects.get().state == "done"
    assert not Outcome.objects.exists()


def test_a_repeated_submission_gets_the_same_answer() -> None:
    tasks(a_version(), 1)
    token = _lease(an_annotator()).token
    first = queue.submit(token, "shoe", NOW)
    assert queue.submit(token, "shoe", LATER) == first
    assert (Annotation.objects.count(), Outcome.objects.count()) == (1, 1)


def test_another_label_under_the_same_token_is_refused() -> None:
    tasks(a_version(), 1)
    token = _lease(an_annotator()).token
    queue.submit(token, "shoe", NOW)
    _refused("already_answered", 409, lambda: queue.submit(token, "boot", NOW))
    _refused("already_answered", 409, lambda: queue.skip(token, "", NOW))
    assert Annotation.objects.get().label == "shoe"


def test_a_late_submission_is_accepted_while_nobody_else_has_the_task() -> None:
    tasks(a_version(), 1)
    queue.submit(_lease(an_annotator()).token, "shoe", LATER)
    assert Task.objects.get().state == "done"


def test_a_late_submission_is_refused_when_somebody_else_has_the_task() -> None:
    tasks(a_version(), 1)
    late = _lease(an_annotator("ann"))
    held = _lease(an_annotator("bob"), now=LATER)
    _refused("lease_lost", 409, lambda: queue.submit(late.token, "shoe", LATER))
    _refused("lease_lost", 409, lambda: queue.heartbeat(late.token, LATER))
    queue.submit(held.token, "boot", LATER)
    _refused("task_closed", 409, lambda: queue.submit(late.token, "shoe", LATER))
    assert Annotation.objects.get().label == "boot"


def test_an_unknown_token_is_refused() -> None:
    _refused("unknown_lease", 404, lambda: queue.submit(uuid.uuid4(), "shoe", NOW))


def test_a_label_must_be_one_of_the_versions_classes() -> None:
    tasks(a_version(bundle={"classes": ["shoe", "boot"]}), 1)
    token = _lease(an_annotator()).token
    _refused("unknown_label", 422, lambda: queue.submit(token, "hat", NOW))
    assert queue.submit(token, "boot", NOW).label == "boot"


@pytest.mark.parametrize("label", ["", "  ", "x" * 256])
def test_without_known_classes_a_label_has_1_to_255_characters(label: str) -> None:
    tasks(a_version(), 1)
    token = _lease(an_annotator()).token
    _refused("invalid_label", 422, lambda: queue.submit(token, label, NOW))


def test_a_skip_is_a_non_response_and_no_outcome() -> None:
    tasks(a_version(), 1)
    token = _lease(an_annotator("ann")).token
    assert queue.skip(token, "too dark", NOW) == queue.skip(token, "too dark", NOW)
    assert Task.objects.get().state == "skipped"
    assert Annotation.objects.get().reason == "too dark"
    assert not Outcome.objects.exists()
    assert queue.next_task(an_annotator("bob"), LATER) is None


def test_two_labels_that_disagree_are_no_truth() -> None:
    tasks(a_version(), 1, overlap=2)
    leases = [_lease(an_annotator(name)) for name in ("ann", "bob")]
    for lease, label in zip(leases, ("shoe", "boot"), strict=True):
        queue.submit(lease.token, label, NOW)
    assert Task.objects.get().state == "done"
    assert not Outcome.objects.exists()


# Many at once, and crashes


@pytest.mark.django_db(transaction=True)
def test_eight_annotators_get_200_tasks_once_each_and_no_answer_is_lost() -> None:
    tasks(a_version(), 200)
    annotators = [an_annotator(f"ann{i}") for i in range(8)]

    def work(index: int) -> list[int]:
        got = []
        while (lease := queue.next_task(annotators[index], NOW)) is not None:
            queue.submit(lease.token, "shoe", NOW)
            got.append(lease.task_id)
        return got

    handed = [task_id for got in together(work, 8) for task_id in got]
    assert len(handed) == len(set(handed)) == 200
    assert Annotation.objects.count() == Outcome.objects.count() == 200
    assert Task.objects.filter(state="done").count() == 200


@pytest.mark.django_db(transaction=True)
def test_eight_annotators_who_only_take_never_hold_the_same_task() -> None:
    tasks(a_version(), 40)
    annotators = [an_annotator(f"ann{i}") for i in range(8)]
    held = together(lambda i: [queue.next_task(annotators[i], NOW) for _ in range(6)], 8)
    got = [lease.task_id for leases in held for lease in leases if lease]
    assert len(got) == len(set(got)) == 40


@pytest.mark.django_db(transaction=True)
def test_of_many_late_and_running_leases_exactly_one_answer_wins() -> None:
    (task,) = tasks(a_version(), 1)
    annotators = [an_annotator(f"ann{i}") for i in range(4)]
    step = timedelta(seconds=settings.LEASE_SECONDS)
    tokens = [_lease(ann, now=NOW + i * step).token for i, ann in enumerate(annotators)]

    def work(index: int) -> int:
        try:
            queue.submit(tokens[index], f"label{index}", NOW + 4 * step)
        except Problem as problem:
            return problem.status
        return 200

    assert sorted(together(work, 4)) == [200, 409, 409, 409]
    assert task.annotations.count() == 1


@pytest.mark.django_db(transaction=True)
def test_the_same_submission_sent_by_four_connections_is_stored_once() -> None:
    tasks(a_version(), 1)
    token = _lease(an_annotator()).token
    answers = together(lambda _: queue.submit(token, "shoe", NOW).pk, 4)
    assert len(set(answers)) == 1


@pytest.mark.django_db(transaction=True)
def test_a_crash_between_annotation_and_outcome_loses_nothing_and_can_be_repeated() -> None:
    version = a_version()
    (task,) = tasks(version, 1)
    token = _lease(an_annotator()).token
    with transaction.atomic():
        # An uncommitted twin of the outcome holds the submission after its annotation.
        Outcome.objects.create(
            version=version, request_id=task.request_id, requested_at=NOW, wrong=True, sampler="band"
        )
        kill_when_waiting(lambda: queue.submit(token, "shoe", NOW))
        transaction.set_rollback(True)
    assert not Annotation.objects.exists()
    assert Task.objects.get().state == "open"
    queue.submit(token, "shoe", NOW)
    assert Outcome.objects.get().wrong is False


def test_filling_looks_at_more_than_one_batch() -> None:
    predictions(a_version(), 1_203)
    assert queue.fill(NOW)["improve"] == 1_203


def test_what_could_not_become_a_task_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    predictions(a_version(), 2, image="")
    caplog.set_level("INFO")
    queue.fill(NOW)
    assert "of 2 predictions not made into tasks: {'no_image': 2}" in caplog.text


def test_neither_budget_starves_the_other() -> None:
    version = a_version("products")
    tasks(version, 30)
    tasks(version, 30, budget="measure", sampler="measure", inclusion_probability=0.1, priority=1)
    leased = [queue.next_task(an_annotator(f"ann{i}"), NOW) for i in range(20)]
    budgets = [lease.task.budget for lease in leased if lease]
    assert budgets.count("measure") in (4, 5)  # one in five, wherever the sequence stands
    assert len(budgets) == 20
