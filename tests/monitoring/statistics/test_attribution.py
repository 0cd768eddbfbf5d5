from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from monitoring.statistics.attribution import Limits, attribute, candidates, kitagawa, shifts
from tests.monitoring.statistics.fleet_of_cells import AXES, COUNTRIES, NAMES, cells, where

LIMITS = Limits(5, (5, 5), 5, 5)


def said(period, axes=AXES, limits=LIMITS):
    return attribute(period, axes, limits).sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (np.ones(12), "everywhere"),
        (where("device", "cam2"), "device cam2 only"),
        (where("country", "se"), "country se only"),
        (np.arange(12) == 4, "country de with device cam2 only"),
        (np.zeros(12), "no country or device stands out, nor does the mix"),
    ],
)
def test_the_set_of_cells_that_shifted_is_named(change, sentence):
    assert said(cells(0.3 * change)) == sentence


def test_a_device_shift_is_given_with_its_size_and_place():
    found = attribute(cells(-0.3 * where("device", "cam3"), coordinates=1), AXES, LIMITS)
    assert (found.kind, found.target) == ("axis", {"device": "cam3"})
    assert found.effect == pytest.approx(-0.3)
    assert found.within == pytest.approx(-0.1)


@pytest.mark.parametrize("common", [0.0, 0.01, 100.0])
def test_a_device_is_told_from_the_others_whatever_all_cells_share(common):
    assert said(cells(2.0 * where("device", "cam1"), common=common)) == "device cam1 only"


def test_a_shift_of_all_cells_within_what_they_share_is_nothing():
    assert attribute(cells(np.full(12, 0.3), common=0.1), AXES, LIMITS).kind == "none"


def test_with_two_devices_the_one_that_left_its_baseline_is_named():
    names = (("cam1",), ("cam2",))
    assert said(cells([0.0, 0.5], names=names), ("device",)) == "device cam2 only"
    assert said(cells([0.5, 0.5], names=names), ("device",)) == "everywhere"


def test_two_devices_of_three_are_both_named():
    changed = where("device", "cam1") * 0.4 + where("device", "cam2") * 0.2
    assert said(cells(changed)) == "device cam1 most of all, device cam2 too"


def test_a_device_whose_shift_differs_a_little_by_country_is_still_only_that_device():
    uneven = 2.0 * where("device", "cam1") * np.linspace(0.9, 1.1, 12)
    assert said(cells(uneven)) == "device cam1 only"


def test_only_is_not_said_where_the_others_shifted_as_well():
    assert (
        said(cells(1.0 + 1.0 * where("device", "cam1"))) == "everywhere, but unevenly: device cam1 most apart"
    )
    assert said(cells(1.0 + 2.0 * where("device", "cam1"))) == "device cam1 most of all, all others too"


def test_without_axes_there_is_one_cell_which_is_everywhere():
    assert said(cells([0.3], names=((),)), ()) == "everywhere"
    assert said(cells([0.0], names=((),)), ()) == "no more than the usual variation"


def test_one_cell_of_two_axes_is_everywhere():
    assert said(cells([0.3], names=(("de", "cam1"),))) == "everywhere"


def test_a_set_that_holds_the_same_cells_as_a_wider_one_is_not_asked_again():
    names = (("de", "cam1"), ("de", "cam2"))
    found = candidates(names, np.array([True, True]), AXES)
    assert [one.target for one in found] == [{}, {"device": "cam1"}, {"device": "cam2"}]


def test_more_images_from_one_country_are_a_change_of_the_mix_only():
    usual = np.full(12, 1000.0)
    period = cells(
        np.zeros(12), weight=np.where(where("country", "se"), 3000, 1000), usual=usual, coordinates=2
    )
    period.mean[:] = period.baseline[:] = np.linspace(-1, 1, 12)[:, None]
    found = attribute(period, AXES, LIMITS)
    assert found.sentence == "only the mix changed: images as before, more of them from country se"
    assert (found.kind, found.target) == ("mix", {"country": "se"})
    assert found.within == 0
    assert found.mix > 0.1


def test_a_country_that_goes_silent_is_fewer_images_from_it():
    period = cells(
        np.zeros(12),
        weight=np.where(where("country", "at"), 0, 1000),
        usual=np.full(12, 1000.0),
    )
    period.mean[:] = period.baseline[:] = np.linspace(-1, 1, 12)[:, None]
    assert said(period).endswith("fewer of them from country at")


def test_a_cell_that_appears_is_more_images_from_it():
    period = cells(
        np.zeros(12), weight=np.full(12, 1000.0), usual=np.where(np.arange(12) == 11, 0, 1000), coordinates=1
    )
    baseline = np.where(np.arange(12) == 11, np.nan, 0.0)[:, None]
    period.mean[11] = 2.0
    period = replace(period, baseline=baseline)
    assert said(period).endswith("more of them from country se with device cam3")


def test_a_mix_that_changes_beside_a_device_is_told_as_well():
    period = cells(np.zeros(12), weight=np.where(where("country", "se"), 3000, 1000), usual=np.full(12, 1e3))
    period.baseline[:] = np.linspace(-1, 1, 12)[:, None]
    period.mean[:] = period.baseline + 0.5 * where("device", "cam1")[:, None]
    assert said(period) == "device cam1 only; besides, more of them from country se than usual"


def test_within_and_mix_add_up_to_the_whole_change():
    rng = np.random.default_rng(1)
    period = cells(
        rng.normal(size=12), weight=rng.uniform(0, 9, 12), usual=rng.uniform(0, 9, 12), coordinates=4
    )
    period.baseline[:] = rng.normal(size=(12, 4))
    split = kitagawa(period)
    now, before = (w / w.sum() for w in (period.weight, period.baseline_weight))
    assert split.within + split.mix == pytest.approx(now @ period.mean - before @ period.baseline)


def test_equal_cells_make_no_mix_however_the_images_move():
    split = kitagawa(cells(np.zeros(12), weight=np.arange(12), usual=np.arange(12)[::-1]))
    assert split.mix == pytest.approx(0, abs=1e-12)


def test_the_shift_is_the_generalised_least_squares_solution():
    rng = np.random.default_rng(2)
    period = cells(rng.normal(size=12), variance=rng.uniform(0.5, 2, (12, 1)), common=0.7)
    sets = candidates(NAMES, period.known, AXES)
    z, effect = shifts(period, sets)
    inverse = np.linalg.inv(np.diag(period.variance[:, 0]) + 0.7)
    for row, one in enumerate(sets):
        member = one.members.astype(float)
        information = member @ inverse @ member
        assert effect[row, 0] == pytest.approx(member @ inverse @ period.change[:, 0] / information)
        assert z[row, 0] == pytest.approx(effect[row, 0] * np.sqrt(information))


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_unit_of_weights_and_variances_does_not_matter(scale):
    shift = 0.3 * np.sqrt(scale) * where("country", "fr")
    period = cells(shift, variance=1e-4 * scale, weight=np.full(12, scale))
    assert said(period) == "country fr only"


def test_a_tiny_cell_beside_a_huge_one_neither_hides_nor_makes_a_finding():
    weight = np.where(np.arange(12) == 0, 1e12, 1.0)
    variance = (1 / weight)[:, None]
    assert said(cells(1e-4 * (np.arange(12) == 0), variance=variance, weight=weight)) in {
        "everywhere",  # that cell is all of the fleet
        "country at with device cam1 only",
    }
    assert attribute(cells(1.0 * (np.arange(12) == 5), variance=variance), AXES, LIMITS).kind == "none"


def test_without_images_or_without_a_past_nothing_is_claimed():
    silent = cells(np.ones(12), weight=np.zeros(12), usual=np.ones(12))
    new = replace(cells(np.ones(12)), baseline=np.full((12, 1), np.nan))
    for period in (silent, new):
        found = attribute(period, AXES, LIMITS)
        assert (found.kind, found.z) == ("none", 0)
        assert found.sentence.startswith("cannot tell")


def test_no_cells_at_all_are_nothing():
    assert attribute(cells([], names=()), AXES, LIMITS).kind == "none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance": np.zeros((12, 1))}, "variance above 0"),
        ({"mean": np.full((12, 1), np.inf)}, "finite"),
        ({"weight": -np.ones(12)}, "negative"),
        ({"baseline": np.zeros((11, 1))}, "shapes"),
    ],
)
def test_impossible_cells_are_refused(change, message):
    good = cells(np.zeros(12))
    with pytest.raises(ValueError, match=message):
        replace(good, **change)


def test_countries_have_no_say_in_the_order_of_the_axes():
    turned = tuple((device, country) for country, device in NAMES)
    period = cells(0.3 * where("country", COUNTRIES[2]), names=turned)
    assert said(period, ("device", "country")) == "country fr only"
