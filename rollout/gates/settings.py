"""What may a plan set on a gate, and is it sensible?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

Settings = dict[str, Any]
ByWeight = dict[str, float]  # step weight in percent, as JSON has it, → value


def merged(defaults: Settings, given: Mapping[str, Any]) -> Settings:
    """The defaults with the plan's own values over them.

    A default that is a number is replaced by a finite number ≥ 0; a default that is a table over step weights
    by a whole table {"1": …, "5": …}. Raises ValueError("<key>: …") for anything else.
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
    if not isinstance(default, Mapping):
        return _number(key, value)
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"{key}: wants a table over step weights, such as {dict(default)}")
    table = {}
    for step, entry in value.items():
        if not 0 < _number(key, step) <= 100:
            raise ValueError(f"{key}: {step!r} is not a step weight in percent")
        table[str(step)] = _number(key, entry)
    return table


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool):
        raise ValueError(f"{key}: {value!r} is not a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{key}: {value!r} is not a number") from None
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{key}: {value!r} is not a finite number ≥ 0")
    return number
