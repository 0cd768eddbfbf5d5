"""What do users send and get? The live traffic's control and counts files, as the story uses them."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo.setup import SetupError

STALE_SECONDS = 60.0


@dataclass(frozen=True)
class Count:
    """Requests of one model (or of all) since the traffic started."""

    sent: int
    failed: int


class Users:
    """The live traffic of a running system."""

    def __init__(self, control: Path, counts: Path) -> None:
        self._control, self._counts = control, counts
        self._lock = threading.Lock()

    def ask(self, rates: dict[str, float]) -> dict[str, Any]:
        """Set the models' rates (requests a second); return what was asked before."""
        with self._lock:
            before: dict[str, Any] = json.loads(self._control.read_text())
            models = {name: {**before["models"].get(name, {}), "rate": rate} for name, rate in rates.items()}
            self._write({"models": {**before["models"], **models}})
        return before

    def look(self, model: str, look: str) -> None:
        """Change what the camera does to a model's images."""
        with self._lock:
            control = json.loads(self._control.read_text())
            control["models"][model]["look"] = look
            self._write(control)

    def restore(self, control: dict[str, Any]) -> None:
        """Put back what `ask` returned."""
        with self._lock:
            self._write(control)

    def _write(self, control: dict[str, Any]) -> None:
        incoming = self._control.with_suffix(".incoming")
        incoming.write_text(json.dumps(control, indent=1) + "\n")
        incoming.rename(self._control)

    def count(self, model: str) -> Count:
        """What users of a model have sent, and what failed."""
        found = json.loads(self._counts.read_text())["models"].get(model, {})
        return Count(int(found.get("sent", 0)), int(found.get("failed", 0)))

    def totals(self) -> Count:
        """The same over all models."""
        found = json.loads(self._counts.read_text())["models"].values()
        return Count(sum(int(m["sent"]) for m in found), sum(int(m["failed"]) for m in found))

    def wait_for_more(self, model: str, requests: int) -> None:
        """Wait until users of a model have sent so many more; SetupError when traffic stands still."""
        wanted, deadline = self.count(model).sent + requests, time.monotonic() + STALE_SECONDS
        while self.count(model).sent < wanted:
            if time.monotonic() > deadline:
                raise SetupError(f"{requests} requests to {model} did not come within {STALE_SECONDS:.0f} s")
            time.sleep(0.2)
