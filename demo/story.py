"""`make demo`: tell the story on the running system, and check it.

Every line of the table has to hold, else the exit code is 1. `--only promote` tells one stage alone.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
import traceback
from collections.abc import Sequence

from davy.client import Client

from demo import credentials, places, stages
from demo.receiver import Receiver
from demo.stages import Line, Stage, World
from demo.supervision import Supervisor
from demo.users import Users

# Side by side; the kill comes last, since the killed server holds every model's canary.
BESIDE: dict[str, Stage] = {
    "server": stages.server,
    "promote": stages.promote,
    "rollback": stages.roll_back,
    "drift": stages.drift,
    "label": stages.label,
}
LAST: dict[str, Stage] = {"kill": stages.kill_canary}
RATES = {"products": 300.0, "returns": 200.0, "kiosk": 150.0, "shelf": 100.0}
SHOWN = 100  # characters of what was seen


def tell(world: World, chosen: Sequence[str]) -> list[Line]:
    """Run the chosen stages, independent ones side by side; return their lines in the story's order."""
    told: dict[str, list[Line]] = {}
    beside = [
        threading.Thread(target=_run, args=(name, stage, world, told), name=name)
        for name, stage in BESIDE.items()
        if name in chosen
    ]
    for thread in beside:
        thread.start()
    for thread in beside:
        thread.join()
    for name, stage in LAST.items():
        if name in chosen:
            _run(name, stage, world, told)
    return [line for name in (*BESIDE, *LAST) for line in told.get(name, [])]


def _run(name: str, stage: Stage, world: World, told: dict[str, list[Line]]) -> None:
    """One stage; whatever goes wrong in it is a red line, and the other stages go on."""
    begun = time.monotonic()
    try:
        told[name] = stage(world)
    except Exception as err:  # noqa: BLE001 - the outer edge of a stage
        traceback.print_exc()
        told[name] = [
            Line(name, "the stage runs", f"{type(err).__name__}: {err}", False, time.monotonic() - begun)
        ]
    for line in told[name]:
        print(f"  {'ok ' if line.good else 'RED'}  {line.what}: {line.seen}", flush=True)


def table(lines: Sequence[Line]) -> str:
    """The lines as a table of fixed columns."""
    head = ("", "what", "expected", "seen", "seconds", "needed", "available")
    rows = [
        (
            "ok" if line.good else "RED",
            line.what,
            line.expected,
            line.seen if len(line.seen) <= SHOWN else line.seen[: SHOWN - 1] + "…",
            f"{line.seconds:.0f}",
            "" if line.needed is None else f"{line.needed:,}",
            "" if line.available is None else f"{line.available:,}",
        )
        for line in lines
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([text[0], "  ".join("-" * width for width in widths), *text[1:]])


def main(arguments: Sequence[str] | None = None) -> int:
    """Tell the story; return 0 when every line holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", choices=[*BESIDE, *LAST], action="append", help="tell this stage (repeatable)"
    )
    chosen = parser.parse_args(arguments).only or [*BESIDE, *LAST]
    here = places.here()
    known = credentials.read(here.credentials_file)
    users = Users(here.traffic_control, here.traffic_counts)
    receiver = Receiver()
    world = World(Client(known["DAVY_URL"], known["DAVY_TOKEN"]), users, receiver, Supervisor(here))
    begun = time.monotonic()
    before = users.ask(RATES)
    try:
        lines = tell(world, chosen)
    finally:
        users.restore(before)
        receiver.close()
    print(
        f"\n{table(lines)}\n\n{time.monotonic() - begun:.0f} s; requests: needed by the decision, available meanwhile"
    )
    return 0 if lines and all(line.good for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main())
