"""Accuracy by labels: valid with its own alternatives, able to see, and deaf to silence."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rollout.gates import get
from rollout.gates.base import Arm, GateSpec, Interval, Labelled, LabelledStratum, Pairs, Verdict
from rollout.judge import mixture
from tests.rollout.judge.enumeration import outcomes

GATE = get("accuracy")
SPEC = GateSpec("accuracy", 0.25)
HEARD = Arm(1)
LINE = math.log(100 / 0.25)  # alone, with its share of the weights


def interval(minute, *strata, pairs=None):
    return Interval(60.0 * minute, 60.0 * minute + 60, HEARD, HEARD, labels=strata, pairs=pairs)


def stratum(canary, stable, weight=10.0):
    """From (requests, labelled, wrong) of either arm, all drawn with probability 1/weight."""
    arms = (Labelled(n, ((weight, wrong),), ((weight, labelled),)) for n, labelled, wrong in (canary, stable))
    return LabelledStratum("s", *arms, max_weight=weight)


def begun(**settings):
    return GATE.enter_step(GATE.fresh(settings), 5)


def log_e(state):
    """(log E of harm, log e of promotion)."""
    verdict = GATE.verdict(state, SPEC)
    return verdict.log_e_fail, verdict.log_e_pass


def live(rng, wrong_c, wrong_b, minutes, *, n_c=900, n_b=17_100, share=0.01, answered=1.0):
    """States after each minute of a 5 % canary at 300 requests a second, 1 % of them drawn."""
    state = begun()
    for minute in range(minutes):
        arms = []
        for n, rate in ((n_c, wrong_c), (n_b, wrong_b)):
            labelled = int(rng.binomial(n, share * answered))
            arms.append((n, labelled, int(rng.binomial(labelled, rate))))
        state = GATE.absorb(state, interval(minute, stratum(*arms, weight=1 / share)))
        yield state


def drawn_and_answered(n, wrong, answered):
    """Every outcome of n requests, drawn with probability .5: ((n, labelled, wrong), its probability)."""
    shares = (0.5 * answered * wrong, 0.5 * answered * (1 - wrong))
    for (x, r, _), probability in outcomes(n, (*shares, 1 - sum(shares))):
        yield (n, x + r, x), probability


@pytest.mark.parametrize("answered", [1.0, 0.4])
@pytest.mark.parametrize("wrong_b", [0.0, 0.05, 0.5])
def test_a_tolerated_loss_gains_no_evidence_of_harm(wrong_b, answered):
    """Exactly: every draw, every answer, every label of a small stratum, in which some never answer."""
    state = GATE.absorb(begun(), interval(0, stratum((20, 10, 1), (400, 200, 12), 2.0)))
    before = math.exp(log_e(state)[0])
    for wrong_c in (0.0, wrong_b, 0.999 * wrong_b + 0.001):
        mean = sum(
            p * q * math.exp(log_e(GATE.absorb(state, interval(1, stratum(one, other, 2.0))))[0])
            for one, p in drawn_and_answered(2, wrong_c, answered)
            for other, q in drawn_and_answered(3, wrong_b, answered)
        )
        assert mean <= before * (1 + 1e-9)


@pytest.mark.parametrize("answered", [1.0, 0.4])
@pytest.mark.parametrize("wrong_b", [0.0, 0.05, 0.5])
def test_a_loss_of_the_margin_gains_no_evidence_for_promotion(wrong_b, answered):
    state = GATE.absorb(begun(), interval(0, stratum((20, 10, 1), (400, 200, 12), 2.0)))
    before = math.exp(mixture.log_mean(state["pass"]))
    for wrong_c in (wrong_b + 0.03, 1.0):
        mean = sum(
            p
            * q
            * math.exp(mixture.log_mean(GATE.absorb(state, interval(1, stratum(one, other, 2.0)))["pass"]))
            for one, p in drawn_and_answered(2, wrong_c, answered)
            for other, q in drawn_and_answered(3, wrong_b, answered)
        )
        assert mean <= before * (1 + 1e-9)


def test_labels_of_one_arm_that_come_first_would_break_it_so_a_stratum_is_fed_once_it_has_matured():
    """Fed as they come, the canary's labels before stable's, an equal canary gains evidence of harm."""
    state = GATE.absorb(begun(), interval(0, stratum((20, 10, 1), (400, 200, 12), 2.0)))
    before = math.exp(log_e(state)[0])

    def mean(answered_c, answered_b):
        return sum(
            p * q * math.exp(log_e(GATE.absorb(state, interval(1, stratum(one, other, 2.0))))[0])
            for one, p in drawn_and_answered(2, 0.3, answered_c)
            for other, q in drawn_and_answered(3, 0.3, answered_b)
        )

    assert mean(1.0, 0.0) > before * 1.01
    assert mean(1.0, 1.0) <= before * (1 + 1e-9)


@pytest.mark.parametrize("disagree", [0.0, 0.02, 0.4])
@pytest.mark.parametrize("labelled", [1.0, 0.5])
def test_pairs_gain_nothing_on_either_null(disagree, labelled):
    """n = 3 pairs: only the canary wrong, only stable, both, agreed; a disagreement is labelled or not."""
    state = GATE.absorb(begun(), interval(0, pairs=Pairs(0, 3, 3, 1, 500, 490)))
    harm, promotion = math.exp(log_e(state)[0]), math.exp(mixture.log_mean(state["paired_pass"]))
    for loss, of_harm in ((0.0, True), (0.001, False), (0.3, False)):
        one, other = min(1.0, disagree / 2 + loss), disagree / 2 * 0.9
        if of_harm:
            other = one
        both = 0.1 * disagree
        means = np.zeros(2)
        for counts, p in outcomes(
            3, (*_split((one, other, both), labelled), max(0.0, 1 - one - other - both))
        ):
            a, a0, b, b0, c, c0, agreed = counts
            after = GATE.absorb(
                state,
                interval(
                    1, pairs=Pairs(0, a, b, c, compared=a + a0 + b + b0 + c + c0 + agreed, agreed=agreed)
                ),
            )
            means += p * np.array(
                [math.exp(log_e(after)[0]), math.exp(mixture.log_mean(after["paired_pass"]))]
            )
        if of_harm:
            assert means[0] <= harm * (1 + 1e-9)
        else:
            assert means[1] <= promotion * (1 + 1e-9)


def _split(shares, labelled):
    return tuple(part for share in shares for part in (share * labelled, share * (1 - labelled)))


def test_no_label_is_said_to_be_no_label():
    verdict = GATE.verdict(begun(), SPEC)
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.reason.startswith("no labels yet")
    assert "10 min" in verdict.reason


def test_silence_never_promotes():
    """Days of traffic that is drawn and never labelled."""
    state = begun()
    for minute in range(2_000):
        state = GATE.absorb(state, interval(minute, LabelledStratum("s", Labelled(900), Labelled(17_100))))
    verdict = GATE.verdict(state, SPEC)
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.log_e_pass == pytest.approx(0)
    assert verdict.log_e_fail <= 0


def test_labels_of_stable_alone_promote_nothing():
    state = begun()
    for minute in range(200):
        state = GATE.absorb(state, interval(minute, stratum((900, 0, 0), (17_100, 170, 40), 100.0)))
    assert GATE.verdict(state, SPEC).verdict is Verdict.INCONCLUSIVE


def test_equal_canaries_are_rolled_back_at_most_as_often_as_stated():
    """120 rollouts of two hours of labels, looked at each minute: expected are 120·α·share = .3 at most."""
    rng = np.random.default_rng(20)
    crossed = sum(
        any(mixture.log_e(state["fail"]) >= LINE for state in live(rng, 0.08, 0.08, 120)) for _ in range(120)
    )
    assert crossed <= 2  # P(Poisson(.3) > 2) < .4 %


def test_half_of_the_answers_missing_changes_that_not():
    rng = np.random.default_rng(21)
    crossed = sum(
        any(mixture.log_e(state["fail"]) >= LINE for state in live(rng, 0.08, 0.08, 120, answered=0.5))
        for _ in range(60)
    )
    assert crossed <= 2


def test_ten_points_lost_are_found_within_250_labels_of_the_canary():
    rng = np.random.default_rng(22)
    needed = []
    for _ in range(15):
        for state in live(rng, 0.15, 0.05, 240):
            if mixture.log_e(state["fail"]) >= LINE:
                needed.append(GATE.failure(state, SPEC).n)
                break
    assert len(needed) == 15
    assert np.median(needed) <= 250


def test_a_better_canary_passes_and_is_not_blamed():
    rng = np.random.default_rng(23)
    *_, state = live(rng, 0.03, 0.08, 60)
    verdict = GATE.verdict(state, SPEC)
    assert verdict.verdict is Verdict.PASS
    assert verdict.log_e_fail < 0.1
    assert verdict.value < -3
    assert "loss of 3 points excluded" in verdict.reason


def test_half_a_point_lost_is_found_with_at_most_8000_labelled_disagreements():
    """The design's number: accuracy −.5 point by paired shadow labels."""
    rng = np.random.default_rng(24)
    needed = []
    for _ in range(10):
        state, labels = begun(), 0
        for minute in range(400):
            one, other, both, _ = rng.multinomial(600, [0.0295, 0.0245, 0.006, 0.94])
            labels += one + other + both
            pairs = Pairs(0, int(one), int(other), int(both), 600, int(600 - one - other - both))
            state = GATE.absorb(state, interval(minute, pairs=pairs))
            if mixture.log_e(state["fail"]) >= LINE:
                needed.append(labels)
                break
    assert len(needed) == 10
    assert np.median(needed) <= 8_000


def test_pairs_that_agree_prove_the_999_rule_without_any_label():
    state = begun()
    for minute in range(12):
        state = GATE.absorb(state, interval(minute, pairs=Pairs(compared=600, agreed=600)))
    verdict = GATE.verdict(state, SPEC)
    assert verdict.verdict is Verdict.PASS
    assert "loss of 0.1 points excluded" in verdict.reason
    assert (
        GATE.verdict(GATE.enter_step(state, 50), SPEC).verdict is Verdict.PASS
    )  # pairs do not depend on the weight


def test_disagreements_that_nobody_labels_speak_against_promotion_not_for_rollback():
    state = begun()
    for minute in range(12):
        state = GATE.absorb(state, interval(minute, pairs=Pairs(compared=600, agreed=594)))
    verdict = GATE.verdict(state, SPEC)
    assert verdict.verdict is Verdict.INCONCLUSIVE
    assert verdict.log_e_pass < 0
    assert verdict.log_e_fail < 1e-9
    assert "72 disagreements without a label" in verdict.reason


def test_a_step_asks_anew_by_live_labels():
    rng = np.random.default_rng(25)
    *_, state = live(rng, 0.03, 0.08, 60)
    fresh = GATE.enter_step(state, 25)
    assert GATE.verdict(fresh, SPEC).verdict is Verdict.INCONCLUSIVE
    assert log_e(fresh)[0] == log_e(state)[0]


def test_a_failure_tells_both_arms_and_what_is_asked_for():
    rng = np.random.default_rng(26)
    *_, state = live(rng, 0.5, 0.05, 10)
    failure = GATE.failure(state, SPEC)
    assert failure.verdict is Verdict.FAIL
    assert failure.value == pytest.approx(45, abs=15)
    assert "labels" in failure.reason
    assert "at least 99.9 % of stable's accuracy" in failure.reason


@pytest.mark.parametrize(
    "settings",
    [{"least_of_baseline": 0.2}, {"mature_seconds": -1}, {"paired_margin_points": 0}, {"theta0": 1.0}],
)
def test_a_setting_that_makes_no_sense_is_refused(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        GATE.fresh(settings)
