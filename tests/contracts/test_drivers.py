"""What every traffic driver promises: add a driver to its table, give it a rig here, and these tests judge it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rollout import drivers
from rollout.drivers import DRIVERS
from rollout.drivers.base import (
    Bundle,
    CountsRequests,
    DriverError,
    Mirrors,
    RouterCounts,
    RouteSpec,
)
from tests.contracts import kube_rigs
from tests.contracts.driver_rigs import MODEL, EnvoyRig, MemoryRig, RestRig, Rig, asking_envoy
from tests.rollout.gateway import eventually
from tests.rollout.model_server import two_servers


@pytest.fixture(
    params=[
        pytest.param("envoy", marks=pytest.mark.fleet),
        pytest.param("envoy-rest", marks=[pytest.mark.fleet, pytest.mark.django_db(transaction=True)]),
        pytest.param("gateway_api", marks=pytest.mark.system),
        pytest.param("kserve", marks=pytest.mark.system),
        "memory",
    ]
)
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    if request.param in kube_rigs.FLEETS:
        yield kube_rigs.KubeRig(request.param, request.getfixturevalue("kube").namespace())
        return
    if request.param == "envoy-rest":
        with two_servers(tmp_path) as servers, asking_envoy(tmp_path) as edge:
            yield RestRig(edge, MODEL, servers, MODEL)
        return
    gateway = request.getfixturevalue("gateway")
    with two_servers(tmp_path) as servers:
        yield EnvoyRig(gateway, servers, f"{MODEL}-{tmp_path.name}".lower().replace("[", "-").strip("]"))


@pytest.fixture
def bundle(rig: Rig, tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text('backend: "python"\n')
    (folder / "1" / "model.onnx").write_bytes(b"weights")
    return Bundle(rig.model, "v1", "1" * 64, lambda: folder)


def route(rig: Rig) -> RouteSpec:
    return RouteSpec(rig.model, "a")


def loaded(rig: Rig, bundle: Bundle, slot: str) -> None:
    """The slot is told to load the version, and does."""
    rig.driver.prepare(bundle, slot)
    rig.act()
    eventually(lambda: rig.driver.ready(bundle, slot))


def weighted(rig: Rig, bundle: Bundle, percent: float) -> None:
    """Both slots serve the bundle, and the weight is observed."""
    for slot in ("a", "b"):
        loaded(rig, bundle, slot)
    rig.driver.set_weight(route(rig), percent)
    assert rig.settled(route(rig), percent)


def counts(rig: Rig) -> RouterCounts:
    if not isinstance(rig.driver, CountsRequests):
        pytest.skip("its router counts no requests")
    return rig.driver.router_counts(route(rig))


def test_every_driver_of_the_table_is_judged_here() -> None:
    assert set(DRIVERS) == {"envoy", "memory", *kube_rigs.FLEETS}


# Versions in slots


def test_a_slot_is_ready_for_exactly_the_version_that_it_loaded(rig: Rig, bundle: Bundle) -> None:
    assert not rig.driver.ready(bundle, "b")
    loaded(rig, bundle, "b")
    assert not rig.driver.ready(bundle, "a")
    assert not rig.driver.ready(replace(bundle, version="v2"), "b")
    assert not rig.driver.ready(replace(bundle, digest="2" * 64), "b")


def test_a_slot_takes_another_version(rig: Rig, bundle: Bundle) -> None:
    newer = replace(bundle, version="v2", digest="2" * 64)
    loaded(rig, bundle, "b")
    loaded(rig, newer, "b")
    assert not rig.driver.ready(bundle, "b")


def test_preparing_and_releasing_again_changes_nothing(rig: Rig, bundle: Bundle) -> None:
    for _ in range(2):
        loaded(rig, bundle, "b")
    for _ in range(2):
        rig.driver.release(rig.model, "b")
    assert not rig.driver.ready(bundle, "b")


def test_releasing_one_slot_leaves_the_other_alone(rig: Rig, bundle: Bundle) -> None:
    for slot in ("a", "b"):
        loaded(rig, bundle, slot)
    rig.driver.release(rig.model, "b")
    rig.act()
    eventually(lambda: rig.driver.ready(bundle, "a"))


# Weights


def test_the_weight_of_a_route_that_was_never_set_is_unknown(rig: Rig) -> None:
    assert rig.driver.observed_weight(route(rig)) is None


@pytest.mark.parametrize("percent", [0, 5, 50, 100])
def test_a_weight_that_was_set_is_observed(rig: Rig, bundle: Bundle, percent: float) -> None:
    weighted(rig, bundle, percent)
    rig.driver.set_weight(route(rig), percent)
    assert rig.settled(route(rig), percent)


@pytest.mark.parametrize("percent", [0.01, 33.33, 99.99])
def test_a_fraction_of_a_percent_is_observed_or_refused_but_never_rounded(
    rig: Rig, bundle: Bundle, percent: float
) -> None:
    weighted(rig, bundle, 5)
    if rig.takes_fractions:
        rig.driver.set_weight(route(rig), percent)
        assert rig.settled(route(rig), percent)
        return
    with pytest.raises(DriverError) as refused:
        rig.driver.set_weight(route(rig), percent)
    assert not refused.value.retry
    assert rig.settled(route(rig), 5)


@pytest.mark.parametrize("percent", [-0.01, 100.01, math.nan, math.inf])
def test_a_weight_outside_0_to_100_is_refused_and_the_old_one_stays(
    rig: Rig, bundle: Bundle, percent: float
) -> None:
    weighted(rig, bundle, 5)
    with pytest.raises(DriverError) as refused:
        rig.driver.set_weight(route(rig), percent)
    assert not refused.value.retry
    assert rig.settled(route(rig), 5)


def test_a_promotion_swaps_roles_and_moves_no_traffic(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 100)
    swapped = RouteSpec(rig.model, "b")
    assert rig.driver.observed_weight(swapped) == 0
    rig.driver.set_weight(swapped, 0)
    assert rig.settled(swapped, 0)
    assert rig.driver.observed_weight(route(rig)) == 100


# Mirrors


def mirror(rig: Rig) -> Mirrors:
    if not isinstance(rig.driver, Mirrors):
        pytest.skip("its router mirrors nothing")
    return rig.driver


def is_mirrored(rig: Rig, route: RouteSpec, percent: float) -> bool:
    """Whether the fleet copies so much, after the little time that it may take."""
    rig.act()
    eventually(lambda: mirror(rig).observed_mirror(route) == pytest.approx(percent))
    return True


def test_the_mirror_of_a_route_that_was_never_set_is_unknown_and_cannot_be_set(rig: Rig) -> None:
    assert mirror(rig).observed_mirror(route(rig)) is None
    with pytest.raises(DriverError):
        mirror(rig).set_mirror(route(rig), 5)


@pytest.mark.parametrize("percent", [0.01, 10, 100])
def test_a_mirror_that_was_set_is_observed_and_ends(rig: Rig, bundle: Bundle, percent: float) -> None:
    mirror(rig)
    weighted(rig, bundle, 0)
    assert is_mirrored(rig, route(rig), 0)
    for share in (percent, percent, 0):
        mirror(rig).set_mirror(route(rig), share)
        assert is_mirrored(rig, route(rig), share)


@pytest.mark.parametrize("percent", [-0.01, 100.01, math.nan])
def test_a_mirrored_share_outside_0_to_100_is_refused(rig: Rig, bundle: Bundle, percent: float) -> None:
    mirror(rig)
    weighted(rig, bundle, 0)
    with pytest.raises(DriverError) as refused:
        mirror(rig).set_mirror(route(rig), percent)
    assert not refused.value.retry


def test_weight_and_mirror_leave_each_other_alone(rig: Rig, bundle: Bundle) -> None:
    mirror(rig)
    weighted(rig, bundle, 0)
    mirror(rig).set_mirror(route(rig), 20)
    rig.driver.set_weight(route(rig), 5)
    assert rig.settled(route(rig), 5)
    assert is_mirrored(rig, route(rig), 20)
    mirror(rig).set_mirror(route(rig), 0)
    assert rig.settled(route(rig), 5)


def test_a_mirror_ends_when_the_roles_swap(rig: Rig, bundle: Bundle) -> None:
    mirror(rig)
    weighted(rig, bundle, 100)
    mirror(rig).set_mirror(route(rig), 20)
    swapped = RouteSpec(rig.model, "b")
    rig.driver.set_weight(swapped, 0)
    assert rig.settled(swapped, 0)
    for roles in (route(rig), swapped):
        assert is_mirrored(rig, roles, 0)


# Counts


def test_counts_only_rise_and_say_how_many_first_attempts_failed(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 50)
    counts(rig)
    rig.send(100)
    before = counts(rig)
    assert before.canary.assigned + before.stable.assigned == 100
    assert (before.canary.failed, before.stable.failed) == (0, 0)
    rig.send(100, failing=True)
    after = counts(rig)
    new = after.canary.assigned - before.canary.assigned
    assert new > 0
    assert (after.canary.failed, after.stable.failed) == (new, 0)
    assert after.stable.assigned == 200 - after.canary.assigned
    assert after.at > before.at > before.began


def test_counts_belong_to_slots_and_roles_only_name_them(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 100)
    counts(rig)
    rig.send(20)
    assert isinstance(rig.driver, CountsRequests)
    swapped = rig.driver.router_counts(RouteSpec(rig.model, "b"))
    assert (swapped.stable.assigned, swapped.canary.assigned) == (20, 0)


# Errors


def test_a_fleet_that_is_away_is_a_driver_error_and_nothing_else(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 5)
    lost = rig.lost()
    calls = [
        lambda: lost.prepare(bundle, "b"),
        lambda: lost.set_weight(route(rig), 50),
        lambda: lost.observed_weight(route(rig)),
        lambda: lost.release(rig.model, "b"),
        lost.check,
    ]
    if isinstance(lost, CountsRequests):
        calls.append(lambda: lost.router_counts(route(rig)))
    if isinstance(lost, Mirrors):
        calls += [lambda: lost.set_mirror(route(rig), 5), lambda: lost.observed_mirror(route(rig))]
    if isinstance(rig, RestRig):
        calls = [calls[0], *calls[2:-2], calls[-1]]  # a wish is kept until an Envoy asks
    for call in calls:
        with pytest.raises(DriverError) as away:
            call()
        assert away.value.retry
        assert str(away.value)


def test_a_server_that_is_away_is_not_ready(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 5)
    lost = rig.lost()
    with contextlib.suppress(DriverError):
        assert not lost.ready(bundle, "b")


def test_check_reads_only(rig: Rig, bundle: Bundle) -> None:
    weighted(rig, bundle, 5)
    assert rig.driver.check()
    assert rig.settled(route(rig), 5)


@pytest.mark.parametrize("name", sorted(DRIVERS))
def test_a_config_field_that_is_unknown_or_wrong_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"^colour: "):
        drivers.make(name, {"colour": "red"})


def test_an_unknown_driver_is_refused_and_the_known_ones_are_told() -> None:
    with pytest.raises(LookupError, match="envoy, gateway_api, kserve, memory"):
        drivers.make("pigeon", {})
