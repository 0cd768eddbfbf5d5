"""Every timer. A message is only a nudge: each task reads the database to find what is due."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "controlplane.settings")

from django.conf import settings

app = Celery("davy")
app.conf.update(
    broker_url=settings.REDIS_URL,
    broker_transport_options={
        "visibility_timeout": 120,  # longer than the longest task
        "unacked_restore_interval": 2,
        "unacked_restore_throttle": 1,
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
    worker_hijack_root_logger=False,
    task_default_queue="davy",
    timezone="UTC",
)
app.autodiscover_tasks(["controlplane", "monitoring", "rollout", "labeling"])


def _every(task: str, seconds: float) -> dict[str, object]:
    """A timer entry; a nudge that waited longer than its period (at least 5 s) is dropped."""
    return {"task": task, "schedule": seconds, "options": {"expires": max(5.0, seconds)}}


app.conf.beat_schedule = {
    "rollout-tick": _every("rollout.tasks.tick_due", settings.TICK_SECONDS),
    "rollout-start-requested": _every("rollout.tasks.start_requested", 5),
    "rollout-waves": _every("rollout.tasks.keep_waves", 2),
    "rollout-purge": _every("rollout.tasks.purge", 2),
    "rollout-upkeep": _every("rollout.tasks.upkeep", 5),
    "monitoring-fold": _every("monitoring.tasks.fold", 1),
    "monitoring-roll": _every("monitoring.tasks.roll", 10),
    "monitoring-match": _every("monitoring.tasks.match", 2),
    "monitoring-check": _every("monitoring.tasks.check", min(1.0, settings.DRIFT_CHECK_SECONDS)),
    "monitoring-calibrate": _every("monitoring.tasks.calibrate", 600),
    "monitoring-judge-hours": _every("monitoring.tasks.judge_hours", 30),
    "monitoring-watch-accuracy": _every("monitoring.tasks.watch_accuracy", 600),
    "monitoring-prune": _every("monitoring.tasks.prune", 600),
    "labeling-fill": _every("labeling.tasks.fill", 2),
    "controlplane-deliver": _every("controlplane.tasks.deliver", 1),
    "controlplane-sync-mlflow": _every("controlplane.tasks.sync_mlflow", settings.MLFLOW_POLL_SECONDS),
}
