"""The system that all flows share; it ends with the last of them."""

from __future__ import annotations

from tests.system import system

__all__ = ["system"]
