"""How is the running system reached? var/credentials.env: NAME=value lines for shells and Python."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path


def read(path: Path) -> dict[str, str]:
    """The credentials by name; empty when there are none yet."""
    if not path.exists():
        return {}
    lines = [line.partition("=") for line in path.read_text().splitlines() if "=" in line]
    return {name: "".join(shlex.split(value)) for name, _, value in lines}


def write(path: Path, values: Mapping[str, str]) -> None:
    """Replace the file as a whole, readable by its owner only (mode 600)."""
    text = "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
