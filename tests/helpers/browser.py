"""Chromium, as a phone by day and as a desktop by night, with an eye on what it complains about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Frame, Page, expect, sync_playwright

from tests.helpers.serving import LONG, ROOT

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
OUTPUT = ROOT / "test-output"

WINDOWS: dict[str, dict[str, Any]] = {
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
    "desktop": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}

# Without these it looks for Google's servers; root, as in a container, gets no sandbox.
_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=_ARGUMENTS)
        expect.set_options(timeout=LONG * 1000)
        yield browser
        browser.close()


class Visitor:
    """One person's browser: a profile of its own, and as many windows as are opened in it.

    :attr:`complaints` gathers what its console calls an error, beyond answers that are no 200: broken scripts, and what
    the Content-Security-Policy forbids.
    """

    def __init__(self, browser: Browser, window: str) -> None:
        self.context: BrowserContext = browser.new_context(**WINDOWS[window], locale="en-US")
        self.context.set_default_timeout(LONG * 1000)
        self.complaints: list[str] = []
        self.context.on("weberror", lambda error: self.complaints.append(str(error.error)))
        self.context.on("console", lambda message: self._hear(message.type, message.text))
        self.page = self.context.new_page()

    def _hear(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith("Failed to load resource"):
            self.complaints.append(text)


def picture(page: Page, name: str) -> None:
    """Keep what a page looks like, as output of the tests."""
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}.png", full_page=True, animations="disabled")


def barriers(place: Page | Frame) -> list[str]:
    """Find what keeps people out, by axe-core's rules, all of them."""
    place.evaluate(AXE.read_text())
    found = place.evaluate("async () => (await axe.run(document, { iframes: false })).violations")
    return [f"{rule['id']}: {node['html']}: {node['failureSummary']}" for rule in found for node in rule["nodes"]]
