"""How are labels and pairs kept, so that the judge can be asked again? As the lists and numbers that they are. PURE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rollout.gates.base import Interval, Labelled, LabelledStratum, Pairs


def to_json(interval: Interval) -> dict[str, Any]:
    """The interval's labels and pairs, where it has any."""
    kept: dict[str, Any] = {}
    if interval.labels:
        kept["labels"] = [asdict(stratum) for stratum in interval.labels]
    if interval.pairs is not None:
        kept["pairs"] = asdict(interval.pairs)
    return kept


def from_json(kept: Mapping[str, Any]) -> tuple[tuple[LabelledStratum, ...], Pairs | None]:
    """The labels and pairs that `to_json` kept."""
    strata = tuple(_stratum(stratum) for stratum in kept.get("labels", ()))
    pairs = kept.get("pairs")
    if pairs is None:
        return strata, None
    cosine = pairs["cosine"]
    return strata, Pairs(**{**pairs, "cosine": None if cosine is None else tuple(cosine)})


def _stratum(kept: Mapping[str, Any]) -> LabelledStratum:
    return LabelledStratum(
        kept["stratum"], _labelled(kept["canary"]), _labelled(kept["stable"]), kept["max_weight"]
    )


def _labelled(kept: Mapping[str, Any]) -> Labelled:
    return Labelled(kept["n"], _classes(kept["classes"]), _classes(kept["labelled"]))


def _classes(kept: Sequence[Sequence[float]]) -> tuple[tuple[float, int], ...]:
    return tuple((float(weight), int(n)) for weight, n in kept)
