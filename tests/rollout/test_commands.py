"""What people and pipelines may ask of rollouts, and what becomes of the ones that were there."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from controlplane import mlflow_sync
from controlplane.models import Alert, AuditEntry, ModelVersion
from controlplane.problems import Problem
from rollout import commands, tick
from rollout.models import Evidence, Rollout, RolloutEvent
from tests.labeling.threads import together
from tests.rollout.scene import PLAN, Behaviour, Scene

pytestmark = pytest.mark.django_db


@pytest.fixture
def scene(request: pytest.FixtureRequest) -> Scene:
    return Scene(request.node.name[:60].lower())


@pytest.fixture
def at_5(scene: Scene) -> Rollout:
    """v1 is stable, v2 is the canary at 5 %."""
    scene.live()
    return scene.run(scene.start(scene.version("v2")), 10, until="running")


def refused(status: int, code: str, pointer: str | None, call: object) -> str:
    """The detail of the Problem that the call raises."""
    with pytest.raises(Problem) as caught:
        call()  # type: ignore[operator]
    assert (caught.value.status, caught.value.code) == (status, code)
    assert [e["pointer"] for e in caught.value.errors] == ([] if pointer is None else [pointer])
    return caught.value.detail


def act(scene: Scene, rollout: Rollout, command: str, reason: str = "because") -> Rollout:
    return commands.act(rollout.pk, command, actor="ann", reason=reason, now=scene.now)


# The same version, and newer ones


def test_02_the_same_version_again_is_the_same_rollout(scene: Scene, at_5: Rollout) -> None:
    again, created = commands.start(
        at_5.version, scene.fleet, commands.read_plan("careful"), actor="ci", now=scene.now
    )
    assert (again.pk, created) == (at_5.pk, False)
    assert scene.get(at_5).plan_name == "test"  # another plan applies to the next rollout


def test_03_a_newer_version_takes_the_old_canary_to_0_first(scene: Scene, at_5: Rollout) -> None:
    newer = scene.start(scene.version("v3"))
    assert (scene.get(at_5).state, scene.route.weight_percent) == ("rolling_back", 0)
    waiting = scene.run(newer, 2)
    assert waiting.state == "pending"
    assert f"rollout {at_5.pk}" in waiting.reason
    assert ("products", "b") in scene.memory.loaded
    assert scene.memory.loaded["products", "b"].version == "v2"  # not before its traffic is gone
    over = scene.run(at_5, 5)
    assert (over.state, over.reason) == ("superseded", "superseded by v3")
    started = scene.run(newer, 5, until="running")
    assert (started.step, started.weight_percent, scene.memory.weights["products"]["b"]) == (0, 5, 5)
    assert scene.route.canary.name == "v3"
    weights = [call[2] for call in scene.memory.calls if call[0] == "set_weight"]
    assert weights[-3:] == ["5", "0", "5"]


def test_a_pending_rollout_makes_way_at_once(scene: Scene) -> None:
    scene.live()
    scene.memory.unready.add("b")
    pending = scene.start(scene.version("v2"))
    newer = scene.start(scene.version("v3"))
    assert (scene.get(pending).state, scene.get(newer).state) == ("superseded", "pending")


def test_a_watch_that_the_next_rollout_closes_ends_promoted_and_says_so(scene: Scene, at_5: Rollout) -> None:
    act(scene, at_5, "promote")
    assert scene.run(at_5, 10, until="watching").state == "watching"
    newer = scene.start(scene.version("v3"))
    closed = scene.get(at_5)
    assert closed.state == "promoted"
    assert "the watch was closed: superseded by v3" in closed.reason
    started = scene.run(newer, 10, until="running")
    assert started.stable.name == "v2"
    assert scene.memory.loaded["products", "a"].version == "v3"  # ends the keep-warm of v1's slot


def test_04_the_stable_version_submitted_while_a_canary_runs_is_a_fast_rollback(
    scene: Scene, at_5: Rollout
) -> None:
    before = Rollout.objects.count()
    answer = scene.start(scene.route.stable)
    assert (answer.version.name, answer.state, Rollout.objects.count()) == ("v1", "promoted", before)
    over = scene.run(at_5, 5)
    assert over.state == "superseded"
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}


def test_the_stable_version_of_a_route_without_rollouts_is_a_conflict(scene: Scene) -> None:
    version = scene.live()
    Rollout.objects.all().delete()
    assert "is stable" in refused(409, "already_stable", "/version", lambda: scene.start(version))


def test_04_a_copy_under_another_name_is_a_rollout_like_any_other(scene: Scene) -> None:
    digest = scene.live().digest
    copy = scene.version("v1-again")
    ModelVersion.objects.filter(pk=copy.pk).update(digest=digest)
    started = scene.run(scene.start(copy), 10, until="running")
    assert (started.state, started.weight_percent) == ("running", 5)


def test_a_retired_version_is_refused(scene: Scene) -> None:
    version = scene.version("v1")
    version.retired_at = scene.now
    version.save()
    refused(409, "retired", "/version", lambda: scene.start(version))


# Plans


def test_12_a_plan_that_is_not_there_or_cannot_run_is_refused_at_its_field() -> None:
    detail = refused(404, "unknown_plan", "/plan", lambda: commands.read_plan("reckless"))
    assert "standard" in detail
    steps = [{"weight_percent": 5}, {"weight_percent": 400}]
    refused(
        422,
        "bad_plan",
        "/plan/steps/1/weight_percent",
        lambda: commands.read_plan({**PLAN, "steps": steps}),
    )
    refused(422, "bad_plan", "/plan/gates", lambda: commands.read_plan({"steps": [{"weight_percent": 5}]}))


def test_no_plan_is_the_standard_one() -> None:
    assert commands.read_plan(None) == commands.read_plan("standard")


# Commands


@pytest.mark.parametrize("command", ["pause", "abort", "retry"])
def test_every_command_wants_a_reason(scene: Scene, command: str) -> None:
    rollout = scene.start(scene.version("v1"))
    if command == "retry":
        call = commands.retry, {}
    else:
        call = commands.act, {"command": command}
    refused(
        422,
        "required",
        "/reason",
        lambda: call[0](rollout.pk, actor="ann", reason="  ", now=scene.now, **call[1]),
    )
    assert scene.get(rollout).state == "pending"


def test_a_command_for_a_rollout_that_is_not_there_is_refused(scene: Scene) -> None:
    refused(
        404,
        "unknown_rollout",
        None,
        lambda: commands.act(10**9, "abort", actor="ann", reason="x", now=scene.now),
    )


def test_a_command_out_of_turn_is_a_conflict_and_leaves_no_audit(scene: Scene) -> None:
    rollout = scene.start(scene.version("v1"))
    refused(409, "not_now", None, lambda: act(scene, rollout, "promote"))
    assert not AuditEntry.objects.filter(act="rollout.promote").exists()


def test_who_did_it_and_why_is_in_the_log_and_the_audit(scene: Scene, at_5: Rollout) -> None:
    act(scene, at_5, "pause", "lunch")
    event = RolloutEvent.objects.filter(rollout=at_5).last()
    assert (event.state, event.actor, event.reason) == ("paused", "ann", "paused: lunch (ann)")
    entry = AuditEntry.objects.get(act="rollout.pause")
    assert (entry.actor, entry.subject, entry.reason) == ("ann", f"rollout {at_5.pk}", "lunch")


def test_a_paused_rollout_keeps_its_weight_and_goes_on_where_it_was(scene: Scene, at_5: Rollout) -> None:
    act(scene, at_5, "pause")
    paused = scene.run(at_5, 90)
    assert (paused.state, paused.weight_percent, scene.memory.weights["products"]["b"]) == ("paused", 5, 5)
    evidence = Evidence.objects.filter(rollout=at_5).count()
    assert evidence > 60
    act(scene, at_5, "resume")
    assert scene.run(at_5, 1).state == "running"
    assert not Alert.objects.filter(resolved_at=None).exists()


@pytest.mark.parametrize("phase", ["pending", "running", "paused", "held", "promoting", "watching"])
def test_30_abort_in_any_phase_ends_at_weight_0_and_stays_there(scene: Scene, phase: str) -> None:
    scene.live()
    rollout = in_phase(scene, phase)
    act(scene, rollout, "abort", "wrong weights")
    act(scene, rollout, "abort", "wrong weights")
    ended = scene.run(rollout, 5)
    assert ended.state == "aborted"
    assert "wrong weights" in ended.reason
    scene.run(rollout, 3)
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}
    assert (scene.route.stable.name, scene.route.stable_slot) == ("v1", "a")


def in_phase(scene: Scene, phase: str) -> Rollout:
    rollout = scene.start(scene.version("v2"))
    if phase == "pending":
        return rollout
    scene.run(rollout, 10, until="running")
    if phase == "held":
        scene.memory.refuse = "503"
        scene.run(rollout, 70, until="held")
        scene.memory.refuse = ""
    elif phase != "running":
        act(scene, rollout, "pause" if phase == "paused" else "promote")
    if phase == "watching":
        scene.run(rollout, 10, until="watching")
    assert scene.get(rollout).state == phase
    return rollout


def test_05_a_person_s_rollback_in_the_watch_returns_to_the_old_version_in_one_act(
    scene: Scene, at_5: Rollout
) -> None:
    act(scene, at_5, "promote")
    scene.run(at_5, 10, until="watching")
    epoch = scene.route.cache_epoch
    act(scene, at_5, "rollback", "complaints")
    ended = scene.run(at_5, 5)
    assert ended.state == "rolled_back"
    assert (scene.route.stable.name, scene.route.cache_epoch) == ("v1", epoch + 1)
    assert scene.memory.weights["products"] == {"a": 100, "b": 0}


def test_aborting_a_pending_rollout_does_not_meet_the_one_before_it(scene: Scene, at_5: Rollout) -> None:
    newer = scene.start(scene.version("v3"))
    assert scene.get(at_5).state == "rolling_back"
    assert act(scene, newer, "abort").state == "aborted"
    assert scene.run(at_5, 5).state == "superseded"


def test_a_promotion_tells_the_fleet_the_new_roles(scene: Scene, at_5: Rollout) -> None:
    """The weight that is observed is right already, but pins still name the old roles."""
    act(scene, at_5, "promote")
    scene.run(at_5, 10, until="watching")
    assert scene.memory.weights["products"] == {"a": 0, "b": 100}
    assert [call[2] for call in scene.memory.calls if call[0] == "set_weight"][-2:] == ["100", "0"]


# Retry


def test_31_retry_starts_at_the_first_step_with_fresh_evidence(scene: Scene) -> None:
    scene.live()
    failed = scene.run(scene.start(scene.version("v2", Behaviour(errors=1))), 60)
    assert failed.state == "rolled_back"
    scene.behaviour["v2"] = Behaviour()
    again = commands.retry(failed.pk, actor="ann", reason="the disk was full", now=scene.now)
    assert (again.version, scene.get(again).plan) == (failed.version, failed.plan)
    started = scene.run(again, 10, until="running")
    assert (started.pk != failed.pk, started.step, started.weight_percent) == (True, 0, 5)
    assert all(entry["until"] is None for entry in started.judge.values())
    assert AuditEntry.objects.get(act="rollout.retry").reason == "the disk was full"
    assert scene.run(again, 20).state == "running"  # what failed before does not count


def test_only_a_rollout_that_is_over_can_be_retried(scene: Scene) -> None:
    rollout = scene.start(scene.version("v1"))
    refused(
        409,
        "not_now",
        None,
        lambda: commands.retry(rollout.pk, actor="ann", reason="again", now=scene.now),
    )


# What MLflow's tags ask for


def asked(scene: Scene, name: str, *, plan: str = "", fleet: str | None = None) -> ModelVersion:
    version = scene.version(name)
    version.requested_plan, version.requested_fleet = plan, scene.name if fleet is None else fleet
    version.save()
    return version


def test_a_requested_rollout_starts_once(scene: Scene) -> None:
    version = asked(scene, "v1")
    assert commands.start_requested(scene.now) == 1
    rollout = Rollout.objects.get()
    assert (rollout.version, rollout.plan_name) == (version, "standard")
    assert commands.start_requested(scene.now) == 0


def test_tags_that_are_read_again_do_not_start_a_rolled_back_version_again(scene: Scene) -> None:
    version = asked(scene, "v1")
    commands.start_requested(scene.now)
    mlflow_sync._request(ModelVersion.objects.filter(pk=version.pk), "", scene.name)
    assert commands.start_requested(scene.now) == 0


@pytest.mark.parametrize("wrong", [{"plan": "reckless"}, {"fleet": "mars"}])
def test_a_request_that_cannot_be_met_is_told_and_stops_no_other(scene: Scene, wrong: dict[str, str]) -> None:
    asked(scene, "v1", **wrong)
    asked(scene, "v2")
    assert commands.start_requested(scene.now) == 1
    assert Rollout.objects.get().version.name == "v2"
    alert = Alert.objects.get()
    assert "products v1 was not rolled out" in alert.summary
    assert next(iter(wrong.values())) in alert.summary
    assert commands.start_requested(scene.now) == 0
    assert Alert.objects.get().count == 1


# Several at once


def test_an_abort_between_a_tick_s_read_and_its_save_wins(scene: Scene, at_5: Rollout) -> None:
    """The clock of the fleet's counters is read between the two: an operator acts just then."""
    clock = scene.memory.clock

    def meanwhile() -> float:
        scene.memory.clock = clock
        act(scene, at_5, "abort", "stop it")
        return clock()

    scene.behaviour["v2"] = Behaviour(errors=1)
    scene.now += timedelta(seconds=1)
    scene.traffic()
    scene.memory.clock = meanwhile
    assert tick.tick(at_5.pk, scene.now)
    aborting = scene.get(at_5)
    assert (aborting.state, aborting.ending, aborting.weight_percent) == ("rolling_back", "aborted", 0)
    assert scene.run(at_5, 5).state == "aborted"
    assert scene.memory.weights["products"]["b"] == 0


@pytest.mark.django_db(transaction=True)
def test_workers_that_tick_one_rollout_at_once_take_each_step_once(scene: Scene) -> None:
    """Three at the same time, one of them as if the lease of the others had run out."""
    scene.live()
    plan = {**PLAN, "steps": [{"weight_percent": 50, "dwell_seconds": 5}]}
    rollout = scene.start(scene.version("v2"), plan)

    def work(worker: int) -> None:
        if worker == 2:
            Rollout.objects.filter(pk=rollout.pk).update(leased_until=None)
        tick.tick(rollout.pk, scene.now)

    for _ in range(40):
        scene.now += timedelta(seconds=1)
        scene.traffic()
        together(work, 3)
        if scene.get(rollout).state == "watching":
            break
    events = RolloutEvent.objects.filter(rollout=rollout).values_list("state", "weight_percent")
    assert list(events) == [("running", 50), ("promoting", 100), ("watching", 0)]
    starts = Evidence.objects.filter(rollout=rollout, gate="errors").values_list("start", "end")
    spans = sorted(starts)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


@pytest.mark.django_db(transaction=True)
def test_pipelines_that_submit_at_once_start_one_rollout(scene: Scene) -> None:
    version = scene.version("v1")
    chosen = commands.read_plan(PLAN)
    started = together(
        lambda _: commands.start(version, scene.fleet, chosen, actor="ci", now=scene.now)[0].pk, 3
    )
    assert len(set(started)) == 1
