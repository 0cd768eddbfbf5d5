"""A clock that is set moves no decision."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from rollout.clock import SLEW, SteadyClock


@dataclass
class Machine:
    """Its clocks; `wall` can be set."""

    wall: float = 1_000_000.0
    ticks: float = 50.0

    def pass_seconds(self, seconds: float) -> None:
        self.wall += seconds
        self.ticks += seconds

    def clock(self) -> SteadyClock:
        return SteadyClock(lambda: self.wall, lambda: self.ticks)


@pytest.mark.parametrize("step", [3600.0, -3600.0, 2.5])
def test_36_a_step_of_the_wall_clock_is_not_seen_at_once(step: float) -> None:
    machine = Machine()
    clock = machine.clock()
    before = clock.now()
    machine.pass_seconds(1)
    machine.wall += step
    assert (clock.now() - before).total_seconds() == pytest.approx(1, abs=2 * SLEW)


def test_36_time_never_runs_backwards_while_the_clock_is_set_back() -> None:
    machine = Machine()
    clock = machine.clock()
    seen = [clock.now()]
    machine.wall -= 60
    for _ in range(100):
        machine.pass_seconds(1)
        seen.append(clock.now())
    assert seen == sorted(seen)
    assert len(set(seen)) == len(seen)


def test_the_wall_clock_is_reached_again_slowly() -> None:
    machine = Machine()
    clock = machine.clock()
    clock.now()
    machine.wall += 30
    for _ in range(400):
        machine.pass_seconds(1)
        now = clock.now()
    assert now.timestamp() == pytest.approx(machine.wall)


def test_small_corrections_are_followed_as_they_come() -> None:
    machine = Machine()
    clock = machine.clock()
    clock.now()
    machine.wall += 0.5
    assert clock.now().timestamp() == pytest.approx(machine.wall)
