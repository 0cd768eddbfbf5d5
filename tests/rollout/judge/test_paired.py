from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from rollout.judge import EvidenceError, mixture, paired
from rollout.judge.half_plane import HARM, NON_INFERIORITY
from tests.rollout.judge.enumeration import outcomes

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/judge_vectors.json").read_text())["vectors"]
#: Shares of pairs with (both right, only canary wrong, only stable wrong, both wrong).
PAIRS = [
    (1 - b - c - d, b, c, d)
    for b in (0.0, 0.001, 0.05, 0.5, 1.0)
    for c in (0.0, 0.001, 0.05, 0.3, 1.0)
    for d in (0.0, 0.1, 0.6, 1.0)
    if b + c + d <= 1
]
STAKES = np.array([0.0, 0.01, 1.0, 50.0, 1e9])


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["form"] == "paired"])
def test_the_published_vectors(vector):
    given = {key: vector[key] for key in ("only_canary_wrong", "only_stable_wrong", "g")}
    assert paired.harm_log_e(**given) == pytest.approx(vector["log_e"], rel=1e-6)


@pytest.mark.parametrize("shares", [p for p in PAIRS if p[1] <= p[2]])
@pytest.mark.parametrize("n", [1, 4])
def test_expectation_of_harm_is_at_most_one_where_the_canary_is_not_worse(shares, n):
    mean = sum(
        at * np.exp(paired.harm_log_e(only_canary_wrong=b, only_stable_wrong=c))
        for (_, b, c, _), at in outcomes(n, shares)
    )
    assert np.all(mean <= 1 + 1e-9)


@pytest.mark.parametrize("side", [HARM, NON_INFERIORITY], ids=["harm", "non_inferiority"])
@pytest.mark.parametrize(
    ("theta0", "delta"), [(1.0, 0.0), (1.0, 0.01), (0.999, 0.001), (1.25, 0.02), (1, 0.4)]
)
def test_expectation_is_at_most_one_on_the_whole_null_of_a_line(side, theta0, delta):
    null = [(r, b, c, w) for r, b, c, w in PAIRS if side * (b + w - theta0 * (c + w) - delta) <= 1e-12]
    null += list(_boundary(theta0, delta))
    for shares in null:
        mean = sum(
            at * np.exp(_line(counts, side=side, theta0=theta0, delta=delta))
            for counts, at in outcomes(3, shares)
        )
        assert np.all(mean <= 1 + 1e-9)


def _boundary(theta0, delta):
    """Shares of pairs on the null's boundary."""
    for c, w in itertools.product((0.0, 0.01, 0.2, 0.4), (0.0, 0.05, 0.3)):
        b = theta0 * (c + w) + delta - w
        if b >= 0 and b + c + w <= 1:
            yield 1 - b - c - w, b, c, w


def _line(counts, **given):
    names = ("both_right", "only_canary_wrong", "only_stable_wrong", "both_wrong")
    return paired.line_log_e(**dict(zip(names, counts, strict=True)), stake=STAKES, **given)


def test_non_inferiority_is_the_designs_formula():
    b, c, rest, d, c0 = 7, 9, 984, 0.02, 0.01
    bet = d / (2 * c0 + d * d)
    wanted = b * math.log(1 - bet * (1 - d)) + c * math.log(1 + bet * (1 + d)) + rest * math.log(1 + bet * d)
    found = paired.non_inferiority_log_e(
        only_canary_wrong=b, only_stable_wrong=c, rest=rest, margin=d, one_sided=c0
    )
    assert found == pytest.approx(wanted)


def test_a_rash_stake_is_clipped_and_one_mistake_does_not_ruin_the_process():
    found = paired.non_inferiority_log_e(
        only_canary_wrong=1, only_stable_wrong=0, rest=0, margin=0.01, one_sided=0.0
    )
    assert math.isfinite(found)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -1])
def test_counts_that_cannot_be_are_refused(wrong):
    with pytest.raises(EvidenceError):
        paired.harm_log_e(only_canary_wrong=wrong, only_stable_wrong=0)
    for which in range(4):
        counts = [1.0, 1.0, 1.0, 1.0]
        counts[which] = wrong
        with pytest.raises(EvidenceError):
            _line(counts, side=HARM)


def test_no_pairs_are_no_evidence():
    assert not paired.harm_log_e(only_canary_wrong=0, only_stable_wrong=0).any()
    assert not _line((0, 0, 0, 0), side=NON_INFERIORITY, delta=0.01).any()


def test_the_expected_disagreement_has_a_prior_and_follows_the_past():
    assert paired.expected_one_sided(0, 0) == pytest.approx(0.01)
    assert paired.expected_one_sided(4_000, 100_000) == pytest.approx(0.02, rel=0.01)


def _pairs_needed(shares, log_e, line, *, seed, batch=250, most=100_000):
    """Pairs until the mixture reaches the line, the disagreement learned from past batches."""
    rng = np.random.default_rng(seed)
    sums, one_sided, pairs = 0.0, 0, 0
    while pairs < most:
        counts = rng.multinomial(batch, shares)
        sums = sums + log_e(counts, paired.expected_one_sided(one_sided, pairs))
        one_sided, pairs = one_sided + counts[1] + counts[2], pairs + batch
        if mixture.log_mean(sums) >= math.log(line):
            return pairs
    return math.inf


def test_half_a_point_of_accuracy_is_seen_in_the_labels_that_the_design_allows():
    shares = (0.909, 0.008, 0.003, 0.08)  # wrong 8.8 % against 8.3 %, one answer wrong in 1.1 % of pairs

    def harm(counts, _):
        return paired.harm_log_e(only_canary_wrong=counts[1], only_stable_wrong=counts[2])

    assert np.median([_pairs_needed(shares, harm, 100, seed=seed) for seed in range(15)]) <= 8_000


def test_the_999_rule_is_proven_in_the_labels_that_the_design_allows():
    shares = (0.897, 0.0015, 0.0015, 0.1)  # equal, one answer wrong in .3 % of pairs

    def proof(counts, one_sided):
        excess = 0.001 - 0.001 * 0.1
        stakes = paired.stake(excess, one_sided) * np.array([0.5, 1.0])
        right, b, c, wrong = counts
        return paired.line_log_e(
            side=NON_INFERIORITY,
            both_right=right,
            only_canary_wrong=b,
            only_stable_wrong=c,
            both_wrong=wrong,
            stake=stakes,
            theta0=0.999,
            delta=0.001,
        )

    assert np.median([_pairs_needed(shares, proof, 20, seed=seed) for seed in range(15)]) <= 40_000
