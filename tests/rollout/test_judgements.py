"""The judge lent to others: counts in, verdict and state out; nothing counts twice."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from rollout import judgements
from rollout.gates.base import Arm, GateSpec, Interval, Verdict
from rollout.judge import EvidenceError
from rollout.judgements import Answer, Terms
from tests.rollout.judge.traffic import Behaviour, interval

ERRORS = Terms((GateSpec("errors", 1.0),))
THREE = Terms(tuple(GateSpec(name, 1.0) for name in ("errors", "latency", "confidence")))


def asked(
    terms: Terms = ERRORS, canary: Behaviour | None = None, *, intervals: int = 200, seed: int = 4
) -> Answer:
    """The judgement of 5 % of 400 requests a second, 5 s at a time."""
    rng, healthy = np.random.default_rng(seed), Behaviour()
    state = judgements.begin(terms, 5.0)
    for i in range(intervals):
        answer = judgements.judgement(state, interval(rng, 5.0 * i, 5.0, 400, 5, canary or healthy, healthy))
        state = answer.state
        if answer.verdict is not Verdict.INCONCLUSIVE:
            break
    return answer


def test_a_healthy_canary_passes_and_a_bad_one_fails_with_its_numbers() -> None:
    passed, failed = asked(THREE), asked(THREE, Behaviour(error_rate=0.05))
    assert (passed.verdict, passed.reason) == (Verdict.PASS, "every gate passed at 5 %")
    assert failed.verdict is Verdict.FAIL
    assert failed.reason.startswith("errors failed: canary ")
    assert judgements.e_value(failed.log_e) >= 100


def test_a_little_evidence_is_inconclusive_and_names_what_is_awaited() -> None:
    answer = asked(THREE, intervals=1)
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert answer.reason == "waits for errors, latency, confidence"


def test_silence_is_neither_pass_nor_fail() -> None:
    state = judgements.begin(ERRORS, 5.0)
    for i in range(1000):
        answer = judgements.judgement(state, Interval(float(i), i + 1.0, Arm(0), Arm(10_000)))
        state = answer.state
    assert answer.verdict is Verdict.INCONCLUSIVE


def test_an_interval_sent_twice_counts_once() -> None:
    bad = Interval(0.0, 5.0, Arm(100, 3), Arm(2000, 2))
    once = judgements.judgement(judgements.begin(ERRORS, 5.0), bad)
    twice = judgements.judgement(once.state, bad)
    assert (once.used, twice.used) == (True, False)
    assert (twice.log_e, twice.state) == (once.log_e, once.state)
    assert "overlaps" in twice.reason


def test_a_new_weight_asks_for_pass_again_and_remembers_harm() -> None:
    passed = asked()
    entered = judgements.enter_step(passed.state, 25.0)
    answer = judgements.judgement(entered, Interval(9e3, 9e3 + 1, Arm(0), Arm(0)))
    assert answer.verdict is Verdict.INCONCLUSIVE
    assert answer.log_e == pytest.approx(passed.log_e)


def test_counts_that_cannot_be_are_refused() -> None:
    with pytest.raises(EvidenceError):
        judgements.judgement(judgements.begin(ERRORS, 5.0), Interval(0.0, 1.0, Arm(5, 6), Arm(5)))


def test_clustered_errors_count_for_less_where_whole_clients_are_assigned() -> None:
    bad = Interval(0.0, 5.0, Arm(100, 3), Arm(2000, 2))
    by_request, by_key = (
        judgements.judgement(judgements.begin(Terms(ERRORS.gates, assignment=unit), 5.0), bad)
        for unit in ("request", "key")
    )
    assert by_key.log_e < by_request.log_e
    assert "assumed" in by_key.gates[0].reason


def test_the_state_is_json_and_the_same_after_it() -> None:
    state = asked(THREE, intervals=3).state
    assert json.loads(json.dumps(state, allow_nan=False)) == state
    assert judgements.differs(json.loads(json.dumps(state)), THREE) == ""


def test_counters_are_judged_by_what_they_gained() -> None:
    reading = {"at": 0.0, "canary": [1000, 900], "stable": [50_000, 40]}
    first = judgements.from_counters(judgements.begin(ERRORS, 5.0), reading)
    assert (first.verdict, first.used) == (Verdict.INCONCLUSIVE, False)
    later = {"at": 30.0, "canary": [1100, 903], "stable": [52_000, 42]}
    second = judgements.from_counters(first.state, later)
    plain = judgements.judgement(
        judgements.begin(ERRORS, 5.0), Interval(0.0, 30.0, Arm(100, 3), Arm(2000, 2))
    )
    assert (second.used, second.log_e) == (True, plain.log_e)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"canary": [10, 0]}, "went back"),
        ({"stable": [49_000, 40]}, "went back"),
        ({"canary": [1001, 910]}, "refused"),
        ({"at": -5.0}, "later reading"),
    ],
)
def test_counters_that_tell_nothing_begin_the_next_interval_only(change: dict[str, Any], reason: str) -> None:
    reading = {"at": 0.0, "canary": [1000, 900], "stable": [50_000, 40]}
    first = judgements.from_counters(judgements.begin(ERRORS, 5.0), reading)
    later = {"at": 30.0, "canary": [1100, 903], "stable": [52_000, 42]} | change
    answer = judgements.from_counters(first.state, later)
    assert (answer.used, answer.log_e) == (False, first.log_e)
    assert reason in answer.reason


def test_an_interval_in_which_the_weight_changed_is_no_evidence() -> None:
    reading = {"at": 0.0, "canary": [1000, 900], "stable": [50_000, 40]}
    first = judgements.from_counters(judgements.begin(ERRORS, 5.0), reading)
    later = {"at": 30.0, "canary": [1100, 903], "stable": [52_000, 42]}
    assert not judgements.from_counters(judgements.enter_step(first.state, 25.0), later).used
