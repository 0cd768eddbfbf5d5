"""Does this checkout's system run, and how is all of it stopped?"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from enum import Enum

from controlplane import embedded
from demo import leftovers, triton
from demo.places import Places
from demo.processes import SLOTS
from demo.supervision import SupervisionError, Supervisor


class State(Enum):
    """What was found of an earlier start."""

    STOPPED = "stopped"
    UNFINISHED = "unfinished"  # a start that was killed half-way, or processes without their supervisor
    RUNNING = "running"


def state(here: Places) -> State:
    """Whether the system runs (and was started to the end)."""
    answers = Supervisor(here).answers()
    if answers and (here.run / "ready").exists():
        return State.RUNNING
    if answers or leftovers.find(here.var):
        return State.UNFINISHED
    return State.STOPPED


@contextlib.contextmanager
def alone(here: Places) -> Iterator[None]:
    """One start or stop at a time for this var folder; a second one waits."""
    here.make()
    with (here.run / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another start or stop of this checkout is under way; waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mark_ready(here: Places) -> None:
    """Note that the start came to its end."""
    (here.run / "ready").write_text(json.dumps({"starter": os.getpid()}))


def stop_all(here: Places) -> None:
    """Stop every process of this var folder, orphans too; remove shared memory and sockets. Data stays."""
    (here.run / "ready").unlink(missing_ok=True)
    supervisor = Supervisor(here)
    if supervisor.answers():
        try:
            supervisor.shut_down()
        except (SupervisionError, OSError) as error:
            print(f"  {error}", flush=True)  # what it left running ends below
    leftovers.end_all(here.var)
    embedded.stop_valkey(here.var)
    embedded.stop_postgres(here.var)
    for slot in SLOTS:
        triton.clear_shared_memory(here, slot)
    here.supervisor_socket.unlink(missing_ok=True)
