from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollout.judge import EvidenceError, categories
from tests.rollout.judge.enumeration import outcomes
from tests.rollout.judge.traffic import lognormal, unsure

VECTORS = json.loads((Path(__file__).parents[2] / "vectors/judge_vectors.json").read_text())["vectors"]
#: Likelihood ratios of three categories: none, mild, strong, absurd.
RATIOS = np.array([(1.0, 1.0, 1.0), (0.8, 1.0, 1.4), (0.05, 1.0, 20.0), (1e-9, 1.0, 1e9)])


def _expected(p, p_ref, ratio, n_c, n_b):
    """E e, both arms drawn from p."""
    return sum(
        at_c * at_b * np.exp(categories.log_e(x_c=x_c, x_b=x_b, p_ref=p_ref, ratio=ratio))
        for x_c, at_c in outcomes(n_c, p)
        for x_b, at_b in outcomes(n_b, p)
    )


@pytest.mark.parametrize("vector", [v for v in VECTORS if v["form"] == "C"])
def test_the_published_vectors(vector):
    found = categories.log_e(**{key: vector[key] for key in ("x_c", "x_b", "p_ref", "ratio")})
    assert found == pytest.approx(vector["log_e"], rel=1e-6)


@pytest.mark.parametrize("p", [(0.2, 0.3, 0.5), (1.0, 0.0, 0.0), (0.0, 0.5, 0.5), (0.98, 0.01, 0.01)])
@pytest.mark.parametrize("p_ref", [(0.2, 0.3, 0.5), (1.0, 0.0, 0.0), (1, 50, 3)])
@pytest.mark.parametrize(("n_c", "n_b"), [(1, 1), (1, 5), (4, 4), (5, 2)])
def test_expectation_is_at_most_one_whatever_both_arms_look_like(p, p_ref, n_c, n_b):
    assert np.all(_expected(p, p_ref, RATIOS, n_c, n_b) <= 1 + 1e-9)


def _shares(least):
    return st.lists(st.floats(least, 1.0), min_size=3, max_size=3).filter(lambda values: sum(values) > 0)


@settings(max_examples=60, deadline=None)
@given(_shares(0.0), _shares(0.0), _shares(1e-3), st.integers(1, 4), st.integers(1, 4))
def test_no_reference_and_no_alternative_breaks_validity(p, p_ref, ratio, n_c, n_b):
    assert _expected(np.array(p) / sum(p), p_ref, ratio, n_c, n_b) <= 1 + 1e-9


@pytest.mark.parametrize("ratio", [(0.8, 1.0, 1.4), (0.05, 1.0, 20.0), (1.0, 1.0, 3.0)])
@pytest.mark.parametrize("p_ref", [(1, 2, 3), (0, 2, 3)])
def test_with_a_rising_ratio_expectation_is_at_most_one_for_any_canary_below_stable(p_ref, ratio):
    stable = (0.2, 0.3, 0.5)
    for canary in [(1.0, 0.0, 0.0), (0.2, 0.8, 0.0), (0.4, 0.1, 0.5), (0.5, 0.0, 0.5)]:
        for n_c, n_b in ((1, 1), (2, 5), (4, 3)):
            mean = sum(
                at_c * at_b * np.exp(categories.log_e(x_c=x_c, x_b=x_b, p_ref=p_ref, ratio=ratio))
                for x_c, at_c in outcomes(n_c, canary)
                for x_b, at_b in outcomes(n_b, stable)
            )
            assert mean <= 1 + 1e-9


def test_a_shifted_histogram_is_evidence_and_an_equal_one_is_none():
    p = np.array([0.2, 0.3, 0.5])
    ratio = np.array([0.5, 1.0, 1.2])
    shifted = 1_000 * p * ratio / (p * ratio).sum()
    assert categories.log_e(x_c=shifted, x_b=20_000 * p, p_ref=p, ratio=ratio) > 10
    assert categories.log_e(x_c=1_000 * p, x_b=20_000 * p, p_ref=p, ratio=ratio) < 0


@pytest.mark.parametrize(("x_c", "x_b"), [((0, 0, 0), (5, 9, 1)), ((5, 9, 1), (0, 0, 0))])
def test_an_arm_without_requests_is_no_evidence(x_c, x_b):
    assert not categories.log_e(x_c=x_c, x_b=x_b, p_ref=(1, 1, 1), ratio=RATIOS).any()


@pytest.mark.parametrize(
    "wrong",
    [
        {"x_c": (math.nan, 1, 1)},
        {"x_b": (1, math.inf, 1)},
        {"x_b": (1, -1, 1)},
        {"x_c": (1, 1)},
        {"p_ref": (math.nan, 0.5, 0.5)},
        {"p_ref": (0, 0, 0)},
        {"ratio": (math.inf, 1, 1)},
        {"ratio": (0, 1, 1)},
    ],
)
def test_what_is_no_evidence_is_refused(wrong):
    good = {"x_c": (1, 1, 1), "x_b": (1, 1, 1), "p_ref": (1, 1, 1), "ratio": (1, 1, 1)}
    with pytest.raises(EvidenceError):
        categories.log_e(**{**good, **wrong})


def test_a_reference_without_a_past_is_even_and_no_bin_is_impossible():
    assert categories.reference(np.zeros(4)) == pytest.approx([0.25] * 4)
    seen = categories.reference(np.array([0.0, 900.0, 100.0]))
    assert seen.sum() == pytest.approx(1)
    assert 0 < seen[0] < 0.001


def _alternatives(p_ref, ratios):
    moved = np.clip(p_ref, 1e-6, 1) * ratios
    return moved / moved.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("p_ref", [lognormal(0.005), lognormal(0.08, 1.0), np.eye(96)[40], np.eye(96)[95]])
def test_latency_templates_are_slower_and_their_ratios_only_rise(p_ref):
    ratios = categories.latency_ratios(p_ref)
    assert ratios.shape == (len(categories.LATENCY_SCALES) + len(categories.TAIL_SCALES), 96)
    assert np.all(np.diff(ratios, axis=1) >= -1e-9 * ratios[:, 1:])
    below = np.cumsum(_alternatives(p_ref, ratios), axis=1)
    assert np.all(below <= np.cumsum(p_ref / p_ref.sum()) + 1e-3)


def test_a_latency_template_moves_the_histogram_by_its_scale():
    moved = _alternatives(lognormal(0.005), categories.latency_ratios(lognormal(0.005)))
    for scale, template in zip(categories.LATENCY_SCALES[:4], moved, strict=False):
        wanted = (1 - categories.UNMOVED) * lognormal(0.005 * (1 + scale))
        wanted += categories.UNMOVED * lognormal(0.005)
        assert np.abs(np.cumsum(template - wanted)).max() < 0.02


def test_tail_templates_leave_what_is_below_p95():
    p_ref = lognormal(0.005)
    body = np.cumsum(p_ref) < categories.TAIL_FROM
    tails = categories.latency_ratios(p_ref)[len(categories.LATENCY_SCALES) :]
    assert np.ptp(tails[:, body], axis=1) == pytest.approx([0] * len(tails))
    assert tails[:, body] == pytest.approx(1, abs=0.05)
    assert np.all(tails[:, -10:].max(axis=1) > 1)


def _uneven():
    """Confidences that are either very low or high: few lie just below .6."""
    bins = np.concatenate([np.full(30, 0.2 / 30), np.full(30, 0.01 / 30), np.full(40, 0.79 / 40)])
    return bins / bins.sum()


@pytest.mark.parametrize("p_ref", [unsure(0.10), _uneven(), _uneven()[::-1]])
def test_confidence_templates_are_less_sure_and_the_other_side_is_for_variants(p_ref):
    one, two = (categories.confidence_ratios(p_ref, two_sided=both) for both in (False, True))
    middle = np.arange(100) + 0.5
    mean = p_ref @ middle
    assert np.all(np.diff(one, axis=1) <= 1e-9 * one[:, :-1])
    assert np.all(_alternatives(p_ref, one) @ middle < mean)
    assert np.array_equal(two[: len(one)], one)
    assert np.all(_alternatives(p_ref, two[len(one) :]) @ middle > mean)


@pytest.mark.parametrize("p_ref", [np.eye(100)[99], np.eye(100)[0], np.full(100, 0.01)])
def test_confidence_templates_of_degenerate_histograms_are_finite(p_ref):
    ratios = categories.confidence_ratios(p_ref, two_sided=True)
    assert np.isfinite(ratios).all()
    assert np.all(ratios > 0)


def test_the_plug_in_starts_as_stable_and_becomes_the_canary():
    p_ref, canary = np.array([0.2, 0.3, 0.5]), np.array([0.5, 0.3, 0.2])
    assert categories.plug_in_ratio(np.zeros(3), p_ref) == pytest.approx([1, 1, 1])
    learned = _alternatives(p_ref, categories.plug_in_ratio(1e6 * canary, p_ref)[None])[0]
    assert learned == pytest.approx(canary, abs=1e-3)


def test_the_mixture_weighs_the_kinds_as_designed():
    assert categories.log_mixture([0.0, 0.0], [0.0], 0.0) == pytest.approx(0)
    assert categories.log_mixture([9.0, -99.0], [-99.0], -99.0) == pytest.approx(9 + math.log(0.25))
    assert categories.log_mixture([-99.0], [9.0], -99.0) == pytest.approx(9 + math.log(0.35))
    assert categories.log_mixture([-99.0], [], 9.0) == pytest.approx(9 + math.log(0.15 / 0.65))
    assert categories.log_mixture([], [], []) == 0


def _requests_until_found(canary, stable, ratios_of, *, seed, batch=50):
    """Canary requests at 5 % until e ≥ 100, templates and plug-in without thresholds; stable's past is known."""
    rng = np.random.default_rng(seed)
    past, mine = 20_000 * stable, np.zeros(stable.size)
    ratios = ratios_of(categories.reference(past))
    sums, own = np.zeros(len(ratios)), 0.0
    for requests in range(batch, 20_000, batch):
        x_c, x_b = rng.multinomial(batch, canary), rng.multinomial(19 * batch, stable)
        p_ref = categories.reference(past)
        sums += categories.log_e(x_c=x_c, x_b=x_b, p_ref=p_ref, ratio=ratios_of(p_ref))
        own += categories.log_e(x_c=x_c, x_b=x_b, p_ref=p_ref, ratio=categories.plug_in_ratio(mine, p_ref))
        past, mine = past + x_b, mine + x_c
        if categories.log_mixture(sums, [], own) >= math.log(100):
            return requests
    return math.inf


def _tilted(p, ks):
    """p moved down so that the distance of the cumulative shares is `ks`."""
    moved = p.copy()
    moved[60:] -= ks * p[60:] / p[60:].sum()
    moved[30:60] += ks / 30
    return moved


def _slower_tail(p):
    """A lognormal whose slowest 5 % take 25 % longer."""
    ratios = categories.latency_ratios(p)[len(categories.LATENCY_SCALES)]
    moved = p * (ratios - categories.UNMOVED) / (1 - categories.UNMOVED)
    return moved / moved.sum()


@pytest.mark.parametrize(
    ("canary", "stable", "ratios_of", "most"),
    [
        (lognormal(0.0200), lognormal(0.005), categories.latency_ratios, 50),
        (lognormal(0.0055), lognormal(0.005), categories.latency_ratios, 700),
        (_slower_tail(lognormal(0.005)), lognormal(0.005), categories.latency_ratios, 1_200),
        (_tilted(unsure(0.10), 0.05), unsure(0.10), categories.confidence_ratios, 1_000),
    ],
    ids=["latency ×4", "latency +10 %", "tail +25 %", "confidence KS .05"],
)
def test_the_strict_form_finds_small_shifts_in_the_requests_that_the_design_allows(
    canary, stable, ratios_of, most
):
    needed = [_requests_until_found(canary, stable, ratios_of, seed=seed) for seed in range(15)]
    assert np.median(needed) <= most


def test_the_plug_in_finds_what_no_template_foresees():
    narrower = [
        _requests_until_found(lognormal(0.005, 0.2), lognormal(0.005), categories.latency_ratios, seed=seed)
        for seed in range(7)
    ]
    assert np.median(narrower) <= 1_000


@pytest.mark.parametrize("faster", [0.0045, 0.0025])
def test_a_faster_canary_never_gathers_evidence(faster):
    p_ref = lognormal(0.005)
    found = categories.log_e(
        x_c=1_000 * lognormal(faster),
        x_b=19_000 * p_ref,
        p_ref=p_ref,
        ratio=categories.latency_ratios(p_ref),
    )
    assert np.all(found < 0)
