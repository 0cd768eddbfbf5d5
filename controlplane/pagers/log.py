"""How is a page kept where no receiver is configured? As one line in the log `davy.alerts`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from controlplane import problems
from controlplane.pagers.base import Message

logger = logging.getLogger("davy.alerts")
LEVELS = {"critical": logging.CRITICAL, "error": logging.ERROR, "warning": logging.WARNING}


class LogPager:
    """Needs no settings and no secret."""

    def check(self, config: Mapping[str, Any], secret: str) -> None:
        """Anything given is refused, because it would be ignored."""
        for name in config:
            raise problems.field(f"/config/{name}", "unknown_setting", "the log has no settings")
        if secret:
            raise problems.field("/secret", "unknown_setting", "the log has no secret")

    def send(self, message: Message, config: Mapping[str, Any], secret: str) -> str:
        """Write the line; its level follows the severity."""
        level = LEVELS.get(message.severity, logging.INFO)
        summary = " ".join(message.summary.split())
        logger.log(
            level, "%s %s [%s] %s %s", message.event, message.severity, message.cause, summary, message.url
        )
        return "logged"
