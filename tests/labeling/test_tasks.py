from __future__ import annotations

import pytest

from labeling import tasks
from labeling.models import Task
from tests.labeling.scene import a_version, predictions

pytestmark = pytest.mark.django_db


def test_the_timer_fills_the_queue_and_may_come_twice() -> None:
    predictions(a_version(), 2)
    tasks.fill()
    tasks.fill()
    assert Task.objects.count() == 2


def test_the_task_has_the_name_that_the_timer_calls() -> None:
    assert tasks.fill.name == "labeling.tasks.fill"
