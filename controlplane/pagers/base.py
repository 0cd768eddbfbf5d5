"""What is a pager? One way to tell people about an alert: it checks its settings, and sends one message."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol


class PagerError(Exception):
    """The page was not taken. `retry`: the same message may be taken later; `gone`: the other end wants no more."""

    def __init__(self, message: str, *, retry: bool, gone: bool = False) -> None:
        super().__init__(message)
        self.retry = retry
        self.gone = gone


@dataclass(frozen=True)
class Message:
    """One event of one alert. `id` is the same at every attempt, so that the receiver can drop repeats."""

    id: str
    event: str  # trigger, acknowledge, resolve or test
    at: datetime  # when the event happened
    cause: str  # the receiver's dedup key: one per open alert
    severity: str
    summary: str
    detail: Mapping[str, Any]
    url: str  # the alert's page


class Pager(Protocol):
    """Port to one kind of channel."""

    def check(self, config: Mapping[str, Any], secret: str) -> None:
        """Refuse bad settings with a Problem at /config/… or /secret."""
        ...

    def send(self, message: Message, config: Mapping[str, Any], secret: str) -> str:
        """Deliver; return the receiver's answer for the log. Raises PagerError, nothing else."""
        ...
