"""A split that is off is told, whatever the arms answer; chance and users who stay in an arm are not."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rollout.evidence import splits
from rollout.gates.base import Arm, Interval, State, Verdict
from rollout.judge.dispersion import Assignment


def after(
    shares: list[float], percent: float = 5, *, assignment: str = "request", n: int = 300, seed: int = 1
) -> State:
    """The sources after seconds in which the canary's true share was each of these."""
    rng, sources = np.random.default_rng(seed), dict[str, Any]()
    for second, share in enumerate(shares):
        canary = int(rng.binomial(n, share))
        interval = Interval(float(second), second + 1.0, Arm(canary), Arm(n - canary))
        sources = splits.note(sources, interval, percent, assignment)
    return sources


def test_a_split_as_asked_is_no_mismatch() -> None:
    for seed in range(10):
        assert splits.mismatch(after([0.05] * 300, seed=seed)) == ""
    assert splits.verdict({}) is None


@pytest.mark.parametrize("assignment", ["request", "key"])
def test_a_proxy_with_an_old_weight_is_told_and_holds(assignment: str) -> None:
    sources = after([0.25] * 60, percent=50, assignment=assignment)
    assert "expected 50.00 %" in splits.mismatch(sources)
    verdict = splits.verdict(sources)
    assert verdict is not None
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert "cannot be trusted" in verdict.reason


def test_users_who_stay_in_their_arm_make_no_split_exact_and_are_no_mismatch() -> None:
    """2,000 users, a twentieth of them drawn into the canary once and for all."""
    rng = np.random.default_rng(4)
    users = [rng.binomial(2_000, 0.05) / 2_000 for _ in range(20)]
    assert max(abs(share - 0.05) for share in users) > 0.05 * 0.1
    for seed, share in enumerate(users):
        assert splits.mismatch(after([share] * 200, assignment="key", seed=seed)) == ""


def test_a_mismatch_is_lifted_when_a_minute_of_requests_no_longer_shows_it() -> None:
    broken = [0.15] * 20
    assert splits.mismatch(after(broken + [0.05] * 50)) != ""
    assert splits.mismatch(after(broken + [0.05] * 70)) == ""


def test_a_mismatch_that_lasts_is_not_lifted_in_between() -> None:
    for seconds in range(20, 400, 7):
        assert splits.mismatch(after([0.12] * seconds)) != ""


def test_with_little_traffic_more_time_is_needed_to_lift_a_mismatch() -> None:
    broken = [0.15] * 900
    assert splits.mismatch(after(broken + [0.05] * 90, n=1)) != ""
    assert splits.mismatch(after(broken + [0.05] * 3_000, n=1)) == ""


def test_a_mismatch_that_begins_late_is_found() -> None:
    assert splits.mismatch(after([0.05] * 900 + [0.15] * 30)) != ""


@pytest.mark.parametrize("percent", [0, 100])
def test_without_a_split_there_is_nothing_to_test(percent: float) -> None:
    assert splits.mismatch(after([0.3] * 30, percent=percent)) == ""


def test_what_is_tolerated_shrinks_with_the_number_of_users_per_arm() -> None:
    by_key = [splits.tolerance(share, Assignment.KEY) for share in (0.01, 0.05, 0.25, 0.5)]
    assert by_key == sorted(by_key, reverse=True)
    assert by_key[3] == pytest.approx(4 * math.sqrt(1 / 1000), abs=1e-9)
    assert splits.tolerance(0.05, Assignment.REQUEST) == 0.1
