"""A real browser for tests: Debian's Chromium, and everything it complains about."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from django.db import connections
from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium")
CUT_OFF = "net::ERR_ABORTED"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@dataclass
class Browser:
    """One page of one browser. `complaints` has every console error, page error and failed load."""

    page: Page
    complaints: list[str] = field(default_factory=list)

    def sign_in(self, url: str, name: str, password: str) -> None:
        self.page.goto(f"{url}/login")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(f"{url}/")

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))


@contextmanager
def browser(width: int = 1280, height: int = 900) -> Iterator[Browser]:
    """Chromium, headless. Its event loop runs in this thread, so Django is told that the ORM may be used beside it."""
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            found = Browser(chromium.new_context(viewport={"width": width, "height": height}).new_page())
            keep = found.complaints.append
            found.page.on(
                "console", lambda said: keep(said.text) if said.type in {"error", "warning"} else None
            )
            found.page.on("pageerror", lambda error: keep(str(error)))
            found.page.on(
                "requestfailed",  # a poll that the next page cuts off has not failed
                lambda request: (
                    None if request.failure == CUT_OFF else keep(f"{request.url} {request.failure}")
                ),
            )
            yield found
            chromium.close()
            connections.close_all()  # those that Django made beside this event loop: nobody sees them after it
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]
