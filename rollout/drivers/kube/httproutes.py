"""What does an HTTPRoute of the Gateway API need to serve one model's split? Its rules, and the split read back. PURE.

Three rules: requests pinned to the canary, requests pinned to stable (header `x-davy-pin`), and everybody else's split.
The API takes more header matches before fewer, so their order is only for readers. Lists of rules are atomic in the
schema: whoever owns one rule owns them all, so Davy's HTTPRoute has Davy's rules only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

TOTAL_WEIGHT = 1_000_000  # the most that the schema takes: weights in ten-thousandths of a percent
MIRROR_TOTAL = 10_000
PIN = "x-davy-pin"
PURPOSE = "x-davy-purpose"


@dataclass(frozen=True)
class Service:
    """A Service of the route's namespace."""

    name: str
    port: int


@dataclass(frozen=True)
class Split:
    """One model's wanted split; `mirror_percent` of the requests are copied to the canary slot as well."""

    stable_slot: str
    percent: float
    mirror_percent: float = 0.0

    @property
    def canary_slot(self) -> str:
        return "b" if self.stable_slot == "a" else "a"


def rules(
    split: Split, path: str, services: Mapping[str, Service], mirrors: Mapping[str, Service]
) -> list[Json]:
    """`spec.rules`. services: slot → who serves it; mirrors: slot → who takes its copies, empty where none are."""
    canary = round(split.percent * TOTAL_WEIGHT / 100)
    weights = {split.stable_slot: TOTAL_WEIGHT - canary, split.canary_slot: canary}
    match: Json = {"path": {"type": "PathPrefix", "value": path}}
    pinned = [
        {
            "matches": [match | {"headers": [{"type": "Exact", "name": PIN, "value": role}]}],
            "filters": [_purpose("pinned")],
            "backendRefs": [_ref(services[slot])],
        }
        for role, slot in (("canary", split.canary_slot), ("stable", split.stable_slot))
    ]
    mirror = [_mirror(mirrors[split.canary_slot], split.mirror_percent)] if split.mirror_percent else []
    live: Json = {
        "matches": [match],
        "filters": [_purpose("live"), *mirror],
        "backendRefs": [_ref(services[slot]) | {"weight": weight} for slot, weight in weights.items()],
    }
    return [*pinned, live]


def _ref(service: Service) -> Json:
    return {"kind": "Service", "name": service.name, "port": service.port}


def _purpose(purpose: str) -> Json:
    """What the model server is told of each request: why it came. The router's, whatever a client says."""
    headers = [{"name": PURPOSE, "value": purpose}]
    return {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": headers}}


def _mirror(service: Service, percent: float) -> Json:
    fraction = {"numerator": round(percent * MIRROR_TOTAL / 100), "denominator": MIRROR_TOTAL}
    return {"type": "RequestMirror", "requestMirror": {"backendRef": _ref(service), "fraction": fraction}}


def split_of(
    found: list[Json], stable_slot: str, services: Mapping[str, Service], mirrors: Mapping[str, Service]
) -> Split | None:
    """Read the split back from `spec.rules`, whichever way round its roles are; None where they have none."""
    for rule in found:
        weights = {_service(ref): ref.get("weight", 1) for ref in rule.get("backendRefs") or []}
        shares = {slot: weights.get(service) for slot, service in services.items()}
        if None in shares.values() or len(weights) != len(services) or not sum(weights.values()):
            continue
        canary_slot = Split(stable_slot, 0).canary_slot
        percent = 100 * (shares[canary_slot] or 0) / sum(weights.values())
        target = mirrors.get(canary_slot)
        return Split(stable_slot, percent, sum(share for to, share in _mirrored(rule) if to == target))
    return None


def _service(ref: Json) -> Service:
    return Service(ref["name"], ref.get("port", 0))


def _mirrored(rule: Json) -> Iterator[tuple[Service, float]]:
    for used in rule.get("filters") or []:
        mirror = used.get("requestMirror")
        if mirror is not None:
            part = mirror.get("fraction") or {"numerator": mirror.get("percent", 100), "denominator": 100}
            yield _service(mirror["backendRef"]), 100 * part["numerator"] / part.get("denominator", 100)
