"""Do live embeddings still fall where the reference's fell? Binned KS per component. PURE.

Until a fleet has two weeks of history its natural variation is unknown, so the alarm asks for a large effect:
D_grid > .2 twice running, over when below .15 three times (design/drift). Every number is shown with its n.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from davy.reference import Reference
from numpy.typing import NDArray

from monitoring.detectors.base import Answer, Hysteresis, Live, Result, State, Status, period, too_few
from monitoring.statistics.binned_ks import KsBound, binned_ks


@dataclass(frozen=True)
class EmbeddingDrift:
    """KS distance of the PCA components and of the norm that they leave out.

    minimum_n   fewer live embeddings decide nothing
    maximum_q   a distance that chance explains better than this is no drift: only small references come near it
    """

    name: ClassVar[str] = "embedding_drift"
    subject: ClassVar[str] = "embedding"
    advice: ClassVar[str] = (
        "compare the live images with those of the reference (camera, light, crop, device); label a sample and"
        " retrain if the change is there to stay"
    )

    minimum_n: int = 500
    maximum_q: float = 1e-6
    hysteresis: Hysteresis = field(default_factory=Hysteresis)

    def evaluate(self, live: Live, reference: Reference | None, state: State) -> Answer:
        """The largest D_grid over the components against the thresholds."""
        if reference is None or live.embedding is None:
            return too_few(
                "has no reference, so its embeddings are not counted", {"n": 0, **period(live)}, state
            )
        result = measure(live, reference)
        n = result["n"]
        if n < self.minimum_n:
            reason = f"has {n:,} live embeddings, {self.minimum_n:,} are needed"
            return too_few(reason, result, state)
        worst = max(result["components"], key=lambda row: row["d"])
        after = self.hysteresis.step(state, worst["d"], worst["q"] <= self.maximum_q, live.end)
        status = Status.DRIFTED if after["drifted"] else Status.STABLE
        return Answer(status, self._reason(status, worst, result), result, after)

    def _reason(self, status: Status, worst: Result, result: Result) -> str:
        row = "the norm that the components leave out" if worst["residual"] else f"component {worst['index']}"
        limits = self.hysteresis
        verb = "have drifted" if status is Status.DRIFTED else "look like the reference"
        rule = (
            f"alarm above {limits.drifted_above:g} twice"
            if status is Status.STABLE
            else f"over below {limits.stable_below:g} three times"
        )
        return (
            f"embeddings {verb}: D = {worst['d']:.3f} (at most {worst['d_upper']:.3f}) in {row}, {rule},"
            f" n = {result['n']:,} live and {result['reference_n']:,} reference images"
        )


def measure(live: Live, reference: Reference) -> Result:
    """The numbers, as JSON: n, times, and per component index, D_grid, its upper bound, p, q and n."""
    counts = live.embedding if live.embedding is not None else np.zeros_like(reference.counts)
    bound = binned_ks(reference.counts, counts)
    worst = int(bound.lower.argmax())
    return {
        **period(live),
        "n": int(bound.n[worst]),
        "reference_n": int(bound.reference_n[worst]),
        "d": float(bound.lower[worst]),
        "d_upper": float(bound.upper[worst]),
        "component": worst,
        "components": [_component(bound, index, len(reference.components)) for index in range(len(bound.n))],
    }


def _component(bound: KsBound, index: int, components: int) -> Result:
    return {
        "index": index,
        "residual": index == components,
        "d": float(bound.lower[index]),
        "d_upper": float(bound.upper[index]),
        "p": float(bound.p[index]),
        "q": float(bound.q[index]),
        "n": int(bound.n[index]),
        "reference_n": int(bound.reference_n[index]),
    }


def ecdf(live: Live, reference: Reference, row: int) -> Result:
    """Both ECDFs of one row at its distinct bin edges: the share of values below each edge."""
    edges = reference.edges[row]
    kept = np.append(np.diff(edges) > 0, True)  # spare edges repeat the last one
    counts = live.embedding[row] if live.embedding is not None else np.zeros_like(reference.counts[row])
    return {
        "component": row,
        "residual": row == len(reference.components),
        "n": int(counts.sum()),
        "edges": edges[kept].tolist(),
        "reference": _below(reference.counts[row])[kept].tolist(),
        "live": _below(counts)[kept].tolist(),
    }


def _below(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    shares: NDArray[np.float64] = np.cumsum(counts)[:-1] / max(int(counts.sum()), 1)
    return shares
