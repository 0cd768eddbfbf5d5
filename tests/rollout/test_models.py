"""The database and the state machine speak of the same states."""

from __future__ import annotations

from rollout.models import ACTIVE, Rollout
from rollout.phases import TERMINAL, Phase


def test_the_rows_states_are_the_phases() -> None:
    assert set(Rollout.State.values) == {phase.value for phase in Phase}


def test_what_is_not_over_is_active() -> None:
    assert set(ACTIVE) == {phase.value for phase in set(Phase) - TERMINAL}
