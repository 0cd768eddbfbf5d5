"""Have the canary's embeddings moved further from their own reference than stable's have from theirs?

A version's embeddings can be compared only with its own reference, so each arm has a distance of its own: at a row j
of the projection and a reference quantile, how much larger or smaller the share of live values below it is than the
reference's. The null is *canary's distance ≤ stable's + δ*. A shift of the inputs moves both arms and FAILs nobody,
and a canary that is nearer to its reference than stable to its own never FAILs.

With d_c, d_b the signed distances p − t, a canary that is too high by d_c violates the null only if d_c > d_b + δ
*and* d_c > −d_b + δ: the null is a union of two half-planes in (p_c, p_b), and the lesser of both e-values is an
e-value for it. The lesser is taken interval by interval, because drift may change which of the two holds.
With different references rows do not correspond: stable's distance is then the largest over all of its rows,
quantiles and directions, and the least e-value over these is taken. Both arms bet with a stake that all of these
share, so that the canary's factor is computed once and the least stable factor is sought alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rollout.gates.base import Arm, Interval, State
from rollout.gates.comparison import Array, ComparisonGate, Counted, nothing
from rollout.judge import past
from rollout.judge.counts import EvidenceError

ROWS = 33  # the first 32 components, and the norm of what the projection leaves out
QUANTILES = np.array([0.1, 0.25, 0.5, 0.75, 0.9])
UNITS = ROWS * len(QUANTILES)
#: Rollback's alternatives: how far beyond the tolerated distance the canary is.
EXCESS = np.array([0.04, 0.2])
PRIOR_IMAGES = 20.0  # at no distance, in stable's past
LEAST_PAST = 50.0  # stable images before which its distance would be a guess
_LARGEST_STAKE = 0.999  # keeps every factor positive
_IMPOSSIBLE = 10.0  # log e against a distance that no share can have: that null is empty, any number is valid
_DECIMALS = 6  # of stored sums: rounded down, so that less is claimed and the state stays small

#: (UNITS, 2, 1) shares below and above the quantiles.
_NOMINAL = np.stack([np.tile(QUANTILES, ROWS), np.tile(1 - QUANTILES, ROWS)], axis=1)[..., None]

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class _Side:
    """One arm in both directions: [:, 0] shares below the quantiles, [:, 1] shares above them."""

    n: float
    events: Array  # (UNITS, 2)
    reference: Array  # (UNITS, 2) the reference's shares
    exists: Bools  # (UNITS, 1)

    @classmethod
    def of(cls, packed: Array) -> _Side:
        """From `EmbeddingShiftGate.seen`."""
        n = float(packed[-1])
        below, expected = packed[:UNITS], packed[UNITS:-1] / max(n, 1.0)
        rows = expected.reshape(ROWS, -1).any(axis=1)
        return cls(
            n,
            np.stack([below, n - below], axis=1),
            np.stack([expected, 1 - expected], axis=1),
            rows.repeat(len(QUANTILES))[:, None],
        )


class EmbeddingShiftGate(ComparisonGate):
    """Every row, quantile and direction is a process of its own; they are mixed last."""

    name: ClassVar[str] = "embedding_shift"
    source: ClassVar[str] = "collector"
    needs: ClassVar[tuple[str, ...]] = ("embedding", "reference")
    needs_reference: ClassVar[bool] = True
    default_weight: ClassVar[float] = 0.15
    defaults: ClassVar[dict[str, Any]] = {
        "delta": 0.05,
        "margin_points": {"1": 20.0, "5": 15.0, "25": 10.0, "50": 7.5},
    }
    fail_alternatives: ClassVar[int] = UNITS * 2 * len(EXCESS)
    fail_events: ClassVar[int] = UNITS
    pass_alternatives: ClassVar[int] = UNITS * 2
    pass_kinds: ClassVar[int] = UNITS * 2
    pass_events: ClassVar[int] = UNITS
    past_size: ClassVar[int] = UNITS + 1
    past_seconds: ClassVar[float] = 120.0

    def fresh(self, settings: Mapping[str, Any]) -> State:
        """The state before any evidence. Raises ValueError("<key>: …") for a bad setting."""
        return {**super().fresh(settings), "same_reference": True}

    def absorb(self, state: State, interval: Interval) -> State:
        """Add one interval's evidence. Raises EvidenceError."""
        same = interval.canary.reference_digest == interval.stable.reference_digest
        new = super().absorb({**state, "same_reference": same}, interval)
        if not (_images(interval.canary) and _images(interval.stable)):
            return new
        new["fail"] = {**new["fail"], "log_mass": _rounded_down(new["fail"]["log_mass"])}
        new["past"] = {**new["past"], "counts": [round(value, 3) for value in new["past"]["counts"]]}
        return {**new, "pass": _rounded_down(new["pass"])}

    def seen(self, interval: Interval) -> tuple[Array, Array]:
        """(2·UNITS + 1,) of either arm: images below each quantile, as many as its reference expects there, all."""
        return _packed("canary", interval.canary), _packed("stable", interval.stable)

    def remember(self, state: State, stable: Array) -> Array:
        """(UNITS + 1,) by how many images stable was above its reference, and all its images."""
        return np.append(stable[:UNITS] - stable[UNITS:-1], stable[-1])

    def weigh_harm(self, state: State, canary: Array, stable: Array) -> Counted:
        """A bet that the canary's distance is beyond stable's, against the likeliest way to be within the null."""
        c, b = _Side.of(canary), _Side.of(stable)
        drift = _drift(state)
        if drift is None or c.n == 0 or b.n == 0:
            return nothing(self.fail_events, self.fail_alternatives)
        delta = state["settings"]["delta"]
        weigh = _own_rows if state["same_reference"] else _any_rows
        return _counted(canary, stable, weigh(c, b, drift, delta).ravel())

    def weigh_parity(self, state: State, canary: Array, stable: Array) -> Counted:
        """A bet that the canary is as far as stable, against a distance that is larger by the step's margin.

        The null says so of every distance of stable's, so any one of them may be chosen from the past: the own row's
        in the direction in which stable is off, or, with another reference, stable's largest.
        """
        c, b = _Side.of(canary), _Side.of(stable)
        drift = _drift(state)
        if drift is None or c.n == 0 or b.n == 0:
            return nothing(self.pass_events, self.pass_alternatives)
        margin = self.margin_points(state) / 100
        units = np.arange(UNITS) if state["same_reference"] else np.full(UNITS, int(np.abs(drift).argmax()))
        ahead = 2 * units + (drift[units] < 0)
        return _counted(canary, stable, _parity(c, b, ahead, np.abs(drift[units]), margin).ravel())

    def excess_points(self, tally: State, kind: int) -> float | None:
        """The canary's distance minus stable's, in percentage points of a share; None without images in both arms."""
        if not tally["n_c"] or not tally["n_b"]:
            return None
        canary, stable = _distances(tally)
        return float(100 * (canary.max() - stable.max()))

    def tolerated_points(self, state: State, tally: State, kind: int) -> float:
        """δ in points."""
        return float(100 * state["settings"]["delta"])

    def sentence(self, state: State, tally: State, *, failing: bool) -> str:
        """ "canary .213 from its reference (component 3, 25 % quantile; 1,140 images), stable .018 (21,500)"."""
        canary, stable = _distances(tally)
        unit = self.worst(state) if failing else int(canary.argmax())
        row, quantile = divmod(unit, len(QUANTILES))
        where = f"component {row + 1}" if row < ROWS - 1 else "what the components leave out"
        there = stable[unit] if state["same_reference"] else stable.max()
        return (
            f"canary {_share(canary[unit])} from its reference ({where}, {100 * QUANTILES[quantile]:g} % quantile; "
            f"{tally['n_c']:,} images), stable {_share(there)} from its own ({tally['n_b']:,})"
        )


def _packed(arm_name: str, arm: Arm) -> Array:
    """(2·UNITS + 1,): see EmbeddingShiftGate.seen. Raises EvidenceError for counts that cannot be."""
    if arm.embedding is None or arm.reference is None:
        return np.zeros(2 * UNITS + 1)
    live, frozen = np.asarray(arm.embedding, dtype=float), np.asarray(arm.reference, dtype=float)
    if live.ndim != 2 or live.shape != frozen.shape or not (np.isfinite(live).all() and (live >= 0).all()):
        raise EvidenceError(f"{arm_name}: embedding counts {live.shape} in a reference's bins {frozen.shape}")
    sums, whole = live.sum(axis=1), frozen.sum(axis=1)
    if (sums != sums[0]).any() or (whole <= 0).any():
        raise EvidenceError(
            f"{arm_name}: rows of embedding counts with different sums, or an empty reference"
        )
    rows = np.arange(len(live)) if len(live) <= ROWS else np.append(np.arange(ROWS - 1), len(live) - 1)
    shares = np.cumsum(frozen[rows], axis=1)[:, :-1] / whole[rows, None]
    nearest = np.abs(shares[:, None, :] - QUANTILES[:, None]).argmin(axis=2)
    below = np.take_along_axis(np.cumsum(live[rows], axis=1), nearest, axis=1)
    expected = sums[0] * np.take_along_axis(shares, nearest, axis=1)
    out = np.zeros((2, ROWS, len(QUANTILES)))
    places = [*range(len(rows) - 1), ROWS - 1]  # the norm of the rest is always the last row
    out[0, places], out[1, places] = below, expected
    return np.append(out.ravel(), sums[0])


def _images(arm: Arm) -> int:
    return sum(arm.embedding[0]) if arm.embedding else 0


def _rounded_down(sums: Sequence[float]) -> list[float]:
    scale = 10**_DECIMALS
    return [math.floor(value * scale) / scale for value in sums]


def _drift(state: State) -> Array | None:
    """(UNITS,) stable's signed distances in the past; None before they would be more than a guess."""
    *above, images = past.counts(state["past"])
    return np.asarray(above) / (images + PRIOR_IMAGES) if images >= LEAST_PAST else None


def _own_rows(c: _Side, b: _Side, drift: Array, delta: float) -> Array:
    """(UNITS, 2, A) log e-values where both arms have one reference: the lesser of stable's two directions."""
    away = np.abs(drift)[:, None, None]
    spread = np.maximum(_variance(_NOMINAL + away), _variance(1 - _NOMINAL + away))
    stake, distance, valid = _bets(c, b, away, spread, delta)
    canary = _factor(c.n, c.events[..., None], c.reference[..., None] + distance + delta, stake)
    there = -stake * (c.n / b.n)
    ahead = _factor(b.n, b.events[..., None], b.reference[..., None] + distance, there)
    behind = _factor(b.n, b.events[:, ::-1, None], b.reference[:, ::-1, None] + distance, there)
    return np.where(valid, canary + np.minimum(ahead, behind), 0.0)


def _any_rows(c: _Side, b: _Side, drift: Array, delta: float) -> Array:
    """(UNITS, 2, A) log e-values with different references: the least over all of stable's rows and directions."""
    away = np.full((UNITS, 1, 1), np.abs(drift).max())
    stake, distance, valid = _bets(c, b, away, np.full(away.shape, 0.25), delta)
    canary = _factor(c.n, c.events[..., None], c.reference[..., None] + distance + delta, stake)
    there = -stake * (c.n / b.n)
    exists = b.exists.repeat(2, axis=1)
    events, reference = b.events[exists][:, None], b.reference[exists][:, None]
    least = np.zeros(stake.shape)
    for quantile in range(len(QUANTILES)):  # at one quantile and in one direction all rows bet the same
        rows = slice(quantile, None, len(QUANTILES))
        for way in (0, 1):
            found = _factor(b.n, events, reference + distance[quantile, way], there[quantile, way])
            least[rows, way] = found.min(axis=0)
    return np.where(valid, canary + least, 0.0)


def _bets(c: _Side, b: _Side, away: Array, spread: Array, delta: float) -> tuple[Array, Array, Bools]:
    """The canary's stakes and stable's distances on the boundary, each (UNITS, 2, A); and where there is a bet.

    The bet is that stable is `away` from its reference and the canary beyond the tolerated distance by EXCESS; the
    boundary lies between, nearer to the arm with the larger variance of its share (`spread`: stable's, per image):
    nearly the Kullback–Leibler projection. The stakes are those of the nominal quantiles; any are valid.
    """
    ratio = c.n / b.n
    tolerated = _NOMINAL + away + delta
    stake = EXCESS / (np.maximum(_variance(tolerated), _variance(tolerated + EXCESS)) + ratio * spread)
    stake = np.minimum(stake, _largest_stake(c, b))
    distance = away + ratio * spread * stake
    possible = c.reference[..., None] + distance + delta < 1
    return stake, distance, possible & c.exists[..., None]


def _parity(c: _Side, b: _Side, ahead: Array, drift: Array, margin: float) -> Array:
    """(UNITS, 2) log e-values against a canary that is further off than stable by the margin.

    ahead  (UNITS,) flat places of the share of stable's that is compared; drift (UNITS,) its distance in the past
    """
    ratio, away = c.n / b.n, drift[:, None]
    events, reference = b.events.ravel()[ahead][:, None], b.reference.ravel()[ahead][:, None]
    spread_c = np.maximum(_variance(c.reference + away), _variance(c.reference + away + margin))
    spread_b = np.maximum(_variance(reference + away), _variance(reference + away - margin))
    stake = np.minimum(margin / (spread_c + ratio * spread_b), _largest_stake(c, b))
    boundary = np.minimum(c.reference + away + spread_c * stake, 0.99)
    distance = boundary - c.reference - margin  # stable's, on the boundary
    log_e = _factor(c.n, c.events, boundary, -stake)
    log_e = log_e + _factor(b.n, events, reference + distance, stake * ratio)
    return np.where(c.exists & (c.reference + margin < 1), log_e, _IMPOSSIBLE)


def _variance(share: Array) -> Array:
    """Of one image, for shares that a bet assumes."""
    inside = np.clip(share, 0.02, 0.98)
    return np.asarray(inside * (1 - inside))


def _largest_stake(c: _Side, b: _Side) -> float:
    """Below 1 for both arms; stable's stake is the canary's times n_c/n_b."""
    return _LARGEST_STAKE * min(1.0, b.n / c.n)


def _factor(n: float, events: Array, boundary: Array, stake: Array) -> Array:
    """Log of a product over n images, each with mean 1 + stake·(p − boundary) for a share p of events."""
    boundary = np.minimum(boundary, 1.0)
    return np.asarray(events * np.log1p(stake * (1 - boundary)) + (n - events) * np.log1p(-stake * boundary))


def _counted(canary: Array, stable: Array, log_e: Array) -> Counted:
    """Tallies how many images more than the reference's each arm has below each quantile."""
    above = [np.round(side[:UNITS] - side[UNITS:-1], 3).tolist() for side in (canary, stable)]
    return Counted(int(canary[-1]), int(stable[-1]), tuple(above[0]), tuple(above[1]), log_e)


def _distances(tally: State) -> tuple[Array, Array]:
    """(UNITS,) how far canary and stable were from their references."""
    canary, stable = (np.abs(tally[f"x_{arm}"]) / max(1, tally[f"n_{arm}"]) for arm in "cb")
    return np.asarray(canary), np.asarray(stable)


def _share(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")
