"""How is one Triton server started, again and again? Clears its leftovers, then becomes tritonserver.

`python -m demo.triton --slot a --port 8500`: HTTP on the port, gRPC on the next, metrics on the one after.
The supervisor runs this after a kill -9 too: the shared memory of the dead server is removed first, and every
model of the repository is loaded again.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path

from demo import credentials, fleet_venv, places

SHARED_MEMORY = Path("/dev/shm")
FORWARDED_HEADERS = "(?i)x-davy-.*"  # become request parameters; names keep the sender's case (Envoy: lower)


def shared_memory_prefix(here: places.Places, slot: str) -> str:
    """The beginning of this server's file names in /dev/shm, unlike that of any other var folder."""
    return f"davy-{here.mark}-{slot}-"


def clear_shared_memory(here: places.Places, slot: str) -> None:
    """Remove what a killed server of this slot left in /dev/shm."""
    for path in SHARED_MEMORY.glob(shared_memory_prefix(here, slot) + "*"):
        path.unlink(missing_ok=True)


def command(here: places.Places, slot: str, port: int) -> list[str]:
    """The tritonserver command line of one slot.

    A model that does not load must not take the others down: the server starts without it
    (`--exit-on-error=false`) and counts as ready (`--strict-readiness=false`); its own answer is 400.
    """
    flags = {
        "id": f"davy-{slot}",
        "model-repository": here.repository(slot),
        "backend-directory": fleet_venv.backends(here),
        "model-control-mode": "explicit",
        "load-model": "*",
        "exit-on-error": "false",
        "strict-readiness": "false",
        "http-address": "127.0.0.1",
        "grpc-address": "127.0.0.1",
        "metrics-address": "127.0.0.1",
        "http-port": port,
        "grpc-port": port + 1,
        "metrics-port": port + 2,
        "http-thread-count": 4,
        "http-header-forward-pattern": FORWARDED_HEADERS,
        "grpc-header-forward-pattern": FORWARDED_HEADERS,
        "allow-gpu-metrics": "false",
        "pinned-memory-pool-byte-size": 0,
        "exit-timeout-secs": 5,
    }
    words = [str(fleet_venv.triton_binary(here)), *(f"--{name}={value}" for name, value in flags.items())]
    words += [f"--metrics-config={kind}_latencies=true" for kind in ("counter", "summary", "histogram")]
    words.append(f"--backend-config=python,shm-region-prefix-name={shared_memory_prefix(here, slot)}")
    words.append("--backend-config=python,stub-timeout-seconds=60")
    return words


def environment(here: places.Places, base: Mapping[str, str]) -> dict[str, str]:
    """The server's environment: its libraries, its Python, and the collector's address and token."""
    known = credentials.read(here.credentials_file)
    token = known.get("DAVY_TELEMETRY_TOKEN") or known.get("DAVY_TOKEN", "")
    return {
        **base,
        "LD_LIBRARY_PATH": fleet_venv.library_path(here),
        # the stub embeds Python, which finds its packages through the first python3 on PATH
        "PATH": os.pathsep.join([str(here.fleet_venv / "bin"), base.get("PATH", os.defpath)]),
        "DAVY_TOKEN": token,
        "OMP_NUM_THREADS": "1",
    }


def main() -> None:
    """Become the server of one slot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slot", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    here = places.here()
    clear_shared_memory(here, options.slot)
    words = command(here, options.slot, options.port)
    os.execve(words[0], words, environment(here, os.environ))


if __name__ == "__main__":
    main()
