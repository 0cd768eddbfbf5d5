"""The timers' side of rollouts: find what is due and do it. Every task is safe to run twice."""

from __future__ import annotations

from celery import shared_task
from django.db.models import Q

from rollout import clock, commands, purging, waves
from rollout import tick as ticking
from rollout import upkeep as keeping
from rollout.models import ACTIVE, Rollout


@shared_task(name="rollout.tasks.tick_due")
def tick_due() -> None:
    """Nudge every rollout that is not over and that no worker holds."""
    now = clock.now()
    free = Q(leased_until__isnull=True) | Q(leased_until__lt=now)
    for pk in Rollout.objects.filter(free, state__in=ACTIVE).values_list("pk", flat=True):
        tick_one.apply_async((pk,), expires=5)


@shared_task(name="rollout.tasks.tick_one")
def tick_one(rollout_id: int) -> None:
    """One tick of one rollout."""
    ticking.tick(rollout_id, clock.now())


@shared_task(name="rollout.tasks.start_requested")
def start_requested() -> None:
    """Start rollouts that registrations asked for."""
    commands.start_requested(clock.now())


@shared_task(name="rollout.tasks.upkeep")
def upkeep() -> None:
    """Look after idle routes."""
    keeping.keep(clock.now())


@shared_task(name="rollout.tasks.keep_waves")
def keep_waves() -> None:
    """Start the next waves, or take the moved fleets back."""
    waves.keep(clock.now())


@shared_task(name="rollout.tasks.purge")
def purge() -> None:
    """Tell the purge hook of cache epochs that ended."""
    purging.call_due(clock.now())
