"""Which kinds of channel are there? Add a pager: one file, one line in this table."""

from __future__ import annotations

from controlplane import problems
from controlplane.pagers.base import Pager
from controlplane.pagers.log import LogPager
from controlplane.pagers.memory import MemoryPager
from controlplane.pagers.webhook import WebhookPager

PAGERS: dict[str, Pager] = {
    "log": LogPager(),
    "memory": MemoryPager(),
    "webhook": WebhookPager(),
}


def get(kind: str) -> Pager:
    """The pager of that kind; a problem at /kind when there is none."""
    if kind not in PAGERS:
        raise problems.field("/kind", "unknown_pager", f"no pager {kind!r}; there are {', '.join(PAGERS)}")
    return PAGERS[kind]
