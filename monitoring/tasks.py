"""Which timers drive monitoring? Each loads what is due, decides and saves; all are safe to repeat."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from monitoring import checks, retention, shadow, windows


@shared_task(name="monitoring.tasks.fold")
def fold() -> None:
    """Fold reports and raw predictions into windows."""
    windows.fold(timezone.now())


@shared_task(name="monitoring.tasks.match")
def match() -> None:
    """Match mirrored requests with stable's answers."""
    shadow.match(timezone.now())


@shared_task(name="monitoring.tasks.check")
def check() -> None:
    """Run the detectors on what is due; alert on change."""
    checks.run(timezone.now())


@shared_task(name="monitoring.tasks.prune")
def prune() -> None:
    """Drop what is no longer needed."""
    retention.prune(timezone.now())
