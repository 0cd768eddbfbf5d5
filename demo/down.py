"""`make down`: stop what `make up` started, whoever started it and however that ended."""

from __future__ import annotations

import sys
import time

from demo import places, running


def main() -> int:
    """Stop everything; say what was found."""
    here = places.here()
    begun = time.monotonic()
    with running.alone(here):
        found = running.state(here)
        running.stop_all(here)
    words = "nothing was running" if found is running.State.STOPPED else "stopped"
    print(f"{words} ({time.monotonic() - begun:.1f} s); the data stays in {here.var}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
