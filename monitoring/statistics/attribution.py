"""Where does a change come from: everywhere, one device, one country, one cell of both, or only the mix? PURE.

Every cell (device × country …) is compared with its own baseline. Their changes are explained by one shift δ of one set
of cells: all of them, those of one value of one axis, or a single cell. Under normal noise the likeliest set is the one
with the largest |z| (generalised least squares with a random effect that all cells share: Searle, Casella & McCulloch,
Variance Components, 1992, ch. 6). Each kind of set has its own limit, taken from periods without an alarm, so that
noise that a whole device shares does not pass for a finding. How much of the total's change is *within* cells and how
much is the *mix*: Kitagawa, JASA 50, 1955.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Bools = NDArray[np.bool_]
Kind = Literal["everywhere", "axis", "cell", "mix", "none"]

#: Of the first finding's |z|, below which a further one is not told: a device's shift may differ by country.
MATERIAL = 0.2
MOST_FINDINGS = 3
#: Sampling errors by which a change of the mix must move some coordinate; 66 normal ones stay below.
MIX_MATTERS = 4.5


@dataclass(frozen=True)
class Cells:
    """One period cut by segment: c cells, p coordinates (mean scores; of embeddings in standard deviations).

    names            c tuples, one value per axis
    weight           (c,)    images of the period; 0: the cell has disappeared
    baseline_weight  (c,)    usual images of such a period, in any unit; 0: the cell is new
    mean             (c, p)  mean scores; not read where weight is 0
    baseline         (c, p)  what is usual there at these hours; NaN: unknown, e.g. of a new cell
    variance         (c, p)  of mean − baseline without a change, beyond what all cells share
    common           (p,)    variance of what all cells share; None: 0
    traffic          (c,)    squared coefficient of variation of a cell's images beyond counting them; None: 0
    """

    names: tuple[tuple[str, ...], ...]
    weight: Numbers
    baseline_weight: Numbers
    mean: Numbers
    baseline: Numbers
    variance: Numbers
    common: Numbers | None = None
    traffic: Numbers | None = None

    def __post_init__(self) -> None:
        c, p = len(self.names), self.mean.shape[-1]
        shapes = [self.mean.shape, self.baseline.shape, self.variance.shape]
        if shapes != [(c, p)] * 3 or self.weight.shape != (c,) or self.baseline_weight.shape != (c,):
            raise ValueError(f"{c} cells with arrays of shapes {shapes}, {self.weight.shape}")
        if not ((self.weight >= 0).all() and (self.baseline_weight >= 0).all()):
            raise ValueError("a cell's weight is negative or not a number")
        if not (self.variance[self.known] > 0).all() or not np.isfinite(self.mean[self.known]).all():
            raise ValueError("a cell with images and a baseline needs finite means and a variance above 0")

    @cached_property
    def known(self) -> Bools:
        """(c,) cells that can be compared: with images now and a baseline."""
        return (self.weight > 0) & np.asarray(np.isfinite(self.baseline).all(axis=1))

    @cached_property
    def change(self) -> Numbers:
        """(c, p) mean − baseline; 0 where nothing can be compared."""
        return np.where(self.known[:, None], self.mean - self.baseline, 0.0)


@dataclass(frozen=True)
class Split:
    """Kitagawa's parts of the change of the total, each (p,); within + mix is all of it. z of the mix (p,)."""

    within: Numbers
    mix: Numbers
    mix_z: Numbers


@dataclass(frozen=True)
class Limits:
    """The |z| beyond which a finding of each kind counts. `axes` in the order of the axes."""

    everywhere: float
    axes: tuple[float, ...]
    cell: float
    mix: float

    def of(self, candidate: Candidate) -> float:
        """The limit of a candidate's kind."""
        if candidate.kind == "axis":
            return self.axes[candidate.axis]
        return self.cell if candidate.kind == "cell" else self.everywhere


@dataclass(frozen=True)
class Cause:
    """What the change comes from. `target` by axis, e.g. {"device": "cam7"}; empty for everywhere and none.

    z           of the finding; of its share of the images for the mix; of the largest candidate where the kind is none
    effect      the shift of the coordinate that shows it most; of embeddings in standard deviations of the reference
    coordinate  which one
    within, mix the two parts of the total's change in that coordinate
    """

    kind: Kind
    target: Mapping[str, str]
    z: float
    effect: float
    coordinate: int
    within: float
    mix: float
    sentence: str


def unknown(reason: str) -> Cause:
    """The answer where there is nothing to compare."""
    return Cause("none", {}, 0.0, 0.0, 0, 0.0, 0.0, f"cannot tell: {reason}")


class Candidate(NamedTuple):
    """A set of cells that may have shifted together."""

    kind: Kind
    axis: int  # of kind axis; -1 otherwise
    target: Mapping[str, str]
    members: Bools  # (c,)


class Finding(NamedTuple):
    """The likeliest candidate."""

    candidate: Candidate
    coordinate: int
    z: float
    effect: float


def attribute(cells: Cells, axes: tuple[str, ...], limits: Limits) -> Cause:
    """The likeliest place of a change. O(c²·p) for c cells.

    axes    names of the axes, in the order of the values in `cells.names`; none: a single cell
    limits  see `limit_from`
    Without a finding within cells, the mix is the cause where a share of the images moved beyond its limit, and some
    coordinate of the total with it; else the kind is none.
    """
    split = kitagawa(cells)
    found = _findings(cells, axes, limits)
    share_z, place = moved_share(cells, axes)
    mixed = abs(share_z) > limits.mix and np.abs(split.mix_z).max(initial=0) > MIX_MATTERS
    more = f"{'more' if share_z > 0 else 'fewer'} of them from {_place(place)}"
    if found:
        kind, target = found[0].candidate.kind, found[0].candidate.target
        z, effect, coordinate = found[0].z, found[0].effect, found[0].coordinate
        sentence = _sentence(found) + (f"; besides, {more} than usual" if mixed else "")
    elif mixed:
        coordinate = int(np.abs(split.mix_z).argmax())
        kind, target, z, effect = "mix", place, share_z, float(split.mix[coordinate])
        sentence = f"only the mix changed: images as before, {more}"
    else:
        kind, target, sentence = "none", {}, _nothing(cells, axes)
        z, effect, coordinate = _largest_of_all(cells, axes)
    within, mix = (float(part[coordinate]) if len(part) else 0.0 for part in (split.within, split.mix))
    return Cause(kind, target, z, effect, coordinate, within, mix, sentence)


def kitagawa(cells: Cells) -> Split:
    """within = Σ ½(w₀ + w₁)(m₁ − m₀), mix = Σ ½(m₀ + m₁)(w₁ − w₀), w shares of images. Exact: they add up.

    A cell without a baseline, or without images now, changes the mix only. `mix_z` is the mix over its sampling error
    as if images were drawn independently; what is usual for it is up to the limit.
    """
    now, before = _shares(cells.weight), _shares(cells.baseline_weight)
    seen = (cells.weight > 0)[:, None]
    m0 = np.where(np.isfinite(cells.baseline), cells.baseline, np.where(seen, cells.mean, 0.0))
    m1 = np.where(seen, cells.mean, m0)
    within = 0.5 * (before + now) @ (m1 - m0)
    middle, share = 0.5 * (m0 + m1), 0.5 * (before + now)
    centred = middle - share @ middle  # Σ (w₁ − w₀) = 0, so the centre costs nothing and spares digits
    if not cells.weight.any() or not cells.baseline_weight.any():
        return Split(within, np.zeros_like(within), np.zeros_like(within))
    mix = (now - before) @ centred
    error = np.sqrt(share @ centred**2 / cells.weight.sum())
    return Split(within, mix, np.divide(mix, error, out=np.zeros_like(mix), where=error > 0))


def moved_share(cells: Cells, axes: tuple[str, ...]) -> tuple[float, Mapping[str, str]]:
    """The set of cells whose share of the images moved furthest beyond what is usual: z, below 0 for fewer; target.

    Cells vary by themselves and the shares add up to 1, so a set's variance is (1 − m)²·V + m²·V′, m its share, V and
    V′ the variances inside and outside of it. (0, {}) where there is nothing to compare.
    """
    now, before = _shares(cells.weight), _shares(cells.baseline_weight)
    every = np.ones(len(now), np.bool_)  # also a cell without a baseline
    sets = [one for one in candidates(cells.names, every, axes) if one.kind != "everywhere"]
    if not sets or not now.any() or not before.any():
        return 0.0, {}
    middle = (now + before) / 2
    variance = middle / cells.weight.sum() + (0.0 if cells.traffic is None else cells.traffic) * middle**2
    members = np.array([one.members for one in sets], np.float64)
    share, inside = members @ middle, members @ variance
    spread = (1 - share) ** 2 * inside + share**2 * (variance.sum() - inside)
    moved = members @ (now - before)
    z = np.divide(moved, np.sqrt(spread), out=np.zeros_like(moved), where=spread > 0)
    best = int(np.abs(z).argmax())
    return float(z[best]), sets[best].target


def candidates(names: Sequence[tuple[str, ...]], known: Bools, axes: tuple[str, ...]) -> list[Candidate]:
    """The sets of known cells that may have shifted, widest first; of two equal sets only the wider kind's stays."""
    found = [Candidate("everywhere", -1, {}, known)]
    for number, axis in enumerate(axes):
        for value in dict.fromkeys(name[number] for name in names):
            members = np.array([name[number] == value for name in names]) & known
            found.append(Candidate("axis", number, {axis: value}, members))
    if len(axes) > 1:
        for number, name in enumerate(names):
            members = (np.arange(len(names)) == number) & known
            found.append(Candidate("cell", -1, dict(zip(axes, name, strict=True)), members))
    distinct: dict[bytes, Candidate] = {}
    for one in found:
        if one.members.any():
            distinct.setdefault(one.members.tobytes(), one)
    return list(distinct.values())


def shifts(cells: Cells, sets: Sequence[Candidate], change: Numbers | None = None) -> tuple[Numbers, Numbers]:
    """(z, δ), each (s, p): the shift of each set's cells by generalised least squares, and over its error.

    The covariance of the cells' changes is diag(variance) + common; its inverse has a closed form (Sherman & Morrison,
    Ann. Math. Stat. 21, 1950). With a large `common` a set is compared with the other cells, with none against 0.
    """
    x = cells.change if change is None else change
    w = np.divide(1.0, cells.variance, out=np.zeros_like(x), where=cells.known[:, None])
    members = np.array([one.members for one in sets], np.float64).reshape(len(sets), len(cells.names))
    total, common = w.sum(axis=0), np.zeros(x.shape[1]) if cells.common is None else cells.common
    held = common / (1 + common * total)
    weight = members @ w
    top = members @ (w * x) - weight * (held * (w * x).sum(axis=0))
    bottom = weight * (1 - weight * held)
    return top / np.sqrt(bottom), top / bottom


def _findings(cells: Cells, axes: tuple[str, ...], limits: Limits) -> list[Finding]:
    """The likeliest set, then what is left when its shift is taken out, while that is material."""
    sets = candidates(cells.names, cells.known, axes)
    if not sets or not cells.mean.shape[1]:
        return []
    found: list[Finding] = []
    change = cells.change
    beyond = np.array([limits.of(one) for one in sets], np.float64)[:, None]
    while len(found) < MOST_FINDINGS:
        z, effect = shifts(cells, sets, change)
        counted = np.where(np.abs(z) > beyond, np.abs(z), 0.0)
        best, coordinate = np.unravel_index(int(counted.argmax()), counted.shape)
        if counted[best, coordinate] == 0:
            break
        if found and counted[best, coordinate] < MATERIAL * abs(found[0].z):
            break
        found.append(
            Finding(sets[best], int(coordinate), float(z[best, coordinate]), float(effect[best, coordinate]))
        )
        if found[-1].candidate.kind == "everywhere" and len(found) > 1:
            break
        change = change - sets[best].members[:, None] * effect[best]
        beyond[best] = np.inf
    return found


def _largest_of_all(cells: Cells, axes: tuple[str, ...]) -> tuple[float, float, int]:
    """(z, effect, coordinate) of the largest candidate, whatever its limit; zeros without cells to compare."""
    sets = candidates(cells.names, cells.known, axes)
    if not sets or not cells.mean.shape[1]:
        return 0.0, 0.0, 0
    z, effect = shifts(cells, sets)
    best, coordinate = np.unravel_index(int(np.abs(z).argmax()), z.shape)
    return float(z[best, coordinate]), float(effect[best, coordinate]), int(coordinate)


def _shares(weight: Numbers) -> Numbers:
    total = weight.sum()
    return weight / total if total > 0 else weight


def _sentence(found: Sequence[Finding]) -> str:
    first, *others = (one.candidate for one in found)
    places = " and ".join(_place(one.target) or "all others" for one in others)
    if first.kind == "everywhere":
        return f"everywhere, but unevenly: {places} most apart" if others else "everywhere"
    return f"{_place(first.target)} most of all, {places} too" if others else f"{_place(first.target)} only"


def _place(target: Mapping[str, str]) -> str:
    """ "device cam7", "device cam7 with country se"."""
    return " with ".join(f"{axis} {value or '(unnamed)'}" for axis, value in target.items())


def _nothing(cells: Cells, axes: tuple[str, ...]) -> str:
    if not cells.known.any():
        return "cannot tell: no cell has both images now and a long enough past"
    where = " or ".join(axes)
    return f"no {where} stands out, nor does the mix" if where else "no more than the usual variation"
