"""Claims about the house: its imports point down only, and every contract that says so can fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("controlplane", "monitoring", "rollout", "labeling", "sdk", "demo")
CONTRACTS = tomllib.loads((ROOT / "importlinter.toml").read_text())["tool"]["importlinter"]["contracts"]
VIOLATIONS = {
    "packages": ("monitoring/windows.py", "import rollout.models"),
    "controlplane-knows-no-app": ("controlplane/alerts.py", "import monitoring.models"),
    "http-only": ("sdk/davy/counting.py", "import controlplane.problems"),
    "controlplane": ("controlplane/registry.py", "import controlplane.http"),
    "monitoring": ("monitoring/references.py", "import monitoring.checks"),
    "rollout": ("rollout/phases.py", "import rollout.tick"),
    "labeling": ("labeling/routing.py", "import labeling.queue"),
    "pure": ("rollout/judge/counts.py", "import random"),
    "celery": ("rollout/tick.py", "import celery"),
    "doors": ("rollout/drivers/triton.py", "import requests"),
    "drivers": ("rollout/drivers/envoy/driver.py", "import rollout.drivers.memory"),
    "gates": ("rollout/gates/errors.py", "import rollout.gates.latency"),
    "holds": ("rollout/holds/webhook.py", "import rollout.holds.approval"),
    "pagers": ("controlplane/pagers/log.py", "import controlplane.pagers.memory"),
    "detectors": ("monitoring/detectors/embedding_drift.py", "import monitoring.detectors.confidence_chart"),
    "samplers": ("labeling/samplers/band.py", "import labeling.samplers.measure"),
    "exports": ("labeling/exports/csv.py", "import labeling.exports.jsonl"),
}


@pytest.fixture(scope="module")
def house(tmp_path_factory) -> Path:
    """A copy of the source that tests may damage; each puts back what it changed."""
    copy = tmp_path_factory.mktemp("house")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=_not_python)
    shutil.copy(ROOT / "importlinter.toml", copy)
    return copy


def _not_python(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not name.endswith(".py") and not (Path(folder) / name).is_dir()} | {
        "__pycache__"
    }


def lint(house: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).with_name("lint-imports")),
        *("--config", "importlinter.toml", "--cache-dir", ".cache"),
        *(part for contract in contracts for part in ("--contract", contract)),
    ]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join((str(house), str(house / "sdk")))}
    return subprocess.run(command, cwd=house, env=environ, capture_output=True, text=True, check=False)


def test_the_house_stands(house):
    result = lint(house)
    assert result.returncode == 0, result.stdout


def test_every_contract_has_a_violation_to_try():
    assert [contract["id"] for contract in CONTRACTS] == list(VIOLATIONS)


@pytest.mark.parametrize("contract", VIOLATIONS)
def test_a_planted_violation_breaks_its_contract(house, contract):
    name, line = VIOLATIONS[contract]
    file = house / name
    sound = file.read_text()
    file.write_text(f"{sound}\n{line}\n")
    try:
        result = lint(house, contract)
    finally:
        file.write_text(sound)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout
    importer = ".".join(Path(name.removeprefix("sdk/")).with_suffix("").parts)
    assert f"{importer} -> {line.removeprefix('import ')}" in " ".join(result.stdout.split())


@pytest.mark.parametrize("package", ["controlplane", "monitoring", "rollout", "labeling"])
def test_a_file_without_a_place_in_the_house_is_noticed(house, package):
    stray = house / package / "helpers.py"
    stray.write_text("")
    try:
        result = lint(house, package)
    finally:
        stray.unlink()
    assert result.returncode == 1
    assert f"{package}.helpers" in result.stdout


def test_urllib_is_for_taking_urls_apart_only():
    """import-linter sees urllib as one module, so the door that urllib.request would be is watched here."""
    apps = [path for package in PACKAGES[:4] for path in (ROOT / package).rglob("*.py")]
    assert [str(path) for path in apps if "urllib.request" in path.read_text()] == []
