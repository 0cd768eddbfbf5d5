"""Ports for the servers that tests start: nobody listens on them, and no other test process will."""

from __future__ import annotations

import random

from demo.ports import Claims

BELOW_THE_KERNELS = range(20_000, 32_000)  # those above may become somebody's connection at any time

_claims = Claims()  # they end with this process


def free_row(width: int) -> int:
    """The first of so many neighbouring ports, as Triton takes three: HTTP, gRPC and metrics."""
    while not _claims.take(first := random.choice(BELOW_THE_KERNELS), width):
        pass
    return first


def free_ports(count: int) -> list[int]:
    return [free_row(1) for _ in range(count)]
