"""What all tests share: real servers of other systems, and the order: where the flows stand, which take minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from xdist.remote import Producer

from tests.rollout.gateway import gateway
from tests.rollout.kube import kube
from tests.workers import Units

__all__ = ["gateway", "kube"]

FLOWS = Path(__file__).parent / "flows"
LAST = "test_start_and_stop.py"  # it stops the flows' system
TIMEOUT_SECONDS = 900  # the first flow starts the system


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs the running system. One process leaves it to the end; of several, one begins with it."""
    first = hasattr(config, "workerinput")
    for item in items:
        if FLOWS in item.path.parents:
            item.add_marker(pytest.mark.fleet)
            item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))
    items.sort(key=lambda item: ((FLOWS in item.path.parents) != first, item.path.name == LAST))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Units:
    config.option.loadscopereorder = False  # the order of collection is meant
    return Units(config, log)
