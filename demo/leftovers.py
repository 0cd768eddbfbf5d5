"""Which processes of an earlier start still live? The mark in their environment tells, whoever the parent."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

MARK = "DAVY_RUN"


def find(var: Path) -> list[int]:
    """The ids of the processes that were started for this var folder (this process left out)."""
    mark = f"{MARK}={var}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # ended meanwhile, or another user's
            continue
        if mark in environment.split(b"\0") and int(folder.name) != os.getpid():
            found.append(int(folder.name))
    return found


def end_all(var: Path, patience_seconds: float = 5.0) -> int:
    """End them: SIGTERM, and SIGKILL after `patience_seconds`. Returns how many there were."""
    first = find(var)
    deadline = time.monotonic() + patience_seconds
    _send(first, signal.SIGTERM)
    while remaining := find(var):
        if time.monotonic() > deadline:
            _send(remaining, signal.SIGKILL)
        time.sleep(0.05)
    return len(first)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue
