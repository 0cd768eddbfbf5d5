"""The canary's distance from its own reference, against stable's from its own."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from rollout.gates.embedding_shift import QUANTILES, ROWS
from rollout.judge import EvidenceError, mixture
from tests.rollout.judge.enumeration import outcomes

GATE, SPEC = get("embedding_shift"), GateSpec("embedding_shift", 1.0)
SHARES = np.diff(QUANTILES, prepend=0, append=1)
EVEN = tuple((SHARES * 4_000).round().astype(int).tolist())
N_C, N_B, DELTA = 3, 4, 0.05


def half(below, above, digest="a" * 64):
    """An arm of one row with one edge, at the reference's median."""
    return Arm(
        below + above, 0, embedding=((below, above),), reference=((500, 500),), reference_digest=digest
    )


def started(stable_share, weight_percent=25):
    """A gate that knows where stable was."""
    before = Interval(
        0.0, 10.0, half(0, 0), half(round(4_000 * stable_share), round(4_000 * (1 - stable_share)))
    )
    return GATE.absorb(GATE.enter_step(GATE.fresh({}), weight_percent), before)


def expected(p_c, p_b, *, past, same, weight_percent=25):
    """Expected (E of harm, e of the promotion) after one interval, relative to before it."""
    state = started(past, weight_percent)
    mean = np.zeros(2)
    for x, p in outcomes(N_C, (p_c, 1 - p_c)):
        for y, q in outcomes(N_B, (p_b, 1 - p_b)):
            seen = Interval(10.0, 20.0, half(*x, "a" * 64 if same else "c" * 64), half(*y))
            mean += p * q * _evidence(GATE.absorb(state, seen))
    return mean / _evidence(state)


def _evidence(state):
    return np.exp([mixture.log_e(state["fail"]), GATE.log_pass(state)])


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("past", [0.5, 0.3, 0.8])
@pytest.mark.parametrize("p_b", [0.5, 0.55, 0.3, 0.7, 0.0, 1.0])
def test_a_canary_no_further_than_tolerated_gains_no_evidence_of_harm(p_b, past, same):
    furthest = abs(p_b - 0.5) + DELTA
    for distance in (-furthest, -furthest / 2, 0.0, furthest / 2, furthest):
        harm, _ = expected(float(np.clip(0.5 + distance, 0, 1)), p_b, past=past, same=same)
        assert harm <= 1 + 1e-9


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("weight_percent", [1, 50])
@pytest.mark.parametrize("past", [0.5, 0.3, 0.8])
@pytest.mark.parametrize("p_b", [0.5, 0.55, 0.3])
def test_a_canary_that_is_further_off_by_the_margin_gains_nothing_for_promotion(
    p_b, past, weight_percent, same
):
    least = abs(p_b - 0.5) + GATE.defaults["margin_points"][str(weight_percent)] / 100
    for distance in (-least, least, 0.5, -0.5):
        assert abs(distance) <= 0.5
        _, promotion = expected(0.5 + distance, p_b, past=past, same=same, weight_percent=weight_percent)
        assert promotion <= 1 + 1e-9


def shifted(distance):
    """Shares (6,) whose median has moved by `distance`."""
    shares = SHARES.copy()
    shares[:3] *= (0.5 + distance) / 0.5
    shares[3:] *= (0.5 - distance) / 0.5
    return shares


def arm(rng, n, distance=0.0, *, row=4, rows=ROWS, digest="a" * 64):
    """n images whose component `row` is off; all others as in the reference."""
    counts = rng.multinomial(n, SHARES, size=rows)
    counts[row] = rng.multinomial(n, shifted(distance))
    return Arm(
        n,
        embedding=tuple(map(tuple, counts.tolist())),
        reference=(EVEN,) * rows,
        reference_digest=digest,
    )


def judged(canary, stable, *, intervals, n=(100, 900), seed=1, digest="a" * 64, row_b=4):
    """The state after intervals in which the arms' distances are canary(i) and stable(i)."""
    rng = np.random.default_rng(seed)
    state = GATE.enter_step(GATE.fresh({}), 10)
    for i in range(intervals):
        arms = arm(rng, n[0], canary(i), digest=digest), arm(rng, n[1], stable(i), row=row_b)
        state = GATE.absorb(state, Interval(10.0 * i, 10.0 * i + 10, *arms))
    return state


def log_e(state):
    return GATE.verdict(state, SPEC).log_e_fail


@pytest.mark.parametrize(("digest", "distance"), [("a" * 64, 0.15), ("c" * 64, 0.25)])
def test_a_canary_that_has_moved_away_alone_fails_and_is_told_where(digest, distance):
    state = judged(lambda _: distance, lambda _: 0.0, intervals=20, digest=digest)
    assert log_e(state) >= math.log(100)
    failure = GATE.failure(state, SPEC)
    assert failure.verdict is Verdict.FAIL
    assert "component 5" in failure.reason
    assert "from its reference" in failure.reason
    assert failure.value == pytest.approx(100 * distance, abs=4)


@pytest.mark.parametrize("digest", ["a" * 64, "c" * 64])
def test_a_shift_that_both_arms_share_fails_nobody_and_promotes(digest):
    state = judged(lambda i: 0.02 * min(i, 15), lambda i: 0.02 * min(i, 15), intervals=60, digest=digest)
    verdict = GATE.verdict(state, SPEC)
    assert verdict.log_e_fail < math.log(20)
    assert verdict.verdict is Verdict.PASS


@pytest.mark.parametrize("digest", ["a" * 64, "c" * 64])
@pytest.mark.parametrize(("canary", "stable"), [(0.1, -0.3), (0.0, 0.3), (-0.2, 0.25)])
def test_a_canary_nearer_to_its_reference_than_stable_to_its_own_never_fails(canary, stable, digest):
    state = judged(lambda _: canary, lambda _: stable, intervals=60, digest=digest)
    assert log_e(state) < math.log(20)


def test_drift_that_changes_which_arm_is_ahead_of_the_reference_is_no_harm():
    """Products over the intervals, and the lesser of them at the end, would convict: each half alone is strong."""
    state = judged(lambda _: 0.18, lambda i: -0.2 if i < 30 else 0.2, intervals=60)
    assert log_e(state) < math.log(20)


def test_with_another_reference_stables_largest_distance_counts_wherever_it_is():
    state = judged(lambda _: 0.25, lambda _: 0.25, intervals=30, digest="c" * 64, row_b=17)
    assert log_e(state) < math.log(20)
    assert log_e(judged(lambda _: 0.25, lambda _: 0.25, intervals=30, row_b=17)) >= math.log(100)


def test_a_better_model_with_a_reference_of_its_own_passes():
    state = judged(lambda _: 0.0, lambda _: 0.0, intervals=30, digest="c" * 64)
    assert GATE.verdict(state, SPEC).verdict is Verdict.PASS


def test_false_rollbacks_stay_below_alpha_on_the_nulls_boundary():
    rng = np.random.default_rng(7)
    runs, highest = 40, []
    for _ in range(runs):
        state, most = GATE.enter_step(GATE.fresh({"delta": 0.0}), 10), -math.inf
        for i in range(25):
            both = arm(rng, 40, 0.1), arm(rng, 300, 0.1)
            state = GATE.absorb(state, Interval(10.0 * i, 10.0 * i + 10, *both))
            most = max(most, log_e(state))
        highest.append(most)
    assert (np.array(highest) >= -math.log(0.05)).sum() <= runs * 0.05 + 2 * math.sqrt(runs * 0.05)


def test_references_of_few_and_of_many_rows_are_judged():
    rng = np.random.default_rng(1)
    for rows in (2, ROWS, ROWS + 20):
        state = GATE.enter_step(GATE.fresh({}), 50)
        for i in range(15):
            pair = (arm(rng, 400, 0.3, row=rows - 1, rows=rows), arm(rng, 400, 0.0, rows=rows, row=0))
            state = GATE.absorb(state, Interval(10.0 * i, 10.0 * i + 10, *pair))
        assert log_e(state) >= math.log(100)
        assert "what the components leave out" in GATE.failure(state, SPEC).reason


def test_the_full_grid_and_its_quantiles_say_the_same():
    fine = np.repeat(10, 400)
    rng = np.random.default_rng(5)
    states = []
    for _ in range(2):
        states.append(GATE.enter_step(GATE.fresh({}), 50))
    edges = (400 * QUANTILES).astype(int)
    for i in range(4):
        arms = [rng.multinomial(300, fine / fine.sum()) for _ in range(2)]
        grids = [lambda c: c, lambda c: np.add.reduceat(c, [0, *edges])]
        for place, grid in enumerate(grids):
            pair = [
                Arm(300, embedding=(tuple(grid(c).tolist()),), reference=(tuple(grid(fine).tolist()),))
                for c in arms
            ]
            states[place] = GATE.absorb(states[place], Interval(10.0 * i, 10.0 * i + 10, *pair))
    assert states[0] == states[1]


def test_one_arm_without_embeddings_is_no_evidence():
    rng = np.random.default_rng(1)
    state = GATE.enter_step(GATE.fresh({}), 50)
    for i in range(9):
        state = GATE.absorb(state, Interval(10.0 * i, 10.0 * i + 10, Arm(100), arm(rng, 900)))
    assert GATE.verdict(state, SPEC).n == 0


@pytest.mark.parametrize(
    ("live", "frozen"),
    [
        (((1, 2),), ((1, 2, 3),)),
        (((1, 2), (2, 2)), ((5, 5), (5, 5))),
        (((-1, 4),), ((5, 5),)),
        (((1, 2),), ((0, 0),)),
    ],
)
def test_counts_that_cannot_be_are_refused(live, frozen):
    bad = Arm(3, embedding=live, reference=frozen)
    with pytest.raises(EvidenceError, match="canary"):
        GATE.absorb(GATE.fresh({}), Interval(0.0, 10.0, bad, bad))


def test_the_state_stays_below_20_kilobytes():
    assert len(json.dumps(judged(lambda i: 0.3, lambda i: 0.0, intervals=40))) < 20_000
