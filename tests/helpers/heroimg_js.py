"""heroimg.js, called from a blank page of Chromium."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page

STATUS = "**/api/checkout/session-status*"

# Calls a function with the module as `heroimg`. An error comes back as an object.
CALL = """async ([url, argument]) => {
    const heroimg = await import(url);
    const fieldsOf = ({ name, code, message, status, retryAfter }) => ({ name, code, message, status, retryAfter });
    try { return await (%s)(heroimg, argument); } catch (error) { return { failure: fieldsOf(error) }; }
}"""


def call(page: Page, code: str, argument: object = None, origin: str = "") -> Any:
    """Call a function with the module in the page; return its result, or `{"failure": ...}`."""
    return page.evaluate(CALL % code, [f"{origin}/static/heroimg.js", argument])


def waits(page: Page, code: str, answers: list[dict[str, Any]], path: str = STATUS) -> list[Any]:
    """Answer with these, one after another. Return the arguments of each `onWait`, then "done" or an error's code."""
    page.route(path, lambda route: route.fulfill(**answers.pop(0)) if answers else route.abort("connectionreset"))
    page.clock.install()
    page.evaluate(
        f"""async () => {{
            const heroimg = await import("/static/heroimg.js");
            window.reports = [];
            window.begun = Date.now();
            const onWait = ({{ code, status }}, seconds) => reports.push([code, status, seconds]);
            ({code})(heroimg, onWait).then(
                () => reports.push("done"), ({{ code }}) => reports.push(code),
            ).finally(() => (window.ended = Date.now()));
        }}"""
    )
    for _ in range(400):
        page.clock.run_for(1000)
        reports: list[Any] = page.evaluate("reports")
        if reports and isinstance(reports[-1], str):
            return reports
    raise AssertionError(reports)


def answer(status: int, code: str, **headers: str) -> dict[str, Any]:
    return {"status": status, "json": {"code": code, "error": "Later."}, "headers": headers}
