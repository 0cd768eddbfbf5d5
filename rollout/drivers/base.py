"""What a traffic driver is: five calls, every one safe to repeat; and what it may count besides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
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
    retried: int = 0  # attempts beyond the first of a request
    latency: tuple[int, ...] | None = None  # 96 bins of davy.counting, retries included; None: not offered


@dataclass(frozen=True)
class RouterCounts:
    """Both arms at one moment. The counters count since `began` (±1 s): a router restart begins again."""

    at: float  # unix seconds
    began: float  # unix seconds
    canary: ArmCounts
    stable: ArmCounts

    def swapped(self) -> RouterCounts:
        """The same with the roles' names exchanged: the slots' counts go on when a promotion swaps the roles."""
        return replace(self, canary=self.stable, stable=self.canary)


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


@runtime_checkable
class Assigns(Protocol):
    """A driver that knows the unit of its router's split; of others it is taken for "key", which proves least."""

    def assignment(self) -> str:
        """ "request": each is drawn anew; "connection" or "key": all requests of one go to the same arm."""
        ...


@runtime_checkable
class Mirrors(Protocol):
    """A driver whose router copies live requests to the canary slot; users get the other arm's answers only.

    A copy has the request's ids and the purpose `shadow`, and counts for no arm.
    """

    def set_mirror(self, route: RouteSpec, percent: float) -> None:
        """Ask that `percent` (0–100) of the requests that stable answers are copied to the canary slot.

        It stays when the weight changes and ends when the roles swap. DriverError before any weight was set.
        """
        ...

    def observed_mirror(self, route: RouteSpec) -> float | None:
        """The share that the router really copies to the canary slot; None when it cannot be observed."""
        ...


@runtime_checkable
class LimitsWeights(Protocol):
    """A driver whose router cannot apply every share."""

    def why_not(self, percent: float) -> str:
        """Why the canary slot cannot have exactly `percent` of the traffic; "" where it can."""
        ...


@runtime_checkable
class KnowsCapacity(Protocol):
    """A driver whose proxy sends nobody elsewhere when stable's slot cannot carry everything."""

    def capacity_percent(self, route: RouteSpec) -> float:
        """How much of the route's traffic the stable slot can carry now, 0 to 100."""
        ...
