"""Debian's Chromium, headless, as tests and screenshots use it: whatever a page does wrong in it is collected."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

PHONE: Final = (360, 740)
SMALL: Final = (320, 640)  # the narrowest phone that is worth the trouble
DESK: Final = (1280, 900)
_ARGUMENTS: Final = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-proxy-server")
_AXE_TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]


@dataclass
class Faults:
    """What went wrong in the pages of one visit: console errors, requests elsewhere, broken pages."""

    origin: str = ""  # every request must go there; empty: the first one's
    elsewhere: tuple[str, ...] = ()  # other origins that a story visits on purpose
    found: list[str] = field(default_factory=list)
    expected: tuple[str, ...] = ()  # texts of console messages that a test brings about on purpose

    def watch(self, page: Page) -> None:
        """Collect from a page from now on."""
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.found.append(f"script failed: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not any(text in message.text for text in self.expected):
            self.found.append(f"console: {message.text} ({message.location.get('url', '')})")

    def _request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme in ("data", "blob", "about"):
            return
        origin = f"{parts.scheme}://{parts.netloc}"
        self.origin = self.origin or origin
        if origin != self.origin and origin not in self.elsewhere:
            self.found.append(f"a request to another origin: {request.url}")

    def check(self) -> None:
        """Fail when anything was collected."""
        assert not self.found, "\n".join(self.found)


@contextmanager
def chromium(*arguments: str, executable: str = "") -> Iterator[Browser]:
    """The browser; `executable` may be a script that starts it elsewhere (in a network namespace)."""
    path = executable or shutil.which("chromium")
    assert path, "there is no chromium: apt-get install chromium"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, headless=True, args=[*_ARGUMENTS, *arguments], timeout=60_000
        )
        try:
            yield browser
        finally:
            browser.close()


def visit(
    browser: Browser, size: tuple[int, int] = DESK, *, dark: bool = False, script: bool = True
) -> tuple[BrowserContext, Page, Faults]:
    """A fresh visitor: no cookies, the gateway's own certificate accepted. Close the context afterwards."""
    width, height = size
    context = browser.new_context(
        ignore_https_errors=True,
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        locale="en-GB",
    )
    context.set_default_timeout(20_000)
    page = context.new_page()
    faults = Faults()
    faults.watch(page)
    return context, page, faults


def hold(page: Page) -> None:
    """Keep a page that would load itself anew from doing so while it is looked at."""
    page.evaluate("document.querySelector('meta[http-equiv=refresh]') && window.stop()")


def accessibility_faults(page: Page, *allowed: str, only: str = "") -> list[str]:
    """What axe-core finds on a page that is serious or critical, one sentence each; `allowed` and `only` are rules."""
    source = Path(str(files("axe_playwright_python").joinpath("axe.min.js"))).read_text("utf-8")
    # Not as a script element: the page's own policy would refuse it, as it should.
    page.evaluate(f"window.axe || (() => {{ {source} }})()")
    chosen = {"type": "rule", "values": [only]} if only else {"type": "tag", "values": _AXE_TAGS}
    result = page.evaluate("runOnly => axe.run({runOnly, resultTypes: ['violations']})", chosen)
    return [
        f"{fault['id']} ({fault['impact']}): {fault['help']}: {fault['nodes'][0]['html'][:200]}"
        for fault in result["violations"]
        if fault["impact"] in ("serious", "critical") and fault["id"] not in allowed
    ]
