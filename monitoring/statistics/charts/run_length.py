"""How many points pass between two false alarms, and until a shift is seen? Run lengths of charts, and designs. PURE.

ARL: the mean number of points up to and with the signal, from the chart's start (zero state), points independent and
normal with known centre and sigma, shifted by `shift` sigmas. Real series depend on each other and centres are
estimated, so true false alarms are more frequent; design/drift's calibrated alarm is for that.
Sources: Montgomery, ch. 6 and 9; Crowder, Technometrics 29, 1987 (EWMA's integral equation); Page 1954 and Hawkins,
J. Quality Technology 25, 1993 (CUSUM); Champ & Woodall, Technometrics 29, 1987 (run rules). Checked against R's spc.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from monitoring.statistics.charts.chart import SIGMAS
from monitoring.statistics.charts.weighted import Limits

Numbers = NDArray[np.float64]

NODES = 128  # of the integral equations: 1e-9 of the ARL at any design in use
STEADY = 1e-12  # share of EWMA's variance that is still to come when its limits count as steady


def arl_shewhart(width: float = SIGMAS, shift: float = 0.0) -> float:
    """ARL of one point beyond ± width sigmas."""
    return float(1 / (ndtr(-width - shift) + ndtr(shift - width)))


def arl_cusum(k: float, h: float, shift: float = 0.0) -> float:
    """ARL of the two-sided tabular CUSUM, k and h in sigmas; 1 / ARL is the sum over both sides."""
    return 1 / (1 / _arl_one_sided(k, h, shift) + 1 / _arl_one_sided(k, h, -shift))


def arl_ewma(lam: float, width: float, shift: float = 0.0, limits: Limits = "fixed") -> float:
    """ARL of the two-sided EWMA with λ and limits of `width` sigmas of the weighted mean.

    Fixed limits: the integral equation. Time-varying: the density of what has survived is carried point by point
    until the limits are steady; from there each place has its ARL of fixed limits.
    """
    steady = width * np.sqrt(lam / (2 - lam))
    node, weight = _nodes(-steady, steady)
    kernel = _normal((node - (1 - lam) * node[:, None]) / lam - shift) * weight / lam
    remaining: Numbers = np.asarray(np.linalg.solve(np.eye(NODES) - kernel, np.ones(NODES)))
    first = _normal(node / lam - shift) * weight / lam
    if limits == "fixed":
        return float(1 + first @ remaining)
    return _arl_until_steady(lam, width, shift, remaining)


def _arl_until_steady(lam: float, width: float, shift: float, remaining: Numbers) -> float:
    """ARL with time-varying limits; `remaining` (NODES,) is the ARL from each node of the steady interval."""
    last = max(int(np.ceil(np.log(STEADY) / (2 * np.log1p(-lam)))), 1) if lam < 1 else 1
    arl, before, mass = 1.0, np.zeros(1), np.ones(1)
    for i in range(1, last + 1):
        limit = width * np.sqrt(lam / (2 - lam) * (1 - (1 - lam) ** (2 * i)))
        node, weight = _nodes(-limit, limit)
        mass = mass @ _normal((node - (1 - lam) * before[:, None]) / lam - shift) * weight / lam
        before = node
        if i < last:
            arl += float(mass.sum())
    return arl + float(mass @ remaining)


def arl_rules(rules: Collection[int], shift: float = 0.0) -> float:
    """ARL of the Western Electric rules `rules` together, of 1 to 4: a Markov chain over what the rules remember."""
    chain, ends = _chain(frozenset(rules))
    cuts = np.array([-np.inf, -3, -2, -1, 0, 1, 2, 3, np.inf])
    probability = np.diff(ndtr(cuts - shift))
    moves = np.zeros((len(chain), len(chain)))
    for zone in range(8):
        on = ~ends[:, zone]
        np.add.at(moves, (np.flatnonzero(on), chain[on, zone]), probability[zone])
    return float(np.linalg.solve(np.eye(len(chain)) - moves, np.ones(len(chain)))[0])


def cusum_h(k: float, arl0: float) -> float:
    """The h (sigmas) at which the two-sided CUSUM with k has the in-control ARL `arl0`."""
    return _solve(lambda h: arl_cusum(k, h), arl0, 1e-3, 4.0)


def ewma_width(lam: float, arl0: float, limits: Limits = "fixed") -> float:
    """The width of the limits at which the EWMA with λ has the in-control ARL `arl0`."""
    return _solve(lambda width: arl_ewma(lam, width, limits=limits), arl0, 0.5, 3.0)


def _solve(arl: Callable[[float], float], arl0: float, low: float, high: float) -> float:
    """Where the increasing ARL reaches arl0, sought from `low` and first up to `high`."""
    from scipy.optimize import brentq  # takes a while to import: not at every start

    if not arl(low) < arl0 < 1e7:
        raise ValueError(f"an ARL of {arl0:g} is not between {arl(low):.3g} and 1e7")
    while arl(high) < arl0:
        high *= 1.5
    return float(brentq(lambda x: np.log(arl(x) / arl0), low, high, xtol=1e-8))


def _arl_one_sided(k: float, h: float, shift: float) -> float:
    """ARL of the upper CUSUM from 0: L(s) = 1 + L(0)·P(back to 0) + ∫ L(y)·φ(y − s + k − shift) dy over (0, h)."""
    node, weight = _nodes(0, h)
    start = np.concatenate([[0.0], node])
    moves = np.empty((NODES + 1, NODES + 1))
    moves[:, 0] = ndtr(k - shift - start)
    moves[:, 1:] = _normal(node - start[:, None] + k - shift) * weight
    return float(np.linalg.solve(np.eye(NODES + 1) - moves, np.ones(NODES + 1))[0])


def _nodes(low: float, high: float) -> tuple[Numbers, Numbers]:
    """Gauss–Legendre's places and weights on (low, high), each (NODES,)."""
    place, weight = _legendre()
    half = (high - low) / 2
    return low + half * (place + 1), half * weight


@cache
def _legendre() -> tuple[Numbers, Numbers]:
    place, weight = np.polynomial.legendre.leggauss(NODES)
    return np.asarray(place), np.asarray(weight)


def _normal(x: Numbers) -> Numbers:
    density: Numbers = np.exp(-0.5 * x * x) / np.sqrt(2 * np.pi)
    return density


# What the rules remember of the past: whether the last two points were beyond 2 sigmas and the last four beyond 1,
# above and below (newest first), and the length of the present run, negative below the centre.
Flags = tuple[bool, ...]
Memory = tuple[Flags, Flags, Flags, Flags, int]
NOTHING: Memory = ((False,) * 2, (False,) * 2, (False,) * 4, (False,) * 4, 0)


@cache
def _chain(rules: frozenset[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(states, 8 zones) the state that follows, and whether a rule signals instead; found by breadth-first search."""
    if not rules or not rules <= {1, 2, 3, 4}:
        raise ValueError(f"Western Electric has the rules 1 to 4, not {sorted(rules)}")
    numbers, queue = {NOTHING: 0}, [NOTHING]
    follows: list[list[int]] = []
    ends: list[list[bool]] = []
    for memory in queue:  # grows while it is read
        follows.append([])
        ends.append([])
        for zone in range(8):
            signal, after = _step(memory, zone, rules)
            if not signal and after not in numbers:
                numbers[after] = len(queue)
                queue.append(after)
            follows[-1].append(0 if signal else numbers[after])
            ends[-1].append(signal)
    return np.array(follows), np.array(ends)


def _step(memory: Memory, zone: int, rules: frozenset[int]) -> tuple[bool, Memory]:
    """Whether a point in a zone (0: below −3 sigmas, … 7: above 3) completes a rule, and what is remembered then."""
    up2, down2, up1, down1, run = memory
    up, sigmas = zone >= 4, zone - 4 if zone >= 4 else 3 - zone
    run = max(run, 0) + 1 if up else min(run, 0) - 1
    up2, down2 = (up and sigmas >= 2, *up2), (not up and sigmas >= 2, *down2)
    up1, down1 = (up and sigmas >= 1, *up1), (not up and sigmas >= 1, *down1)
    signal = (
        (1 in rules and sigmas == 3)
        or (2 in rules and max(sum(up2), sum(down2)) >= 2)
        or (3 in rules and max(sum(up1), sum(down1)) >= 4)
        or (4 in rules and abs(run) >= 8)
    )
    two, four = 2 if 2 in rules else 0, 4 if 3 in rules else 0  # nothing is kept for a rule that is not asked
    return signal, (up2[:two], down2[:two], up1[:four], down1[:four], run if 4 in rules else 0)
