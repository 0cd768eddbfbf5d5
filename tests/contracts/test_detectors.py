"""What every detector promises: three answers, no hasty alarm, one that ends by itself, and JSON all the way."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from davy import counting

from monitoring import references
from monitoring.detectors import DETECTORS
from monitoring.detectors.base import Live, Status

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture(params=DETECTORS)
def detector(request):
    return DETECTORS[request.param]


@pytest.fixture(scope="module")
def reference():
    return references.measure(*images(np.random.default_rng(1), 3000))


def images(rng, n, shift=0.0):
    """Embeddings (n, 16) and confidences (n,); a shift moves both."""
    embeddings = (rng.normal(size=(n, 16)) + shift).astype("f4")
    confidences = np.clip(rng.beta(8, 2, n) - shift / 4, 0, 1)
    return embeddings, confidences


def live(reference, n=1000, shift=0.0, seed=2):
    embeddings, confidences = images(np.random.default_rng(seed), n, shift)
    return Live(AT, AT, n, counting.count_confidence(confidences), reference.count(embeddings))


def answers(detector, reference, *shown):
    state, found = {}, []
    for counts in shown:
        answer = detector.evaluate(counts, reference, state)
        state = json.loads(json.dumps(answer.state))  # as the database keeps it
        found.append(answer.status.value)
    return found


def test_its_name_and_words_are_there(detector):
    assert DETECTORS[detector.name] is detector
    assert detector.subject.isidentifier()
    assert detector.advice


def test_images_like_the_reference_are_stable(detector, reference):
    assert (
        answers(detector, reference, *(live(reference, seed=seed) for seed in range(20))) == ["STABLE"] * 20
    )


def test_one_bad_look_is_no_alarm_and_two_are(detector, reference):
    assert answers(detector, reference, live(reference, shift=2)) == ["STABLE"]
    assert answers(detector, reference, *[live(reference, shift=2)] * 2) == ["STABLE", "DRIFTED"]
    apart = [live(reference, shift=2), live(reference), live(reference, shift=2)]
    assert answers(detector, reference, *apart) == ["STABLE"] * 3


def test_an_alarm_ends_by_itself_after_three_good_looks(detector, reference):
    shown = [live(reference, shift=2)] * 3 + [live(reference)] * 3
    assert answers(detector, reference, *shown)[1:] == ["DRIFTED"] * 4 + ["STABLE"]


@pytest.mark.parametrize("n", [0, 1, 499])
def test_few_images_are_too_few_and_never_fine(detector, reference, n):
    assert answers(detector, reference, live(reference, n=n, shift=2)) == ["TOO_FEW"]


def test_too_few_images_neither_raise_nor_end_an_alarm(detector, reference):
    few, bad, good = live(reference, n=9), live(reference, shift=2), live(reference)
    assert answers(detector, reference, bad, few, bad) == ["STABLE", "TOO_FEW", "STABLE"]
    shown = [bad, bad, good, good, few, good, good, good]
    assert answers(detector, reference, *shown)[-4:] == ["TOO_FEW", "DRIFTED", "DRIFTED", "STABLE"]


def test_without_a_reference_there_is_nothing_to_say(detector, reference):
    answer = detector.evaluate(live(reference), None, {})
    assert answer.status is Status.TOO_FEW
    assert "reference" in answer.reason


def test_it_changes_nothing_that_it_is_given(detector, reference):
    state = detector.evaluate(live(reference, shift=2), reference, {}).state
    before, counts = copy.deepcopy(state), live(reference, shift=2)
    detector.evaluate(counts, reference, state)
    assert state == before
    assert np.array_equal(counts.embedding, live(reference, shift=2).embedding)


def test_results_are_json_with_their_n_and_times(detector, reference):
    for counts in (live(reference), live(reference, n=0)):
        result = detector.evaluate(counts, reference, {}).result
        assert json.loads(json.dumps(result, allow_nan=False)) == result
        assert result["n"] == counts.n
        assert result["from"] == AT.isoformat()


def test_reasons_name_the_numbers_and_their_n(detector, reference):
    reason = detector.evaluate(live(reference), reference, {}).reason
    assert "1,000 live" in reason
    assert "3,000 reference" in reason
