from __future__ import annotations

from labeling.samplers.base import Candidate
from labeling.samplers.measure import Measure


def test_probability_and_stratum_travel_with_the_sample() -> None:
    choice = Measure().choose([Candidate(0.9, "measure", 0.02, "high")])[0]
    assert (choice.inclusion_probability, choice.stratum) == (0.02, "high")
    assert choice.why == "drawn at random from stratum high with probability .02"


def test_a_tiny_probability_is_said_as_one_of_many() -> None:
    assert Measure().choose([Candidate(0.9, "measure", 1e-4)])[0].why == "drawn at random, 1 of 10,000"


def test_how_hard_an_image_looks_does_not_change_its_turn() -> None:
    chosen = Measure().choose([Candidate(0.99, "measure", 0.02), Candidate(0.01, "measure", 0.5)])
    assert chosen[0].priority == chosen[1].priority


def test_what_was_drawn_without_a_probability_cannot_measure() -> None:
    assert not Measure().choose([Candidate(0.9, "measure", None), Candidate(0.9, "measure", 0.0)])
