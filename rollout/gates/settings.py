"""What may a plan set on a gate, and is it sensible?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Settings = dict[str, Any]
#: What each setting may be, both ends included.
RANGES = {
    "theta0": (1.0, 100.0),  # below 1 an equal canary would be rolled back
    "delta": (0.0, 0.5),
    "tolerance": (0.0, 10.0),
    "promote_tolerance": (0.0, 10.0),
    "warm_up_seconds": (0.0, 3600.0),
    "margin_points": (0.001, 50.0),
    "lower": (0.0, 1.0),
    "upper": (0.0, 1.0),
    "least_of_baseline": (0.5, 1.0),
    "paired_margin_points": (0.001, 50.0),
    "mature_seconds": (0.0, 7 * 86400.0),
    "calibration": (0.0, 1.0),
    "agreement": (0.5, 0.99999),
    "tolerance_points": (0.001, 50.0),
    "least_cosine": (0.0, 1.0),
    "map_drop_points": (0.0, 100.0),
}
#: Settings that are a word, and which words there are.
CHOICES = {"source": ("collector", "router")}
ByWeight = dict[str, float]  # step weight in percent, as JSON has it, → value


def merged(defaults: Settings, given: Mapping[str, Any]) -> Settings:
    """The defaults with the plan's own values over them.

    A default that is a number is replaced by a number in its range; a default that is a table over step
    weights by a whole table {"1": …, "5": …}; a word by one of its choices.
    Raises ValueError("<key>: …") for anything else.
    """
    for key in given:
        if key not in defaults:
            raise ValueError(f"{key}: no such setting; there are {', '.join(defaults)}")
    return {key: _checked(key, default, given.get(key, default)) for key, default in defaults.items()}


def at_weight(table: ByWeight, weight_percent: float) -> float:
    """The entry of the largest step weight ≤ `weight_percent`; below all of them, the smallest one's."""
    steps = sorted((float(step), value) for step, value in table.items())
    reached = [value for step, value in steps if step <= weight_percent]
    return reached[-1] if reached else steps[0][1]


def _checked(key: str, default: Any, value: Any) -> Any:
    if key in CHOICES:
        if value not in CHOICES[key]:
            raise ValueError(f"{key}: {value!r} is not one of {', '.join(CHOICES[key])}")
        return value
    if not isinstance(default, Mapping):
        return _number(key, value)
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{key}: wants a table over step weights, such as {dict(default)}")
    table = {}
    for step, entry in value.items():
        try:
            weight_percent = float(step)
        except (TypeError, ValueError):
            weight_percent = math.nan
        if not 0 < weight_percent <= 100:
            raise ValueError(f"{key}: {step!r} is not a step weight in percent")
        table[str(step)] = _number(key, entry)
    return table


def _number(key: str, value: Any) -> float:
    least, most = RANGES[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise ValueError(f"{key}: {value!r} is not a number from {least:g} to {most:g}")
    return float(value)
