"""What all tests share: the running system, real servers of other systems, and the order: the slow tests come last."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rollout.gateway import gateway
from tests.rollout.kube import kube
from tests.system import system

__all__ = ["gateway", "kube", "system"]

FLOWS = Path(__file__).parent / "flows"
LAST = "test_start_and_stop.py"  # it stops the session's system
TIMEOUT_SECONDS = 900  # the first flow starts the system


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the running system; put it last, and what stops that system at the very end."""
    for item in items:
        if FLOWS in item.path.parents:
            item.add_marker(pytest.mark.fleet)
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))
    items.sort(key=lambda item: (FLOWS in item.path.parents, item.path.name == LAST))
