"""What a traffic driver is: five calls, every one safe to repeat; and what it may count besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


class DriverError(Exception):
    """The fleet refused or did not answer; `retry` says whether the next tick may succeed unchanged."""

    def __init__(self, message: str, *, retry: bool = True) -> None:
        super().__init__(message)
        self.retry = retry


@dataclass(frozen=True)
class Bundle:
    """A version as a server loads it; `fetch` returns the folder of its verified artifact (read-only)."""

    model: str
    version: str
    digest: str
    fetch: Callable[[], Path]


@dataclass(frozen=True)
class RouteSpec:
    """One model's route: the slot that is stable; the other slot is the canary's."""

    model: str
    stable_slot: str

    @property
    def canary_slot(self) -> str:
        return "b" if self.stable_slot == "a" else "a"


@dataclass(frozen=True)
class ArmCounts:
    """Cumulative counts of one arm at the router since the router started."""

    assigned: int  # live requests that the split assigned to this arm
    failed: int  # of these, first attempts that the arm's own slot surely did not answer well
    unsure: int = 0  # so many more may have failed: requests that came while the counters were read


@dataclass(frozen=True)
class RouterCounts:
    """Both arms at one moment. The counters count since `began` (±1 s): a router restart begins again."""

    at: float  # unix seconds
    began: float  # unix seconds
    canary: ArmCounts
    stable: ArmCounts


class Driver(Protocol):
    """Port to a fleet's traffic. Errors are DriverError; nothing else leaves a driver."""

    def prepare(self, bundle: Bundle, slot: str) -> None:
        """Have `slot` load the version; returns when the load was accepted, not when it is ready."""
        ...

    def ready(self, bundle: Bundle, slot: str) -> bool:
        """Whether `slot` serves exactly this version now."""
        ...

    def set_weight(self, route: RouteSpec, percent: float) -> None:
        """Ask for `percent` (0–100) of the route's live traffic on the canary slot."""
        ...

    def observed_weight(self, route: RouteSpec) -> float | None:
        """The canary slot's share that the router really applies; None when it cannot be observed."""
        ...

    def check(self) -> dict[str, Any]:
        """What the fleet says of itself, for people; reads only."""
        ...

    def release(self, model: str, slot: str) -> None:
        """Unload the model from `slot`."""
        ...


@runtime_checkable
class CountsRequests(Protocol):
    """A driver whose router counts requests per arm."""

    def router_counts(self, route: RouteSpec) -> RouterCounts: ...
