from __future__ import annotations

import pytest

from controlplane.celery import app
from monitoring import tasks

TASKS = [tasks.fold, tasks.roll, tasks.match, tasks.check, tasks.watch_accuracy, tasks.prune]
TASKS += [tasks.calibrate, tasks.judge_hours]


@pytest.mark.django_db
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_has_a_timer_and_may_run_when_there_is_nothing_to_do(task):
    assert task.name in {entry["task"] for entry in app.conf.beat_schedule.values()}
    task()
    task()


def test_every_timer_of_monitoring_has_its_task():
    timers = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert {name for name in timers if name.startswith("monitoring.")} == {task.name for task in TASKS}
