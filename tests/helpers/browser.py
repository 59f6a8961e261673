"""Chromium as a phone (light) and as a desktop (dark), with the errors in its console."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Frame, Page, Request, expect, sync_playwright

from tests.helpers.serving import LONG, ROOT, wait_for

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

# Prevents requests to Google's servers. Root, as in a container, gets no sandbox.
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
    """One person's browser, with a profile of its own.

    :attr:`complaints` collects errors and warnings of its console, such as broken scripts and violations of the
    Content-Security-Policy, but not responses with an error status.
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


def let_time_pass(page: Page, until: Callable[[], object]) -> None:
    """Let the page's clock run until something is true. It stands still while a request is on its way.

    Otherwise the page would give up a request after a minute of its clock, which takes milliseconds here.
    """
    on_their_way = set[Request]()

    def forget(request: Request) -> None:
        on_their_way.discard(request)

    page.on("request", lambda request: None if request.is_navigation_request() else on_their_way.add(request))
    page.on("requestfinished", forget)
    page.on("requestfailed", forget)
    while not until():
        wait_for(lambda: page.evaluate("1") and not on_their_way, "the requests to end")
        page.clock.run_for(16_000)


def picture(page: Page, name: str) -> None:
    """Save a screenshot of a page in the output folder of the tests."""
    OUTPUT.mkdir(exist_ok=True)
    page.screenshot(path=OUTPUT / f"{name}.png", full_page=True, animations="disabled")


def barriers(place: Page | Frame) -> list[str]:
    """List the violations of axe-core's accessibility rules."""
    place.evaluate(AXE.read_text())
    violations = place.evaluate("async () => (await axe.run(document, { iframes: false })).violations")
    return [f"{rule['id']}: {node['html']}: {node['failureSummary']}" for rule in violations for node in rule["nodes"]]
