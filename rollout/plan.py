"""What is a plan? Steps with weights and dwell times, the gates that must pass, and what silence means. PURE."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rollout.gates.base import GateSpec


class PlanError(ValueError):
    """A plan that cannot run; `pointer` is the JSON pointer of the wrong field."""

    def __init__(self, pointer: str, detail: str) -> None:
        super().__init__(f"{pointer}: {detail}")
        self.pointer = pointer
        self.detail = detail


@dataclass(frozen=True)
class Step:
    """A weight, and the least time that it is held."""

    weight_percent: float
    dwell_seconds: float = 30.0


@dataclass(frozen=True)
class Plan:
    """A rollout's plan, frozen when the rollout starts."""

    name: str
    steps: tuple[Step, ...]
    gates: tuple[GateSpec, ...]
    alpha: float = 0.01  # most a healthy rollout's chance ever to be rolled back
    patience_seconds: float = 600.0  # how long INCONCLUSIVE or an unready canary may last before a page
    on_silence: str = "hold"  # then "hold" or "rollback"
    watch_seconds: float = 600.0
    keep_warm_seconds: float = 3600.0

    def to_json(self) -> dict[str, Any]:
        """The plan as it is stored and shown."""
        return asdict(self)


_NUMBERS = {
    "alpha": (1e-6, 0.5),
    "patience_seconds": (1.0, 7 * 86400.0),
    "watch_seconds": (0.0, 7 * 86400.0),
    "keep_warm_seconds": (0.0, 30 * 86400.0),
}
_STEP_KEYS = {"weight_percent", "dwell_seconds"}
_GATE_KEYS = {"name", "weight", "required", "dry_run", "settings"}

CheckGate = Callable[[str, Mapping[str, Any]], None]


def parse(raw: Mapping[str, Any], check_gate: CheckGate) -> Plan:
    """Read a plan and check every field.

    check_gate(name, settings) raises LookupError for an unknown gate and ValueError("<key>: …") for a bad setting.
    Raises PlanError with the pointer of the first wrong field. A final step of 100 % is the promotion itself and
    may be left out.
    """
    allowed = {"name", "steps", "gates", "on_silence", *_NUMBERS}
    for key in raw:
        if key not in allowed:
            raise PlanError(f"/{key}", f"unknown; known are {', '.join(sorted(allowed))}")
    name = raw.get("name", "inline")
    if not isinstance(name, str) or not 1 <= len(name) <= 63:
        raise PlanError("/name", "1 to 63 characters are needed")
    on_silence = raw.get("on_silence", "hold")
    if on_silence not in ("hold", "rollback"):
        raise PlanError("/on_silence", "either hold or rollback")
    numbers = {key: _number(raw, "", key, *limits) for key, limits in _NUMBERS.items() if key in raw}
    return Plan(
        name, _steps(raw.get("steps")), _gates(raw.get("gates"), check_gate), on_silence=on_silence, **numbers
    )


def _number(raw: Mapping[str, Any], at: str, key: str, low: float, high: float) -> float:
    value = raw[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PlanError(f"{at}/{key}", "a number is needed")
    if not low <= value <= high:
        raise PlanError(f"{at}/{key}", f"{value:g} is outside {low:g}–{high:g}")
    return float(value)


def _objects(raw: object, at: str, allowed: set[str]) -> list[dict[str, Any]]:
    if not isinstance(raw, list | tuple) or not raw:
        raise PlanError(at, "a list with at least one entry is needed")
    for i, entry in enumerate(raw):
        if not isinstance(entry, dict):
            raise PlanError(f"{at}/{i}", "an object is needed")
        for key in entry:
            if key not in allowed:
                raise PlanError(f"{at}/{i}/{key}", f"unknown; known are {', '.join(sorted(allowed))}")
    return list(raw)


def _flag(raw: Mapping[str, Any], at: str, key: str, default: bool) -> bool:
    value = raw.get(key, default)
    if not isinstance(value, bool):
        raise PlanError(f"{at}/{key}", "true or false is needed")
    return value


def _steps(raw: object) -> tuple[Step, ...]:
    steps: list[Step] = []
    for i, entry in enumerate(_objects(raw, "/steps", _STEP_KEYS)):
        at = f"/steps/{i}"
        if "weight_percent" not in entry:
            raise PlanError(f"{at}/weight_percent", "is missing")
        weight = _number(entry, at, "weight_percent", 0.01, 100)
        if steps and weight <= steps[-1].weight_percent:
            before = steps[-1].weight_percent
            raise PlanError(
                f"{at}/weight_percent", f"{weight:g} does not rise above the step before ({before:g})"
            )
        dwell = _number(entry, at, "dwell_seconds", 0, 7 * 86400) if "dwell_seconds" in entry else 30.0
        steps.append(Step(weight, dwell))
    if steps[-1].weight_percent == 100:
        steps.pop()
    if not steps:
        raise PlanError(
            "/steps", "at least one step below 100 % is needed: at 100 % there is nothing to compare with"
        )
    return tuple(steps)


def _gates(raw: object, check_gate: CheckGate) -> tuple[GateSpec, ...]:
    gates: list[GateSpec] = []
    for i, entry in enumerate(_objects(raw, "/gates", _GATE_KEYS)):
        at = f"/gates/{i}"
        name, settings = entry.get("name"), entry.get("settings", {})
        if not isinstance(name, str):
            raise PlanError(f"{at}/name", "the name of a gate is needed")
        if name in {gate.name for gate in gates}:
            raise PlanError(f"{at}/name", f"{name} stands twice")
        if not isinstance(settings, dict):
            raise PlanError(f"{at}/settings", "an object is needed")
        try:
            check_gate(name, settings)
        except LookupError as err:
            raise PlanError(f"{at}/name", str(err.args[0])) from None
        except ValueError as err:
            key, _, detail = str(err).partition(": ")
            raise PlanError(f"{at}/settings/{key}", detail or str(err)) from None
        weight = _number(entry, at, "weight", 0.001, 1000) if "weight" in entry else 1.0
        gates.append(
            GateSpec(
                name, weight, _flag(entry, at, "required", True), _flag(entry, at, "dry_run", False), settings
            )
        )
    if not any(gate.required and not gate.dry_run for gate in gates):
        raise PlanError("/gates", "at least one required gate is needed: silence never promotes")
    return tuple(gates)


def load(stored: Mapping[str, Any]) -> Plan:
    """A plan read back from a rollout's row (it was checked when it was frozen)."""
    raw = dict(stored)
    steps = tuple(Step(**step) for step in raw.pop("steps"))
    gates = tuple(GateSpec(**gate) for gate in raw.pop("gates"))
    return Plan(steps=steps, gates=gates, **raw)


@dataclass(frozen=True)
class Template:
    """A plan that ships with Davy."""

    steps: tuple[tuple[float, float], ...]  # (weight percent, dwell seconds)
    extra: Mapping[str, Any] = field(default_factory=dict)


_GATES = (
    {"name": "errors", "weight": 0.35},
    {"name": "latency", "weight": 0.25},
    {"name": "confidence", "weight": 0.15},
)
_TEMPLATES = {
    "standard": Template(((5, 30), (25, 30), (50, 30))),
    "careful": Template(((1, 300), (5, 300), (25, 600), (50, 600)), {"watch_seconds": 3600.0}),
    "fast": Template(((10, 30), (50, 30)), {"watch_seconds": 300.0}),
    "router-only": Template(
        ((5, 30), (25, 30), (50, 30)), {"gates": ({"name": "errors", "weight": 1.0},)}
    ),  # for servers without a collector: the router's view alone
}


def template(name: str) -> dict[str, Any]:
    """A shipped plan as a plain dict for `parse`. Raises LookupError naming the plans there are."""
    if name not in _TEMPLATES:
        raise LookupError(f"no plan {name!r}; there are {', '.join(sorted(_TEMPLATES))}")
    found = _TEMPLATES[name]
    steps = [{"weight_percent": weight, "dwell_seconds": dwell} for weight, dwell in found.steps]
    return {"name": name, "steps": steps, "gates": list(_GATES), **found.extra}


def template_names() -> list[str]:
    """Names of the shipped plans."""
    return sorted(_TEMPLATES)
