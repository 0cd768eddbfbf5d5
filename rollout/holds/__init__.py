"""Which holds are there? Add a file to this folder and a line to the table; tests/contracts picks it up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rollout.holds.approval import ApprovalHold
from rollout.holds.base import Hold
from rollout.holds.open_alert import OpenAlertHold
from rollout.holds.prometheus import PrometheusHold
from rollout.holds.webhook import WebhookHold

_ALL: tuple[Hold, ...] = (ApprovalHold(), OpenAlertHold(), WebhookHold(), PrometheusHold())
HOLDS: dict[str, Hold] = {hold.name: hold for hold in _ALL}


def get(name: str) -> Hold:
    """The hold of that name. Raises LookupError, naming the holds there are."""
    try:
        return HOLDS[name]
    except KeyError:
        raise LookupError(f"no hold {name!r}; there are {', '.join(HOLDS)}") from None


def check(name: str, settings: Mapping[str, Any]) -> str:
    """Its kind, where a plan may use the hold so. Raises LookupError, or ValueError("<key>: …")."""
    get(name).check(settings)
    return "hold"
