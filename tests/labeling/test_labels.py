from __future__ import annotations

from datetime import timedelta

import pytest

from labeling import labels, queue
from tests.labeling.scene import NOW, a_version, an_annotator, tasks

pytestmark = pytest.mark.django_db
SOON = NOW + timedelta(seconds=1)


def _label(count: int, label: str = "boot") -> None:
    ann = an_annotator(f"ann-{label}")
    for _ in range(count):
        lease = queue.next_task(ann, NOW)
        assert lease is not None
        queue.submit(lease.token, label, NOW)


def test_a_label_comes_with_its_provenance() -> None:
    version = a_version()
    (task,) = tasks(
        version, 1, budget="measure", sampler="measure", inclusion_probability=0.1, segment={"camera": "3"}
    )
    _label(1)
    (row,) = labels.rows(SOON)
    assert (row.task, row.model, row.version, row.digest) == (task.pk, "products", "v1", version.digest)
    assert (row.label, row.suggested_label, row.suggested_confidence) == ("boot", "shoe", 0.47)
    assert (row.budget, row.inclusion_probability, row.segment) == ("measure", 0.1, {"camera": "3"})
    assert (row.annotator, row.labelled_at) == ("ann-boot", NOW)


def test_open_and_skipped_tasks_are_not_labels() -> None:
    tasks(a_version(), 2)
    lease = queue.next_task(an_annotator(), NOW)
    assert lease is not None
    queue.skip(lease.token, "", NOW)
    assert not list(labels.rows(SOON))


def test_more_than_one_page_comes_in_order_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "PAGE", 2)
    made = tasks(a_version(), 5)
    _label(5)
    assert [row.task for row in labels.rows(SOON)] == [task.pk for task in made]


def test_the_same_until_gives_the_same_rows_whatever_came_later() -> None:
    tasks(a_version(), 2)
    _label(1)
    before = list(labels.rows(SOON))
    lease = queue.next_task(an_annotator("bob"), SOON)
    assert lease is not None
    queue.submit(lease.token, "hat", SOON)
    assert list(labels.rows(SOON)) == before
    assert len(list(labels.rows(SOON + timedelta(seconds=1)))) == 2


def test_one_models_labels_can_be_chosen() -> None:
    tasks(a_version("products"), 1)
    (wanted,) = tasks(a_version("returns"), 1)
    _label(2)
    assert [row.task for row in labels.rows(SOON, wanted.model)] == [wanted.pk]
