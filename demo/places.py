"""Where does everything of one running system lie? (Standard library only: nothing is installed yet.)"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLEET = "local"  # as Davy knows the fleet that serves here
SOCKET_PATH_LIMIT = 90  # the kernel takes 107 bytes; supervisor appends its process id while it binds


@dataclass(frozen=True)
class Places:
    """The folders of one running system; two systems on one machine differ in `var` only."""

    var: Path
    root: Path = ROOT

    @property
    def app_venv(self) -> Path:
        return self.root / ".venv"

    @property
    def fleet_venv(self) -> Path:
        return self.root / ".venv-fleet"

    @property
    def run(self) -> Path:
        return self.var / "run"

    @property
    def log(self) -> Path:
        return self.var / "log"

    @property
    def envoy(self) -> Path:
        """The folder that Envoy watches: routes.json and clusters.json."""
        return self.var / "fleet" / "envoy"

    def repository(self, slot: str) -> Path:
        """The model repository of one slot's server."""
        return self.var / "fleet" / slot

    @property
    def fleet_file(self) -> Path:
        """What serves: {"server": "triton"|"substitute", "config": the fleet's driver configuration}."""
        return self.var / "fleet.json"

    @property
    def credentials_file(self) -> Path:
        return self.var / "credentials.env"

    @property
    def traffic_control(self) -> Path:
        """What the live traffic is asked to send (see traffic.py); read again whenever it changes."""
        return self.var / "traffic" / "control.json"

    @property
    def traffic_counts(self) -> Path:
        """What the live traffic has sent and got, replaced every second."""
        return self.var / "traffic" / "counts.json"

    @property
    def mark(self) -> str:
        """Ten characters that only this var folder has: names shared memory and short sockets."""
        return hashlib.sha256(str(self.var).encode()).hexdigest()[:10]

    @property
    def supervisor_socket(self) -> Path:
        """In var, or in the temporary folder when var's path is too long for a unix socket."""
        path = self.run / "supervisor.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT:
            return path
        return Path(tempfile.gettempdir()) / f"davy-{os.getuid()}-{self.mark}.supervisor"

    def make(self) -> None:
        """Make the folders; safe to repeat."""
        self.var.mkdir(parents=True, exist_ok=True)
        slots = (self.repository("a"), self.repository("b"))
        for folder in (self.run, self.log, self.envoy, self.traffic_control.parent, *slots):
            folder.mkdir(parents=True, exist_ok=True)
        self.run.chmod(0o700)


def here() -> Places:
    """The places of this checkout: DAVY_VAR, or `var` beside manage.py."""
    return Places(Path(os.environ.get("DAVY_VAR", "").strip() or ROOT / "var").resolve())
