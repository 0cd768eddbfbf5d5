"""One worker at a time: what taking a rollout reads, and when the next worker may have it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection, transaction

from rollout import commands, leases, look, tick
from rollout.models import Rollout
from tests.rollout.scene import Behaviour, Scene

QUIET = {
    "name": "quiet",
    "steps": [{"weight_percent": 5, "dwell_seconds": 3600}],
    "gates": [{"name": "errors", "weight": 1.0}],
}


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.node.name[:60].lower())


def running(scene: Scene) -> Rollout:
    """v2 at 5 % for an hour, and the fleet has been told."""
    scene.live()
    return scene.run(scene.start(scene.version("v2", Behaviour()), QUIET), 10)


@pytest.mark.django_db
def test_taking_reads_what_a_tick_needs_in_one_statement(
    scene: Scene, django_assert_num_queries: Any
) -> None:
    pk = running(scene).pk
    whole = commands.find(pk)
    with django_assert_num_queries(1):
        taken = leases.take(pk, scene.now)
        assert taken is not None
        assert (taken.version.model.name, taken.stable.name) == ("products", "v1")  # type: ignore[union-attr]
        assert (taken.route.fleet.config, taken.route.model) == (whole.route.fleet.config, whole.route.model)
        assert (taken.plan, taken.judge, taken.sources) == (whole.plan, whole.judge, whole.sources)
    assert taken.gates == whole.gates


@pytest.mark.django_db
def test_a_rollout_is_taken_once_until_its_lease_is_over(scene: Scene) -> None:
    pk = running(scene).pk
    first = leases.take(pk, scene.now)
    assert first is not None
    assert leases.take(pk, scene.now + leases.LEASE) is None
    assert leases.take(pk, scene.now + leases.LEASE + timedelta(seconds=1)) is not None
    leases.end(first)
    assert leases.take(pk, scene.now + leases.LEASE + timedelta(seconds=1)) is None


@pytest.mark.django_db
def test_a_tick_that_changes_nothing_tells_the_fleet_nothing_and_frees_the_rollout(scene: Scene) -> None:
    rollout = running(scene)
    scene.now += timedelta(seconds=1)
    scene.traffic()
    scene.memory.calls.clear()
    assert tick.tick(rollout.pk, scene.now)
    after = scene.get(rollout)
    assert (after.revision, after.leased_until) == (rollout.revision + 1, None)
    assert [call[0] for call in scene.memory.calls].count("observed_weight") == 1


@pytest.mark.django_db
def test_a_weight_that_somebody_moved_is_set_back_before_the_rollout_is_free(scene: Scene) -> None:
    rollout = running(scene)
    scene.memory.weights["products"] = {"a": 60.0, "b": 40.0}
    scene.now += timedelta(seconds=1)
    assert tick.tick(rollout.pk, scene.now)
    assert scene.memory.weights["products"] == {"a": 95, "b": 5}


@pytest.mark.django_db
def test_a_save_does_not_end_the_lease_of_the_worker_that_took_over(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollout, take = running(scene), look.take
    next_one_s = scene.now + 3 * leases.LEASE

    def slow(*args: Any) -> Any:
        Rollout.objects.filter(pk=rollout.pk).update(leased_until=next_one_s)
        return take(*args)

    monkeypatch.setattr(look, "take", slow)
    scene.now += timedelta(seconds=1)
    assert tick.tick(rollout.pk, scene.now)
    after = scene.get(rollout)
    assert (after.revision, after.leased_until) == (rollout.revision + 1, next_one_s)


@pytest.mark.django_db(transaction=True)
def test_a_rollout_that_a_person_is_just_changing_is_not_taken_as_it_was(scene: Scene) -> None:
    """The taking waits for the person's commit; then the roles of the route may be others than it has read."""
    rollout = running(scene)
    pid: list[int] = []

    def take() -> Rollout | None:
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_backend_pid()")
                pid.append(cursor.fetchone()[0])
            return leases.take(rollout.pk, scene.now)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        with transaction.atomic():
            commands.act(rollout.pk, "abort", actor="ann", reason="so", now=scene.now)
            taking = pool.submit(take)
            while not (pid and _waits(pid[0])):
                assert not taking.done()
        assert taking.result(30) is None
    assert leases.take(rollout.pk, scene.now) is not None


def _waits(pid: int) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", [pid])
        return cursor.fetchone() is not None
