"""The documents say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "sdk/README.md"]
DOCUMENTS += ["docs/judge-only.md", "docs/kubernetes.md", "docs/rollouts.md", "docs/envoys-elsewhere.md"]
DOCUMENTS += ["docs/monitoring.md", "docs/spc-charts.md", "docs/benchmarks.md", "docs/measurements/README.md"]


def test_every_setting_is_in_the_readme_and_no_other() -> None:
    code = (ROOT / "controlplane/settings.py").read_text()
    settings = set(re.findall(r'_(?:text|number|flag|list|networks|urls)\(\s*"([A-Z_]+)"', code))
    table = set(re.findall(r"^\| `([A-Z_]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert settings == table


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\(([^)#]+)\)", path.read_text())
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


def test_every_contract_test_that_contributing_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/.]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
