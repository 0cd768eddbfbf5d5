"""Which ports does this system use? Preferred ones when free, others when busy; kept in var/ports.json."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PREFERRED = {
    "web": 8000,
    "gateway": 8080,
    "envoy_admin": 9901,
    "triton_a": 8500,
    "triton_b": 8600,
    "mlflow": 5000,
    "images": 8090,
}
WIDTH = {"triton_a": 3, "triton_b": 3}  # Triton: HTTP, then gRPC, then metrics
STEP = 10
HIGHEST = 60_000


class Claims:
    """Ports promised to this start until its processes listen, seen by every other start on the machine.

    Two checkouts that start in the same second would both find 8000 free. A claim is an abstract unix socket:
    it belongs to no user or folder and ends with the process.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self, first: int, width: int = 1) -> bool:
        """Claim `width` ports from `first` if all are free; all or nothing."""
        taken: list[socket.socket] = []
        for port in range(first, first + width):
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                claim.bind(f"\0davy-port-{port}")
            except OSError:
                claim.close()
                break
            taken.append(claim)
            if not is_free(port):
                break
        else:
            self._held += taken
            return True
        for claim in taken:
            claim.close()
        return False

    def release(self) -> None:
        """End all claims: the processes listen now."""
        for claim in self._held:
            claim.close()
        self._held.clear()


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of 127.0.0.1 (or of all addresses)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Choice:
    """The chosen ports by name, and what has to be said about the busy ones."""

    ports: dict[str, int]
    notes: tuple[str, ...]


def choose(known: Mapping[str, int], take: Callable[[int, int], bool]) -> Choice:
    """Choose a port for every name: the one used last, the preferred one, or the next free one.

    known   the last choice (may be empty)
    take    claims `width` ports from a first one, and says whether it could
    """
    ports: dict[str, int] = {}
    notes: list[str] = []
    for name, preferred in PREFERRED.items():
        width = WIDTH.get(name, 1)
        first = known.get(name, preferred)
        for port in dict.fromkeys([first, preferred, *range(preferred + STEP, HIGHEST, STEP)]):
            if take(port, width):
                ports[name] = port
                break
        else:
            raise OSError(f"no free port for {name}")
        if ports[name] != first:
            notes.append(f"port {first} ({name}) is busy: {ports[name]} is used")
    return Choice(ports, tuple(notes))


def moved(before: Mapping[str, int], after: Mapping[str, int]) -> dict[int, int]:
    """The ports that changed hands between two choices: old number to new, each of a row of three."""
    return {
        before[name] + offset: after[name] + offset
        for name in after
        if name in before and before[name] != after[name]
        for offset in range(WIDTH.get(name, 1))
    }


def load(path: Path) -> dict[str, int]:
    """The last choice; empty when there is none or it cannot be read."""
    try:
        data = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {name: port for name, port in data.items() if name in PREFERRED and isinstance(port, int)}


def save(path: Path, ports: Mapping[str, int]) -> None:
    """Keep the choice for the next start."""
    path.write_text(json.dumps(dict(ports), indent=1) + "\n")
