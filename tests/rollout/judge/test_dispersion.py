from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest

from rollout.judge import EvidenceError, dispersion, mixture, rare_events
from rollout.judge.dispersion import Assignment

BUCKETS = 16


def _seen(rng, mean_clusters, sizes, shares=None):
    """(16,) errors of one interval: Poisson many clusters, each in one bucket; `sizes` draws their sizes."""
    found = np.zeros(BUCKETS)
    clusters = rng.poisson(mean_clusters)
    np.add.at(found, rng.choice(BUCKETS, size=clusters, p=shares), sizes(rng, clusters))
    return found


def _always(size):
    return lambda rng, clusters: np.full(clusters, size)


def _rare_giants(rng, clusters):
    return np.where(rng.random(clusters) < 0.002, 20, 1)


def _history(sizes, mean_clusters, *, seed=5, intervals=360, shares=None, tell_traffic=False):
    """The state after an hour of 10 s intervals."""
    rng, state = np.random.default_rng(seed), dispersion.fresh()
    for _ in range(intervals):
        state = dispersion.absorb(
            state,
            _seen(rng, mean_clusters, sizes, shares).tolist(),
            n=10_000,
            seconds=10.0,
            n_by_bucket=(10_000 * shares).tolist() if tell_traffic else None,
        )
    return state


def _phi(state):
    return dispersion.estimate(state, Assignment.KEY).phi


@pytest.mark.parametrize("errors", [1, 2, 3])
@pytest.mark.parametrize("traffic", [None, [100] * 12 + [10, 20, 400, 0]])
def test_independent_errors_have_an_expected_phi_of_exactly_one_however_few(errors, traffic):
    shares = np.full(BUCKETS, 1 / BUCKETS) if traffic is None else np.array(traffic) / sum(traffic)
    mean = 0.0
    for buckets in itertools.product(np.flatnonzero(shares), repeat=errors):
        counts = np.bincount(buckets, minlength=BUCKETS).tolist()
        state = dispersion.absorb(
            dispersion.fresh(), counts, n=sum(traffic or [1000]), seconds=1.0, n_by_bucket=traffic
        )
        mean += math.prod(shares[list(buckets)]) * state["weighted_phi"] / state["weight"]
    assert mean == pytest.approx(1)


@pytest.mark.parametrize("mean_clusters", [0.3, 1.0, 10.0, 60.0])
@pytest.mark.parametrize(("size", "within"), [(1, 0.1), (5, 0.75), (20, 3.0)])
def test_phi_is_the_clusters_size_however_sparse_the_errors(size, within, mean_clusters):
    assert _phi(_history(_always(size), mean_clusters)) == pytest.approx(size, abs=within)


def test_rare_giants_show_when_there_are_enough_errors_to_hold_some():
    expected = (0.998 + 0.002 * 20**2) / (0.998 + 0.002 * 20)
    phi = np.mean([_phi(_history(_rare_giants, 10.0, seed=seed)) for seed in range(10)])
    assert phi == pytest.approx(expected, rel=0.2)
    assert phi > dispersion.DISPERSED_ABOVE


def test_uneven_traffic_of_keys_is_no_dispersion_where_it_is_known():
    shares = np.array([0.3, 0.2] + [0.5 / 14] * 14)
    assert _phi(_history(_always(1), 30.0, shares=shares, tell_traffic=True)) == pytest.approx(1, abs=0.12)
    assert _phi(_history(_always(1), 30.0, shares=shares)) > 2


def test_an_hour_of_independent_errors_hardly_ever_counts_as_dispersed():
    dispersed = [_phi(_history(_always(1), 10.0, seed=s)) > dispersion.DISPERSED_ABOVE for s in range(40)]
    assert sum(dispersed) == 0


def test_an_outage_of_stable_is_no_cluster():
    state = _history(_always(1), 10.0)
    everything_fails = dispersion.absorb(state, [3_000, *[400] * 15], n=10_000, seconds=10.0)
    assert _phi(everything_fails) == _phi(state)


def test_one_burst_does_not_outweigh_the_hour():
    state = _history(_always(1), 10.0)
    burst = dispersion.absorb(state, [500, *[0] * 15], n=10_000, seconds=10.0)
    assert burst["weight"] - state["weight"] == dispersion.MOST_WEIGHT


@pytest.mark.parametrize(
    ("assignment", "phi", "divisor"),
    [(Assignment.REQUEST, 1.0, 1.0), (Assignment.KEY, 5.0, 6.5), (Assignment.CONNECTION, 5.0, 6.5)],
)
def test_without_buckets_or_an_hour_phi_is_assumed_by_what_the_router_assigns(assignment, phi, divisor):
    uncounted = dispersion.fresh()
    for _ in range(1_000):
        uncounted = dispersion.absorb(uncounted, None, n=1_000, seconds=10.0)
    silent = dispersion.absorb(dispersion.fresh(), [0] * BUCKETS, n=1_000_000, seconds=7_200.0)
    short = _history(_always(1), 10.0, intervals=300)
    for state in (dispersion.fresh(), uncounted, silent, short):
        assert dispersion.estimate(state, assignment) == dispersion.Dispersion(phi, divisor, assumed=True)


@pytest.mark.parametrize("assignment", Assignment)
def test_what_was_measured_is_used_whatever_the_assignment(assignment):
    found = dispersion.estimate(_history(_always(5), 10.0), assignment)
    assert not found.assumed
    assert found.divisor == pytest.approx(1.3 * found.phi)


def test_phi_up_to_the_line_divides_nothing():
    assert dispersion.divisor(0.9, Assignment.KEY) == 1
    assert dispersion.divisor(1.15, Assignment.KEY) == 1
    assert dispersion.divisor(1.2, Assignment.KEY) == pytest.approx(1.56)


@pytest.mark.parametrize("phi", [math.nan, math.inf, -1.0])
def test_a_phi_that_cannot_be_is_refused(phi):
    with pytest.raises(EvidenceError):
        dispersion.divisor(phi, Assignment.KEY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"errors_by_bucket": [1] * 15},
        {"errors_by_bucket": [math.nan] * 16},
        {"errors_by_bucket": [-1, *[1] * 15]},
        {"n": 15},
        {"n": math.nan},
        {"seconds": math.inf},
        {"seconds": -1.0},
        {"n_by_bucket": [10] * 15},
        {"n_by_bucket": [0, *[10] * 15]},
    ],
)
def test_counts_that_cannot_be_are_refused(wrong):
    good = {"errors_by_bucket": [1] * 16, "n": 1_000, "seconds": 10.0, "n_by_bucket": None}
    with pytest.raises(EvidenceError):
        dispersion.absorb(dispersion.fresh(), **{**good, **wrong})


def test_one_key_for_all_traffic_tells_nothing():
    state = dispersion.absorb(
        dispersion.fresh(), [9, *[0] * 15], n=500, seconds=5.0, n_by_bucket=[500, *[0] * 15]
    )
    assert state["errors"] == 0


def test_the_state_survives_json():
    state = _history(_always(5), 10.0, intervals=20)
    again = json.loads(json.dumps(state, allow_nan=False))
    assert dispersion.absorb(again, [1] * 16, n=900, seconds=1.0) == dispersion.absorb(
        state, [1] * 16, n=900, seconds=1.0
    )


def _alarms(divisor, *, runs=40, intervals=150):
    """Runs of an equal canary at 25 % that ever reach e ≥ 100; errors in clusters of 5, each in one arm whole."""
    rng, alarms = np.random.default_rng(9), 0
    for _ in range(runs):
        sums = np.zeros(len(rare_events.RHOS))
        for _ in range(intervals):
            x_c, x_b = 5 * rng.poisson(2.5), 5 * rng.poisson(7.5)
            sums += rare_events.log_e(n_c=2_500, x_c=x_c, n_b=7_500, x_b=x_b) / divisor
            if mixture.log_mean(sums) >= math.log(100):
                alarms += 1
                break
    return alarms


def test_clusters_of_five_roll_back_equal_canaries_unless_the_evidence_is_divided():
    assert _alarms(1.0) >= 8
    assert _alarms(dispersion.divisor(5.0, Assignment.KEY)) == 0
