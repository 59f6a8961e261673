"""The stand-in for Stripe.js, as front ends use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.helpers import pictures
from tests.helpers.browser import Visitor
from tests.helpers.front_end import FrontEnd
from tests.helpers.shop import Site


@pytest.fixture
def page(site: Site, visitor: Visitor) -> Iterator[Page]:
    """Open a page with the script and an element for the checkout."""
    script = f'<script src="{site.stand_in.url}/stand-in/stripe.js"></script>'
    with FrontEnd() as shop:
        shop.serve({"/shop": f'<!doctype html><link rel="icon" href="data:,">{script}<div id="checkout"></div>'})
        visitor.page.goto(f"{shop.url}/shop")
        yield visitor.page


def tried(page: Page, code: str) -> Any:
    """Run the code with a Stripe object; return its result or its error."""
    return page.evaluate(
        """async ([code]) => {
            const stripe = Stripe("pk_test_standin");
            const open = () => stripe.createEmbeddedCheckoutPage({ clientSecret: "cs_test_x_secret_y" });
            try { return await eval(`(async () => { ${code} })()`); } catch (error) { return error.message; }
        }""",
        [code],
    )


def test_a_publishable_key_is_needed(page: Page) -> None:
    assert "publishable key" in tried(page, "Stripe('sk_test_x')")


def test_there_is_one_checkout_at_a_time(page: Page) -> None:
    assert "one embedded checkout at a time" in tried(page, "await open(); await open();")
    page.reload()
    assert tried(page, "(await open()).destroy(); (await open()).destroy(); return 'fine';") == "fine"


def test_a_checkout_can_be_opened_after_its_secret_failed_to_load(page: Page) -> None:
    failing = "stripe.createEmbeddedCheckoutPage({ fetchClientSecret: async () => { throw new Error('no'); } })"
    assert tried(page, f"await {failing};") == "no"
    assert tried(page, "await open(); return 'fine';") == "fine"


def test_a_destroyed_checkout_cannot_be_mounted(page: Page) -> None:
    assert "destroyed" in tried(page, "const one = await open(); one.destroy(); one.mount('#checkout');")


def test_a_removed_function_of_stripe_js_is_refused(page: Page) -> None:
    assert "createEmbeddedCheckoutPage, and nothing else" in tried(page, "stripe.initEmbeddedCheckout({});")


def test_only_the_checkout_itself_sends_the_customer_back(page: Page) -> None:
    code = """
        (await open()).mount('#checkout');
        postMessage({ returnUrl: '/elsewhere' }, '*');
        await new Promise((resolve) => addEventListener('message', () => setTimeout(resolve)));
        return location.pathname;
    """
    assert tried(page, code) == "/shop"


def test_an_expired_checkout_shows_its_state(site: Site, page: Page) -> None:
    session_id = site.api.session_of(site.api.keep(pictures.jpeg()))
    page.evaluate(
        """async (clientSecret) => {
            const checkout = await Stripe("pk_test_x").createEmbeddedCheckoutPage({ clientSecret });
            checkout.mount("#checkout");
        }""",
        f"{session_id}_secret_x",
    )
    frame = page.frame_locator("iframe")
    frame.get_by_role("button", name="Pay $2.00").wait_for()
    site.stand_in.expire(session_id)
    frame.get_by_role("button", name="Pay $2.00").click()
    frame.get_by_text("This checkout is expired and can no longer be paid.").wait_for()
    assert not frame.get_by_role("button", name="Pay $2.00").is_visible()
