from __future__ import annotations

import numpy as np
import pytest

from monitoring.statistics.charts import kinds
from monitoring.statistics.charts.kinds import KINDS, KINDS_OF, Settings

RNG = np.random.default_rng(1)
N = np.full(200, 1000.0)
EVENTS = RNG.binomial(1000, 0.1, 200).astype(float)
NAN = float("nan")


def drawn(kind, amount=EVENTS, n=N, left_out=None, **settings):
    given = Settings(**settings)
    return kinds.lines(kind, amount, n, given, kinds.estimate(kind, amount, n, given), left_out)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_quiet_about_a_series_in_control(kind):
    found = drawn(kind, rules="none")
    assert len(found.value) == (40 if kind in kinds.GROUPED else 200)
    assert found.outside.sum() <= 4
    assert (found.lower <= found.center).all()


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - kinds.SKEWED))
def test_every_kind_of_level_signals_a_jump_against_the_estimate_of_before(kind):
    settings = Settings()
    found = kinds.estimate(kind, EVENTS, N, settings)
    assert kinds.lines(kind, EVENTS + 60, N, settings, found).outside.any()


@pytest.mark.parametrize("kind", ["moving_range", "r", "s"])
def test_every_kind_of_spread_signals_a_wider_series(kind):
    settings = Settings()
    found = kinds.estimate(kind, EVENTS, N, settings)
    wider = 100 + 6 * (EVENTS - 100)
    assert kinds.lines(kind, wider, N, settings, found).outside.any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_gap_stays_a_gap(kind):
    amount, n = EVENTS.copy(), N.copy()
    amount[10] = n[10] = NAN
    found = drawn(kind, amount, n)
    place = 2 if kind in kinds.GROUPED else 10
    assert np.isnan(found.value[place])
    assert found.rules[place] == ()
    assert np.isfinite(found.value[place + 5])


def test_a_point_that_is_left_out_signals_nothing_and_a_run_goes_on_across_it():
    amount = np.array([100.0] * 20 + [104] * 4 + [900] + [104] * 4)
    n = np.full(29, 1000.0)
    left_out = np.arange(29) == 24
    found = kinds.lines("p", amount, n, Settings(), kinds.Estimate(0.1, 0.3, 20), left_out)
    assert found.rules[24] == ()
    assert not found.outside[24]
    assert found.rules[28] == (4,)


def test_np_keeps_the_share_when_n_changes():
    found = kinds.estimate("np", EVENTS, N, Settings())
    assert found.center == pytest.approx(EVENTS.sum() / N.sum())
    assert kinds.lines("np", EVENTS[:3], N[:3] / 2, Settings(), found).center[0] == pytest.approx(
        500 * found.center
    )


def test_a_known_share_is_the_centre_and_the_points_give_the_stretch():
    found = kinds.estimate("laney_p", EVENTS, N, Settings(), center=0.2)
    assert found.center == 0.2
    assert found.spread == pytest.approx(0.75, abs=0.2)  # z around .2 move as little as binomial ones of .1


def test_what_is_left_over_of_groups_waits():
    assert len(drawn("xbar", EVENTS[:13], N[:13]).value) == 2


def test_the_lower_cusum_is_drawn_below_zero():
    found = drawn("cusum", EVENTS)
    assert (found.below <= 0).all()
    assert found.upper[0] == -found.lower[0]


def test_a_series_without_spread_is_drawn():
    flat = np.full(30, 0.1)  # whose mean is not quite .1
    for kind in KINDS_OF["value"]:
        assert not drawn(kind, flat, np.ones(30)).outside.any(), kind


@pytest.mark.parametrize("kind", KINDS)
def test_no_point_at_all_gives_no_estimate(kind):
    nothing = np.full(10, NAN)
    with pytest.raises(ValueError):
        kinds.estimate(kind, nothing, nothing, Settings())


@pytest.mark.parametrize(
    "wrong",
    [
        {"rules": "some"},
        {"group": 1},
        {"group": 26},
        {"lam": 0},
        {"lam": NAN},
        {"width": NAN},
        {"limits": "x"},
        {"k": -1},
        {"h": 0},
    ],
)
def test_settings_that_draw_nothing_are_refused_by_name(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


def test_the_defaults_of_ewma_and_cusum_fire_once_in_30_days_of_hours():
    assert kinds.arl("ewma", Settings()) == pytest.approx(720, rel=0.01)
    assert kinds.arl("cusum", Settings()) == pytest.approx(720, rel=0.01)


def test_how_often_chance_fires_is_said_where_it_is_known():
    assert kinds.arl("p", Settings()) == pytest.approx(91.75, rel=0.01)
    assert kinds.arl("p", Settings(rules="none")) == pytest.approx(370.4, rel=0.01)
    assert kinds.arl("r", Settings()) == pytest.approx(370.4, rel=0.01)
    assert kinds.arl("p", Settings(rules="nelson")) is None


def test_nelsons_rules_are_applied_when_asked():
    amount = np.array([100.0] * 5 + [101.0, 102, 103, 104, 105, 106])
    found = kinds.lines(
        "p", amount, np.full(11, 1000.0), Settings(rules="nelson"), kinds.Estimate(0.1, 0.3, 5)
    )
    assert 3 in found.rules[10]


def test_a_chart_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="pareto"):
        kinds.estimate("pareto", EVENTS, N, Settings())


def test_charts_that_run_rules_do_not_suit_have_their_limits_only():
    for kind in ("ewma", "cusum", "r", "moving_range"):
        assert list(kinds.words_of(kind, Settings())) == [1]
    assert list(kinds.words_of("laney_p", Settings())) == [1, 2, 3, 4]
