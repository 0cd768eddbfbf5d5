from __future__ import annotations

import pytest

from labeling.samplers.band import Band
from labeling.samplers.base import Candidate, Choice


def _choice(band: Band, candidate: Candidate) -> Choice | None:
    return band.choose([candidate]).get(0)


@pytest.mark.parametrize(
    ("confidence", "taken"), [(0.29, False), (0.3, True), (0.6, True), (0.601, False), (None, False)]
)
def test_the_band_includes_both_ends(confidence: float | None, taken: bool) -> None:
    assert (_choice(Band(), Candidate(confidence)) is not None) == taken


def test_the_reason_is_in_words() -> None:
    choice = _choice(Band(), Candidate(0.47))
    assert choice is not None
    assert choice.why == "confidence .47 is between .30 and .60"


def test_the_least_confident_come_first() -> None:
    chosen = Band().choose([Candidate(0.35), Candidate(0.55)])
    assert chosen[0].priority > chosen[1].priority


def test_a_collectors_own_band_is_trusted() -> None:
    choice = _choice(Band(), Candidate(0.25, drawn_by="band"))
    assert choice is not None
    assert choice.why == "the collector's band took confidence .25"
