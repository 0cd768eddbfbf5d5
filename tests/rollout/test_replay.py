"""A rollout's evidence, judged again: the same verdict under its own plan, and what another would have made of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from django.test import Client

from rollout import commands, replay
from rollout.evidence import sources
from rollout.gates.base import Interval, Verdict
from rollout.models import Evidence, Rollout
from rollout.plan import Plan, load
from rollout.plans import stored
from rollout.replay import Record
from tests.rollout.api.test_rollouts import client, named, post
from tests.rollout.judge.traffic import Behaviour as Arms
from tests.rollout.judge.traffic import interval
from tests.rollout.scene import PLAN, Behaviour, Scene

START = datetime(2026, 11, 20, 3, 0, tzinfo=UTC).timestamp()
STANDARD = {**PLAN, "gates": [{"name": n} for n in ("errors", "latency", "confidence")]}
ONE_STEP: dict[str, Any] = {
    "name": "one-step",
    "steps": [{"weight_percent": 5, "dwell_seconds": 30}],
    "gates": [{"name": "errors"}],
    "patience_seconds": 600,
}


def plan(**changes: Any) -> Plan:
    return stored.check(ONE_STEP | changes)


def record(seconds: int, canary: Arms | None = None, *, seed: int = 3, rate: int = 400) -> list[Record]:
    """A record of the errors gate at 5 %, one interval a second."""
    rng, healthy = np.random.default_rng(seed), Arms()
    seen = (interval(rng, START + i, 1.0, rate, 5, canary or healthy, healthy) for i in range(seconds))
    return [Record("errors", 0, 5.0, each) for each in seen]


# Pure: another plan


def test_a_good_canary_is_promoted_when_the_gate_passes_and_the_dwell_is_over() -> None:
    found = replay.under(plan(), record(600))
    assert found.outcome == "promoted"
    assert [turn.phase for turn in found.turns] == ["running", "promoting"]
    assert (found.turns[-1].at - found.turns[0].at).total_seconds() >= 30
    assert found.gates[0].verdict is Verdict.PASS


def test_a_bad_canary_is_rolled_back_with_the_gate_s_numbers() -> None:
    found = replay.under(plan(), record(600, Arms(error_rate=0.05)))
    assert found.outcome == "rolled_back"
    assert found.turns[-1].reason.startswith("errors failed: canary ")
    assert found.gates[0].verdict is Verdict.FAIL


def test_more_steps_take_longer_and_each_asks_for_evidence_of_its_own() -> None:
    steps = [{"weight_percent": weight, "dwell_seconds": 0} for weight in (1, 5, 25)]
    rows = record(3000)
    one, three = replay.under(plan(), rows), replay.under(plan(steps=steps), rows)
    assert [turn.weight_percent for turn in three.turns] == [1, 5, 25, 100]
    assert three.turns[-1].at > one.turns[-1].at
    assert all(turn.recorded_percent == 5 for turn in three.turns)


def test_a_stricter_alpha_rolls_back_later() -> None:
    rows = record(600, Arms(error_rate=0.02))
    ends = [replay.under(plan(alpha=alpha), rows).turns[-1].at for alpha in (0.01, 1e-6)]
    assert ends[0] < ends[1]


def test_a_record_that_ends_early_decides_nothing_and_says_what_was_awaited() -> None:
    found = replay.under(plan(), record(3))
    assert found.outcome == "undecided"
    assert "the record ends at step 1 of 1 (5 %), waiting for errors" in found.notes[-1]


def test_a_gate_that_the_record_knows_nothing_of_never_passes_and_is_named() -> None:
    found = replay.under(plan(gates=[{"name": "errors"}, {"name": "latency"}]), record(300))
    assert found.outcome == "undecided"
    assert any("no evidence for latency" in note for note in found.notes)


def test_the_reader_is_told_whose_split_it_was() -> None:
    assert "(5 %)" in replay.under(plan(), record(60)).notes[0]


def test_silence_in_the_record_is_held_or_rolled_back_as_the_plan_says() -> None:
    rows = record(2)
    late = replace(rows[-1], interval=replace(rows[-1].interval, start=START + 100, end=START + 101))
    gates = [{"name": "errors"}, {"name": "latency"}]
    patient = plan(gates=gates, patience_seconds=60)
    assert [t.phase for t in replay.under(patient, [*rows, late]).turns] == ["running", "held"]
    hasty = plan(gates=gates, patience_seconds=60, on_silence="rollback")
    assert replay.under(hasty, [*rows, late]).outcome == "rolled_back"


def test_replaying_is_repeatable() -> None:
    rows = record(300, Arms(error_rate=0.004))
    assert replay.under(plan(), rows) == replay.under(plan(), rows)


def test_an_empty_record_is_refused() -> None:
    with pytest.raises(ValueError, match="evidence"):
        replay.under(plan(), [])


# Rollouts


def rows_of(rollout: Rollout) -> list[Record]:
    return [
        Record(
            row.gate,
            row.step,
            row.weight_percent,
            sources.from_json(row.start.timestamp(), row.end.timestamp(), row.arms),
        )
        for row in Evidence.objects.filter(rollout=rollout)
    ]


def run(behaviour: Behaviour, given: Any = STANDARD) -> Rollout:
    scene = Scene("local")
    scene.live()
    return scene.run(scene.start(scene.version("v2", behaviour), given), 900)


@pytest.mark.django_db
@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(), Behaviour(errors=0.03), Behaviour(uncertain=0.3), Behaviour(latency_seconds=0.012)],
)
def test_a_rollout_s_own_evidence_replays_to_the_same_verdicts(behaviour: Behaviour) -> None:
    ended = run(behaviour)
    again = replay.again(load(ended.plan), rows_of(ended))
    assert (again.failed is not None) == (ended.state == "rolled_back")
    shown = {gate["name"]: gate for gate in ended.gates}
    for gate in again.gates:
        kept = shown[gate.name]
        assert (gate.verdict, gate.n, gate.reason) == (kept["verdict"], kept["n"], kept["reason"])
        assert gate.log_e_fail == pytest.approx(kept["log_e_fail"], rel=1e-9)
        assert gate.log_e_pass == pytest.approx(kept["log_e_pass"], rel=1e-9)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("behaviour", "outcome"), [(Behaviour(), "promoted"), (Behaviour(errors=0.03), "rolled_back")]
)
def test_its_own_plan_would_have_done_what_it_did(behaviour: Behaviour, outcome: str) -> None:
    ended = run(behaviour)
    found = replay.under(load(ended.plan), rows_of(ended))
    assert (ended.state, found.outcome) == (outcome, outcome)
    steps = [e.weight_percent for e in ended.events.filter(state="running")]
    assert [t.weight_percent for t in found.turns if t.phase == "running"] == steps


# REST


@pytest.mark.django_db
def test_a_past_rollout_is_simulated_under_another_plan() -> None:
    ended = run(Behaviour(errors=0.03))
    stored.create(ONE_STEP | {"alpha": 0.05}, actor="ann", now=ended.started_at)
    before = Rollout.objects.count()
    shown = post(client("read"), "/plans/one-step/simulate", rollout=ended.pk)
    assert shown.status_code == 200, shown.content
    found = shown.json()
    assert (found["outcome"], found["plan"]["name"], found["plan"]["number"]) == (
        "rolled_back",
        "one-step",
        1,
    )
    assert found["recorded"] == {
        "rollout": ended.pk,
        "plan": "test",
        "state": "rolled_back",
        "reason": ended.reason,
    }
    assert found["turns"][0]["seconds"] == 0
    assert found["seconds"] == found["turns"][-1]["seconds"] > 0
    assert found["gates"][0]["verdict"] == "FAIL"
    assert found["notes"]
    assert (Rollout.objects.count(), commands.find(ended.pk).reason) == (before, ended.reason)


@pytest.mark.django_db
def test_what_cannot_be_simulated_is_refused_at_its_field() -> None:
    api = client("read")
    scene = Scene("local")
    first = scene.start(scene.version("v1"))
    assert named(post(api, "/plans/standard/simulate", rollout=first.pk)) == (
        422,
        "no_evidence",
        ["/rollout"],
    )
    assert named(post(api, "/plans/reckless/simulate", rollout=first.pk)) == (404, "unknown_plan", ["/plan"])
    assert named(post(api, "/plans/standard/simulate", rollout=999999)) == (404, "unknown_rollout", [])
    assert named(post(api, "/plans/standard/simulate")) == (422, "invalid", ["/rollout"])
    nobody: Client = client("telemetry")
    assert post(nobody, "/plans/standard/simulate", rollout=first.pk).status_code == 403


def test_an_interval_is_not_touched_by_the_replay() -> None:
    rows = record(5)
    before: list[Interval] = [row.interval for row in rows]
    replay.under(plan(), rows)
    assert [row.interval for row in rows] == before
