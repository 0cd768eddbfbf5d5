from __future__ import annotations

import pytest

from benchmarks.judge.course import Course, plan, strict
from benchmarks.judge.runs import Case, Runner, generator, run_one
from benchmarks.judge.traffic import Fault, Traffic, World
from benchmarks.judge.weather import CALM

DEAD = Case("dead", (World(1000.0, fault=Fault(error_added=1.0)),), plan(), seconds=60, tick_seconds=1.0)
GOOD = Case("good", (World(1000.0, climate=CALM),), plan(), seconds=900, by_gates=True)


def test_a_dead_canary_is_rolled_back_for_its_errors():
    ended = run_one(DEAD, 0, 0)
    assert (ended.outcome, ended.gate, ended.seconds) == ("rolled_back", "errors", 1.0)
    assert ended.weight_percent == 1.0


def test_a_good_canary_goes_through_all_steps_and_is_promoted():
    ended = run_one(GOOD, 0, 0)
    assert (ended.outcome, ended.weight_percent) == ("promoted", 50.0)
    assert ended.seconds >= 4 * 30


def test_by_the_clock_a_good_canary_is_judged_until_time_is_over():
    case = Case("clock", (World(100.0, climate=CALM),), plan(), seconds=240)
    ended = run_one(case, 0, 0)
    assert (ended.outcome, ended.seconds, ended.weight_percent) == ("time_over", 240.0, 50.0)
    assert ended.canary_requests == pytest.approx(100 * 60 * 0.81, rel=0.1)


@pytest.mark.parametrize("by_gates", [True, False])
@pytest.mark.parametrize("errors", [0.0, 0.003, 0.02])
def test_nothing_is_lost_by_concluding_only_where_something_can_follow(errors, by_gates):
    frozen, world = plan(specs=strict()), World(300.0, 0.001, Fault(error_added=errors))
    ends = [
        Course(
            Traffic(generator("lost", 0, 0), world, ticks=120, tick_seconds=5.0, window_ticks=2),
            frozen,
            by_gates=by_gates,
            always=always,
        ).run()
        for always in (False, True)
    ]
    assert ends[0] == ends[1]


def test_a_run_depends_on_its_number_only():
    few, more = Runner(runs=1).all(DEAD, 3), Runner(runs=3).all(DEAD, 3)
    assert few == more[:1]


def test_kept_ends_are_not_run_again(tmp_path):
    runner = Runner(runs=2, keep=tmp_path)
    ends = runner.all(DEAD, 2)
    (file,) = tmp_path.iterdir()
    before = file.read_text()
    assert runner.all(DEAD, 2) == ends
    assert file.read_text() == before
