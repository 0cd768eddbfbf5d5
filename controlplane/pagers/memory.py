"""Which pages would have been sent? A pager that keeps them in this process: for tests and trials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controlplane import problems
from controlplane.pagers.base import Message, PagerError

sent: list[Message] = []


class MemoryPager:
    """`config` may hold {"fail": "retry" | "refuse" | "gone"}, to see what Davy does then."""

    def check(self, config: Mapping[str, Any], secret: str) -> None:
        """Only `fail` is known; any secret is fine."""
        for name in config:
            if name != "fail":
                raise problems.field(f"/config/{name}", "unknown_setting", "memory has the setting fail only")
        if config.get("fail", "retry") not in ("retry", "refuse", "gone"):
            raise problems.field("/config/fail", "bad_value", "retry, refuse or gone")

    def send(self, message: Message, config: Mapping[str, Any], secret: str) -> str:
        """Append to `sent`, unless told to fail."""
        if "fail" in config:
            fail = config["fail"]
            raise PagerError(f"told to {fail}", retry=fail == "retry", gone=fail == "gone")
        sent.append(message)
        return "kept"
