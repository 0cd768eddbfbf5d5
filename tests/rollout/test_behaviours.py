"""What a rollout does, case by case: those of the 40 behaviours that no other file tests, by their numbers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, ClassVar

import pytest

from controlplane.models import Alert
from rollout import commands, purging, tick, upkeep
from rollout.models import Purge, Rollout, RolloutEvent
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db
_numbers = itertools.count()


@pytest.fixture
def scene() -> Scene:
    return Scene(f"behaviours-{next(_numbers)}")


def opened(cause: str) -> Alert | None:
    """The open alert whose cause begins so."""
    return Alert.objects.filter(cause__startswith=cause, resolved_at__isnull=True).first()


# Start, supersede, finish


def test_06_a_rollback_target_within_the_window_skips_steps_and_analysis(scene: Scene) -> None:
    first = scene.live()
    scene.run(scene.start(scene.version("v2")), 600)
    back = scene.start(first, {**PLAN, "rollback_window_seconds": 3600})
    scene.run(back, 60)
    weights = [e.weight_percent for e in RolloutEvent.objects.filter(rollout=back)]
    assert weights[0] == 100
    assert scene.route.stable == first
    told = RolloutEvent.objects.filter(rollout=back).first()
    assert told is not None
    assert "steps and analysis are skipped" in told.reason


def test_06_after_the_window_the_old_version_goes_through_its_steps(scene: Scene) -> None:
    first = scene.live()
    scene.run(scene.start(scene.version("v2")), 600)
    scene.now += timedelta(hours=2)
    back = scene.start(first, {**PLAN, "rollback_window_seconds": 3600})
    assert scene.run(back, 20, until="running").weight_percent == 5


@pytest.mark.parametrize("dies_before", range(1, 5))
def test_07_completion_is_recorded_once_wherever_the_worker_died(
    scene: Scene, dies_before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker dies in every fifth tick, at the so-many-th call to the fleet or around the save."""
    scene.live()
    rollout = scene.start(scene.version("v2"))
    calls = itertools.count(1)

    class Dying(list[tuple[str, ...]]):
        def append(self, call: tuple[str, ...]) -> None:
            if next(calls) % (dies_before + 7) == 0:
                raise KeyboardInterrupt

    scene.memory.calls = Dying()
    for _ in range(900):
        try:
            scene.run(rollout, 1)
        except KeyboardInterrupt:
            continue
        if scene.get(rollout).state == "promoted":
            break
    states = list(RolloutEvent.objects.filter(rollout=rollout).values_list("state", flat=True))
    assert states.count("promoted") == states.count("watching") == 1
    assert scene.route.cache_epoch == 2  # the first version's, and this one's


# Steps, pauses, approvals


def test_08_a_dwell_survives_restarts_and_ends_on_time(scene: Scene) -> None:
    """Nothing of it lives in the worker: an hour in which no worker ran counts."""
    scene.live()
    slow = {**PLAN, "steps": [{"weight_percent": 5, "dwell_seconds": 3600}]}
    rollout = scene.run(scene.start(scene.version("v2"), slow), 20, until="running")
    assert scene.run(rollout, 300).state == "running"
    scene.now += timedelta(seconds=3600)
    assert scene.run(rollout, 30, until="promoting").state == "promoting"


# Verdicts


def test_18_a_shared_incident_is_told_to_be_of_both_arms_and_resolved_when_over(scene: Scene) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 20, until="running")
    for does in scene.behaviour.values():
        does.errors = 0.9
    scene.run(rollout, 20)
    told = opened("rollout/both-arms/")
    assert told is not None
    assert "both arms fail" in told.summary
    assert "not rolled back" in told.summary
    for does in scene.behaviour.values():
        does.errors = 0.0
    assert scene.run(rollout, 20).state != "rolled_back"
    assert opened("rollout/both-arms/") is None


# Traffic


def moved_by_hand(scene: Scene, plan: dict[str, Any]) -> Rollout:
    """A rollout at 5 % whose weight somebody else has just set to 30 %."""
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2"), plan), 20, until="running")
    rollout = scene.run(rollout, 2)
    scene.memory.weights["products"] = {"a": 70, "b": 30}
    return scene.run(rollout, 1)


def test_22_a_weight_changed_by_hand_is_reported_and_corrected(scene: Scene) -> None:
    rollout = moved_by_hand(scene, PLAN)
    assert scene.memory.weights["products"]["b"] == 5
    told = opened("rollout/hand-change/")
    assert told is not None
    assert "from 5 % to 30 %" in told.summary
    assert RolloutEvent.objects.filter(rollout=rollout, kind="hand_change").count() == 1
    scene.run(rollout, 3)
    assert opened("rollout/hand-change/") is None


def test_22_a_plan_may_hold_there_instead_until_somebody_resumes(scene: Scene) -> None:
    rollout = moved_by_hand(scene, {**PLAN, "on_hand_change": "hold"})
    assert (rollout.state, rollout.weight_percent) == ("paused", 30)
    assert scene.run(rollout, 30).state == "paused"
    assert scene.memory.weights["products"]["b"] == 30
    commands.act(rollout.pk, "resume", actor="ann", reason="it was me", now=scene.now)
    assert scene.run(rollout, 600).state == "promoted"


def test_22_a_weight_changed_by_hand_between_rollouts_is_put_back(scene: Scene) -> None:
    scene.live()
    scene.memory.weights["products"] = {"a": 60, "b": 40}
    upkeep.keep(scene.now)
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}


def test_25_a_rollback_moves_what_stable_can_carry_and_the_rest_as_capacity_returns(scene: Scene) -> None:
    scene.live()
    bad = scene.start(scene.version("v2", Behaviour(errors=0.5)), {**PLAN, "steps": [{"weight_percent": 90}]})
    scene.memory.capacity["a"] = 40.0
    rollout = scene.run(bad, 60, until="rolling_back")
    rollout = scene.run(rollout, 5)
    assert rollout.state == "rolling_back"
    assert scene.memory.weights["products"]["b"] == 60
    assert "stable can carry 40 %" in rollout.trouble
    scene.memory.capacity["a"] = 100.0
    assert scene.run(rollout, 5).state == "rolled_back"
    assert scene.memory.weights["products"]["b"] == 0


def test_25_a_failing_canary_never_gets_more_because_stable_is_weak(scene: Scene) -> None:
    scene.live()
    bad = scene.start(scene.version("v2", Behaviour(errors=0.5)))
    scene.memory.capacity["a"] = 40.0
    rollout = scene.run(bad, 60, until="rolling_back")
    for _ in range(5):
        rollout = scene.run(rollout, 1)
        assert scene.memory.weights["products"]["b"] <= 5


# Clocks


@pytest.mark.parametrize("jump", [timedelta(hours=-2), timedelta(hours=2)])
def test_36_a_clock_that_jumps_never_counts_evidence_twice_and_skips_no_verdict(
    scene: Scene, jump: timedelta
) -> None:
    scene.live()
    rollout = scene.run(scene.start(scene.version("v2")), 20, until="running")
    scene.run(rollout, 5)
    scene.now += jump
    ended = scene.run(rollout, 120)
    assert ended.state in ("promoted", "running", "held")
    weights = [e.weight_percent for e in RolloutEvent.objects.filter(rollout=rollout, state="running")]
    assert weights in ([5], [5, 50])
    spans = sorted(ended.evidence.filter(gate="errors").values_list("start", "end"))
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))


# Caches


class Cache:
    """What is told at the purge hook; it refuses as long as it is asked to."""

    told: ClassVar[list[str]] = []
    refuse: ClassVar[bool] = False


@pytest.fixture
def cache(settings: Any) -> Iterator[type[Cache]]:
    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            Cache.told.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(503 if Cache.refuse else 204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    Cache.told.clear()
    Cache.refuse = False
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    settings.PURGE_URL = f"http://127.0.0.1:{server.server_port}/purge"
    yield Cache
    server.shutdown()
    server.server_close()


def test_40_promote_and_rollback_each_change_the_cache_epoch_once(scene: Scene) -> None:
    scene.live()
    assert scene.route.cache_epoch == 1
    watched = scene.run(scene.start(scene.version("v2")), 600, until="watching")
    assert scene.route.cache_epoch == 2
    commands.act(watched.pk, "rollback", actor="ann", reason="wrong", now=scene.now)
    scene.run(watched, 10)
    assert scene.route.cache_epoch == 3


def test_40_the_purge_hook_is_called_until_it_has_heard(scene: Scene, cache: type[Cache]) -> None:
    cache.refuse = True
    scene.live()
    assert purging.call_due(scene.now) == 0
    assert purging.call_due(scene.now) == 0  # it waits before it asks again
    cache.refuse = False
    assert purging.call_due(scene.now + timedelta(seconds=10)) == 1
    assert purging.call_due(scene.now + timedelta(hours=1)) == 0
    assert len(cache.told) == 2
    assert '"cache_epoch": 1' in cache.told[-1]
    assert Purge.objects.get().done_at is not None


def test_33_a_tick_of_a_rollout_that_is_over_does_nothing(scene: Scene) -> None:
    first = scene.start(scene.version("v1"))
    ended = scene.run(first, 20)
    calls = len(scene.memory.calls)
    assert tick.tick(ended.pk, scene.now) is False
    assert len(scene.memory.calls) == calls


# Watch


def held_back(scene: Scene) -> Rollout:
    """A promotion that holds 10 % back on the old version, in its watch."""
    scene.live()
    plan = {**PLAN, "holdback_percent": 10, "watch_seconds": 60}
    return scene.run(scene.start(scene.version("v2"), plan), 600, until="watching")


def test_20_what_is_held_back_is_the_watch_s_concurrent_comparison(scene: Scene) -> None:
    rollout = held_back(scene)
    scene.run(rollout, 3)
    assert scene.memory.weights["products"] == {"b": 90, "a": 10}
    scene.behaviour["v2"].errors = 0.2
    back = scene.run(rollout, 40)
    assert back.state == "rolled_back"
    assert "seen after the promotion" in back.reason
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}


def test_05_when_the_watch_ends_the_new_version_has_everything(scene: Scene) -> None:
    rollout = held_back(scene)
    assert scene.run(rollout, 90).state == "promoted"
    upkeep.keep(scene.now)
    assert scene.memory.weights["products"] == {"b": 100, "a": 0}


def test_03_a_version_is_not_loaded_where_traffic_is_still_held_back(scene: Scene) -> None:
    rollout = held_back(scene)
    following = scene.start(scene.version("v3"))
    assert scene.get(rollout).state == "promoted"
    for _ in range(10):
        scene.run(following, 1)
        held = scene.memory.loaded[("products", "a")].version
        assert held == "v1" or scene.memory.weights["products"]["a"] < 10
