"""What the timers of the control plane run: the outbox of pages, and the takeover from MLflow."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from controlplane import artifacts, delivery, mlflow_sync


@shared_task(name="controlplane.tasks.deliver")  # type: ignore[untyped-decorator,unused-ignore]
def deliver() -> None:
    """Send the pages that are due."""
    delivery.deliver(timezone.now())


@shared_task(name="controlplane.tasks.sync_mlflow")  # type: ignore[untyped-decorator,unused-ignore]
def sync_mlflow() -> None:
    """Take over new versions from MLflow."""
    mlflow_sync.sync(timezone.now(), artifacts.keep)
