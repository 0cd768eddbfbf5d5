"""Random operations, deaths, two workers, lost and repeated nudges: what holds of rollouts whatever happens.

The independent model is a table of which state may follow which, and of what a rollout may weigh there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from controlplane.problems import Problem
from rollout import commands, journal, look, tick, upkeep
from rollout.models import ACTIVE, UNDER_WAY, Rollout, RolloutEvent
from tests.rollout.scene import Behaviour, Scene

STEPS = [5.0, 50.0]
PLAN = {
    "name": "machine",
    "steps": [{"weight_percent": weight, "dwell_seconds": 3} for weight in STEPS],
    "gates": [{"name": "errors", "settings": {"margin_points": {"1": 20.0}}}],
    "patience_seconds": 20,
    "watch_seconds": 5,
}
OVER = {"promoted", "rolled_back", "aborted", "superseded", "failed"}
JUDGED = {"running", "paused", "held"}
BACK = {"rolling_back"}
#: What may follow what in a rollout's log; pending stands for "no line yet".
FOLLOWS = {
    "pending": {"running", "promoting", "aborted", "rolled_back", "superseded", "failed"},
    "running": JUDGED | BACK | {"promoting"},
    "paused": JUDGED | BACK | {"promoting"},
    "held": JUDGED | BACK | {"promoting"},
    "promoting": {"watching", "promoted", "held"} | BACK,
    "watching": {"promoted"} | BACK,
    "rolling_back": {"rolled_back", "aborted", "superseded"},
}
EXAMPLES = int(
    os.environ.get("STATE_MACHINE_EXAMPLES", "6")
)  # more of them find more; the suite has 15 minutes
_names = itertools.count()


class WorkerDied(BaseException):
    """A kill -9, wherever it strikes."""


class Fleet(list[tuple[str, ...]]):
    """The calls that the fleet gets; the worker may die before the one that is counted down to."""

    def __init__(self) -> None:
        self.dies_in: int | None = None

    def append(self, call: tuple[str, ...]) -> None:
        if self.dies_in is not None:
            self.dies_in -= 1
            if self.dies_in < 0:
                raise WorkerDied


class Rollouts(RuleBasedStateMachine):
    """One route, versions that come and go, and workers that die."""

    def __init__(self) -> None:
        super().__init__()
        self.undone = transaction.atomic()
        self.undone.__enter__()
        self.scene = Scene(f"machine-{next(_names)}")
        self.calls = Fleet()
        self.scene.memory.calls = self.calls
        self.numbers = itertools.count(1)
        self.by_person: set[int] = set()  # rollouts that somebody promoted
        self.for_good: list[tuple[datetime, datetime]] = []  # when the fleet refused for good
        self.live = self.scene.live()

    def teardown(self) -> None:
        """Left alone, everything settles; then nothing of it is kept."""
        self.calls.dies_in = None
        self._refuse("", for_good=False)
        self.scene.memory.unready.clear()
        self._everything_ticks(25)
        upkeep.keep(self.scene.now)
        try:
            self._settled()
            self._what_failed_can_be_submitted_again()
        finally:
            transaction.set_rollback(True)
            self.undone.__exit__(None, None, None)

    def _settled(self) -> None:
        route = self.scene.route
        spec = look.spec(route)
        split = self.scene.memory.weights["products"]
        under_way = Rollout.objects.filter(state__in=UNDER_WAY).first()
        assert split[spec.canary_slot] == pytest.approx(route.weight_percent)
        if under_way is None:
            assert route.weight_percent == 0
        aborted = Rollout.objects.filter(state="aborted").values_list("version_id", flat=True)
        assert route.stable_id is not None
        for version_id in aborted:
            held = self.scene.memory.loaded.get(("products", spec.canary_slot))
            assert route.canary_id != version_id or held is None or split[spec.canary_slot] == 0

    def _what_failed_can_be_submitted_again(self) -> None:
        failed = Rollout.objects.filter(state="failed").first()
        if failed is not None:
            again = self.scene.start(failed.version, PLAN)
            self._everything_ticks(10)
            assert again.pk != failed.pk
            assert self.scene.get(again).state not in ("pending", "failed")

    def _refuse(self, why: str, *, for_good: bool) -> None:
        memory = self.scene.memory
        if memory.refuse and memory.for_good:
            self.for_good[-1] = (self.for_good[-1][0], self.scene.now)
        memory.refuse, memory.for_good = why, for_good
        if why and for_good:
            self.for_good.append((self.scene.now, datetime.max.replace(tzinfo=UTC)))

    def _everything_ticks(self, seconds: int) -> None:
        for _ in range(seconds):
            self._all_tick(lambda pk: tick.tick(pk, self.scene.now))

    def _all_tick(self, does: Callable[[int], object]) -> None:
        self.scene.now += timedelta(seconds=1)
        self.scene.traffic()
        for pk in list(Rollout.objects.filter(state__in=ACTIVE).values_list("pk", flat=True)):
            does(pk)

    def _active(self) -> list[Rollout]:
        return list(Rollout.objects.filter(state__in=ACTIVE).order_by("pk"))

    def _logs(self) -> list[tuple[Rollout, list[RolloutEvent]]]:
        rollouts = Rollout.objects.prefetch_related("events")
        return [(r, [e for e in r.events.all() if e.kind == "state"]) for r in rollouts]

    def _submit(self, errors: float) -> Rollout:
        version = self.scene.version(f"w{next(self.numbers)}", Behaviour(errors=errors))
        return self.scene.start(version, PLAN)

    # What happens

    @rule(errors=st.sampled_from([0.0, 0.0, 0.3]))
    def submit(self, errors: float) -> None:
        self._submit(errors)

    @rule(for_good=st.booleans(), seconds=st.integers(1, 3))
    def submit_what_the_fleet_refuses(self, for_good: bool, seconds: int) -> None:
        rollout = self._submit(errors=0.0)
        self._refuse("never" if for_good else "away", for_good=for_good)
        self._everything_ticks(seconds)
        its_turn = not Rollout.objects.filter(state__in=UNDER_WAY).exists()
        expected = "failed" if for_good and its_turn else "pending"
        assert self.scene.get(rollout).state == expected
        self._refuse("", for_good=False)

    @rule()
    def submit_stable_again(self) -> None:
        stable = self.scene.route.stable
        assert stable is not None
        with contextlib.suppress(Problem):
            self.scene.start(stable, PLAN)

    @rule(seconds=st.integers(1, 5))
    def time_passes(self, seconds: int) -> None:
        self._everything_ticks(seconds)
        if self.scene.memory.refuse and self.scene.memory.for_good:
            waiting = Rollout.objects.filter(state="pending").exists()
            assert not waiting or Rollout.objects.filter(state__in=UNDER_WAY).exists()

    @rule()
    def nudges_are_lost(self) -> None:
        self.scene.now += timedelta(seconds=3)
        self.scene.traffic()

    @rule()
    def nudges_are_repeated(self) -> None:
        self._all_tick(lambda pk: [tick.tick(pk, self.scene.now) for _ in range(3)])

    @rule(calls=st.integers(0, 8))
    def the_worker_dies_in_a_call(self, calls: int) -> None:
        def die(pk: int) -> None:
            self.calls.dies_in = calls
            with contextlib.suppress(WorkerDied):
                tick.tick(pk, self.scene.now)
            self.calls.dies_in = None

        self._all_tick(die)

    @rule(saved=st.booleans())
    def the_worker_dies_around_the_save(self, saved: bool) -> None:
        whole = journal.save

        def dying(*args: Any, **kwargs: Any) -> bool:
            if saved:
                whole(*args, **kwargs)
            raise WorkerDied

        def die(pk: int) -> None:
            with pytest.MonkeyPatch.context() as patch, contextlib.suppress(WorkerDied), transaction.atomic():
                patch.setattr(journal, "save", dying)
                tick.tick(pk, self.scene.now)

        self._all_tick(die)

    @precondition(lambda self: self._active())
    @rule(name=st.sampled_from(commands.COMMANDS), data=st.data())
    def a_person_commands(self, name: str, data: st.DataObject) -> None:
        rollout = data.draw(st.sampled_from(self._active()))
        with contextlib.suppress(Problem):
            commands.act(rollout.pk, name, actor="ann", reason="so", now=self.scene.now)
            if name == "promote":
                self.by_person.add(rollout.pk)

    @precondition(lambda self: self._active())
    @rule(name=st.sampled_from(["abort", "pause"]))
    def a_command_comes_between_a_worker_s_read_and_its_save(self, name: str) -> None:
        pk, take, obeyed = self._active()[-1].pk, look.take, []

        def meanwhile(*args: Any) -> Any:
            seen = take(*args)
            with contextlib.suppress(Problem):
                obeyed.append(commands.act(pk, name, actor="ann", reason="so", now=self.scene.now).state)
            return seen

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(look, "take", meanwhile)
            tick.tick(pk, self.scene.now)
        if obeyed:
            assert commands.find(pk).state == obeyed[0]

    @rule()
    def the_fleet_refuses_for_a_while(self) -> None:
        self._refuse("" if self.scene.memory.refuse else "away", for_good=False)

    @rule()
    def the_fleet_refuses_for_good(self) -> None:
        self._refuse("" if self.scene.memory.refuse else "never", for_good=True)

    @rule(slot=st.sampled_from("ab"))
    def a_slot_gets_or_loses_its_readiness(self, slot: str) -> None:
        self.scene.memory.unready ^= {slot}

    @rule(percent=st.integers(0, 100))
    def somebody_moves_the_weight(self, percent: int) -> None:
        slot = self.scene.route.stable_slot
        other = "b" if slot == "a" else "a"
        self.scene.memory.weights["products"] = {slot: 100.0 - percent, other: float(percent)}

    # What holds

    @invariant()
    def one_rollout_moves_the_route(self) -> None:
        assert Rollout.objects.filter(state__in=UNDER_WAY).count() <= 1
        assert Rollout.objects.filter(state="pending").count() <= 1

    @invariant()
    def every_log_is_one_that_the_model_allows(self) -> None:
        for rollout, events in self._logs():
            before = "pending"
            for event in events:
                same = event.state == before and event.state in JUDGED
                assert same or event.state in FOLLOWS.get(before, set()), (before, event.state, event.reason)
                before = event.state
            assert rollout.state == before

    @invariant()
    def steps_are_taken_in_order_and_only_with_their_verdicts(self) -> None:
        for rollout, events in self._logs():
            taken = [
                e for e in events if e.state == "running" and not e.reason.startswith(("resumed", "goes on"))
            ]
            weights = [e.weight_percent for e in taken]
            assert weights == STEPS[: len(weights)]
            assert all("every gate passed" in e.reason for e in taken[1:])
            promoted = [e for e in events if e.state == "promoting"]
            by_evidence = [e for e in promoted if "every gate passed" in e.reason]
            if promoted and rollout.version_id != self.live.pk and rollout.pk not in self.by_person:
                assert len(by_evidence) == len(promoted)

    @invariant()
    def only_what_is_refused_for_good_fails_and_it_never_had_traffic(self) -> None:
        for _, events in self._logs():
            if events and events[-1].state == "failed":
                only = events[0]
                assert len(events) == 1
                assert any(since <= only.at <= until for since, until in self.for_good)
                assert (only.weight_percent, "never" in only.reason) == (0, True)

    @invariant()
    def completion_is_recorded_once(self) -> None:
        for rollout, events in self._logs():
            assert sum(event.state in OVER for event in events) == (rollout.state in OVER)

    @invariant()
    def the_weight_is_0_wherever_nothing_is_judged_or_promoted(self) -> None:
        if not Rollout.objects.filter(state__in=(*JUDGED, "promoting")).exists():
            assert self.scene.route.weight_percent == 0


@pytest.mark.timeout(0 if EXAMPLES > 6 else 300)
@pytest.mark.django_db
def test_whatever_happens_rollouts_keep_their_promises() -> None:
    run_state_machine_as_test(
        Rollouts,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            phases=[
                Phase.explicit,
                Phase.generate,
            ],  # shrinking takes minutes; the steps are told as they are
        ),
    )
