"""Which timers drive monitoring? Each loads what is due, decides and saves; all are safe to repeat."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from monitoring import (
    accuracy_watch,
    calibrations,
    checks,
    declines,
    hourly,
    retention,
    rollups,
    shadow,
    windows,
)

FOLD_SECONDS = 0.8  # of the second until the next nudge
ROLL_SECONDS = 30.0  # an import of a month leaves 720 hours to add up


@shared_task(name="monitoring.tasks.fold")
def fold() -> None:
    """Fold reports and raw predictions into windows."""
    windows.fold(timezone.now(), FOLD_SECONDS)


@shared_task(name="monitoring.tasks.roll")
def roll() -> None:
    """Add closed minutes, hours and days up."""
    rollups.roll(timezone.now(), ROLL_SECONDS)


@shared_task(name="monitoring.tasks.match")
def match() -> None:
    """Match mirrored requests with stable's answers."""
    shadow.match(timezone.now())


@shared_task(name="monitoring.tasks.check")
def check() -> None:
    """Run the detectors on what is due; alert on change."""
    checks.run(timezone.now())


@shared_task(name="monitoring.tasks.calibrate")
def calibrate() -> None:
    """Learn what is normal from versions' own hours, weekly."""
    calibrations.calibrate(timezone.now())


@shared_task(name="monitoring.tasks.judge_hours")
def judge_hours() -> None:
    """Compare hours that closed, and once a day the last month, with what is normal; alert on change."""
    now = timezone.now()
    hourly.evaluate(now)
    declines.evaluate(now)


@shared_task(name="monitoring.tasks.watch_accuracy")
def watch_accuracy() -> None:
    """Compare the labels of the last month with each version's baseline, hourly; alert when it is surely worse."""
    accuracy_watch.watch(timezone.now())


@shared_task(name="monitoring.tasks.prune")
def prune() -> None:
    """Drop what is no longer needed."""
    retention.prune(timezone.now())
