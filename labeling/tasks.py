"""The timer that fills the labeling queue."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from labeling import queue


@shared_task(name="labeling.tasks.fill")
def fill() -> None:
    """Route new predictions into the queue."""
    queue.fill(timezone.now())
