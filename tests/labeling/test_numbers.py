from __future__ import annotations

import pytest

from labeling import numbers, queue
from tests.labeling.scene import NOW, a_version, an_annotator, tasks

pytestmark = pytest.mark.django_db


def test_each_models_queue_is_counted() -> None:
    version, ann = a_version(), an_annotator()
    tasks(version, 4, budget="measure", sampler="measure", inclusion_probability=0.1, priority=1)
    leases = [queue.next_task(ann, NOW, version.model) for _ in range(4)]
    tasks(version, 3)
    tasks(a_version("returns"), 1)
    for lease in leases[:2]:
        queue.submit(lease.token, "shoe", NOW)
    queue.skip(leases[2].token, "dark", NOW)
    products, returns = numbers.queues(NOW)
    assert (products["model"], returns["model"]) == ("products", "returns")
    assert [products[key] for key in ("open", "leased", "done", "skipped")] == [3, 1, 2, 1]
    assert products["measure"] == {"open": 1, "done": 2, "skipped": 1, "non_response": 1 / 3}
    assert returns["measure"]["non_response"] is None


def test_without_tasks_there_is_no_queue() -> None:
    a_version()
    assert numbers.queues(NOW) == []
