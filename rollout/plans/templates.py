"""Which plans ship with Davy? Steps, gates and what is special about each. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HOUR = 3600.0
DAY = 24 * HOUR


@dataclass(frozen=True)
class Template:
    """A plan that ships with Davy."""

    steps: tuple[tuple[float, float], ...]  # (weight percent, dwell seconds)
    extra: Mapping[str, Any] = field(default_factory=dict)  # what differs from the defaults, or adds to them


#: What every plan asks, with its share of α.
GATES: tuple[Mapping[str, Any], ...] = (
    {"name": "errors", "weight": 0.35},
    {"name": "latency", "weight": 0.25},
    {"name": "confidence", "weight": 0.15},
    {
        "name": "accuracy",
        "weight": 0.25,
        "required": False,
    },  # labels come late: they may fail it, nobody waits
)
TEMPLATES = {
    "standard": Template(((5, 30), (25, 30), (50, 30))),
    "careful": Template(
        ((1, 300), (5, 300), (25, 600), (50, 600)),
        {"watch_seconds": HOUR, "holdback_percent": 2.0},  # the watch keeps a concurrent comparison
    ),
    "fast": Template(((10, 30), (50, 30)), {"watch_seconds": 300.0}),
    "router-only": Template(  # for servers without a collector: the router's view alone
        ((5, 30), (25, 30), (50, 30)),
        {
            "gates": (
                {"name": "errors", "weight": 0.6},
                # not required: where requests are retried all the time, it never gets an interval without
                {"name": "latency", "weight": 0.4, "required": False, "settings": {"source": "router"}},
            )
        },
    ),
    # other weights honestly answer differently, so parity is only shown; `variant` demands it
    "shadow-first": Template(
        ((5, 30), (25, 30), (50, 30)),
        {"shadow": {"percent": 10.0}, "gates": (*GATES, {"name": "parity", "weight": 0.2, "dry_run": True})},
    ),
    "variant": Template(  # a quantised or recompiled build of stable's weights: answers nobody before it showed parity
        ((5, 30), (25, 30), (50, 30)),
        {"shadow": {"percent": 10.0}, "gates": (*GATES, {"name": "parity", "weight": 0.2})},
    ),
    "on-device": Template(
        # devices ask which version to run every few hours, and many sleep at night: a step lasts until they have asked
        ((1, 6 * HOUR), (5, DAY), (25, DAY), (50, DAY)),
        {"patience_seconds": DAY, "watch_seconds": DAY, "keep_warm_seconds": 7 * DAY},
    ),
}


def template(name: str) -> dict[str, Any]:
    """A shipped plan as a plain dict for `plan.parse`. Raises LookupError naming the plans there are."""
    if name not in TEMPLATES:
        raise LookupError(f"no plan {name!r}; there are {', '.join(names())}")
    found = TEMPLATES[name]
    steps = [{"weight_percent": weight, "dwell_seconds": dwell} for weight, dwell in found.steps]
    gates = [dict(gate) for gate in found.extra.get("gates", GATES)]
    return {"name": name, "steps": steps, **found.extra, "gates": gates}


def names() -> list[str]:
    """Names of the shipped plans."""
    return sorted(TEMPLATES)
