"""What time is it, though somebody sets the machine's clock?

A process's time starts at the wall clock's and goes on with the monotonic one, so that a clock that is set neither ends
a dwell early nor makes evidence count twice. It goes back to the wall clock by slewing, a tenth of a second a second.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

log = logging.getLogger(__name__)

JUMP_SECONDS = 2.0  # NTP slews below that; a step is larger
SLEW = 0.1  # seconds a second


class SteadyClock:
    """The time of one process."""

    def __init__(
        self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._lock = threading.Lock()
        self._ahead = 0.0  # how far the wall clock has been set ahead of us
        self._last: tuple[float, float] | None = None

    def now(self) -> datetime:
        """An aware datetime; never moved at once by a step of the wall clock while the process lives."""
        with self._lock:
            wall, ticks = self._wall(), self._monotonic()
            if self._last is not None:
                passed = ticks - self._last[1]
                self._ahead -= max(-SLEW * passed, min(SLEW * passed, self._ahead))
                jump = (wall - self._last[0]) - passed
                if abs(jump) > JUMP_SECONDS:
                    log.warning("the machine's clock was set by %+.1f s; going there slowly", jump)
                    self._ahead += jump
            self._last = (wall, ticks)
            return datetime.fromtimestamp(0, tz=UTC) + timedelta(seconds=wall - self._ahead)


_clock = SteadyClock()


def now() -> datetime:
    """This process's steady time."""
    return _clock.now()
