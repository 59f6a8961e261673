"""The page at /hero-me in a real browser: the whole journey, and all errors."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from PIL import Image
from playwright.sync_api import Dialog, FrameLocator, Page, expect

from tests.helpers import pictures
from tests.helpers.browser import Visitor, barriers, let_time_pass, picture
from tests.helpers.proxy import Stop
from tests.helpers.serving import wait_for
from tests.helpers.shop import Site

UPLOAD = b"POST /api/temp-image-upload"
RETRIEVE = b"GET /api/temp-image-retrieve"

INCOMPLETE = "This address is not complete. Please open the link that brought you here again."

SLOW = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}

TEXT_IN_FOCUS = """() => {
    const { activeElement } = document;
    return (activeElement.labels?.[0] ?? activeElement).innerText.replace(/\\s+/g, " ");
}"""


def choose(page: Page, data: bytes, name: str = "photo.jpg") -> None:
    page.get_by_label("Choose a picture").set_input_files({"name": name, "mimeType": "image/jpeg", "buffer": data})


def checkout_of(page: Page) -> FrameLocator:
    return page.frame_locator("iframe[title=Checkout]")


def go_to_checkout(site: Site, page: Page, data: bytes) -> FrameLocator:
    """Choose a picture and open the checkout."""
    page.goto(site.url)
    choose(page, data)
    page.get_by_role("button", name="Pay $2.00").click()
    return checkout_of(page)


def pay(page: Page) -> None:
    checkout_of(page).get_by_role("button", name="Pay $2.00").click()


def returning(site: Site, data: bytes) -> str:
    """Upload and pay without a browser; return the address to which Stripe sends the customer."""
    address = site.stand_in.pay(site.api.session_of(site.api.keep(data)))["return_url"]
    assert isinstance(address, str)
    return address


def expect_picture(page: Page, data: bytes) -> None:
    expect(page.get_by_role("heading", name="Here it is")).to_be_visible()
    expect(page.get_by_role("status")).to_have_text("")
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the picture").click()
    assert Path(download.value.path()).read_bytes() == data
    assert download.value.suggested_filename == "hero-me.jpg"


def expect_nothing_held(site: Site) -> None:
    wait_for(lambda: site.api.server.names() == [], "the picture to be gone")


def problem(page: Page) -> str:
    """Wait for the page to explain a problem, and return the sentence. The page shows no other message."""
    text = page.get_by_role("alert").locator("p")
    text.wait_for()
    expect(page.locator("#fetching")).to_be_hidden()
    expect(page.get_by_role("status")).to_have_text("")
    return text.inner_text()


@pytest.mark.parametrize("window", ["phone", "desktop"])
def test_a_customer_pays_and_gets_the_same_bytes_back(site: Site, visit: Callable[[str], Visitor], window: str) -> None:
    data = pictures.portrait(2048)
    visitor = visit(window)
    page = visitor.page

    def look(step: str) -> None:
        picture(page, f"{window}-{step}")
        assert barriers(page) == []

    page.goto(site.url)
    expect(page.get_by_role("heading", name="Start with a picture")).to_be_visible()
    look("1-choose")

    line = visitor.context.new_cdp_session(page)
    line.send("Network.emulateNetworkConditions", SLOW)
    choose(page, data)
    progress = page.get_by_label("Uploading")
    wait_for(lambda: 0.1 < float(progress.evaluate("bar => bar.value")) < 1, "the progress to be shown")
    look("2-uploading")
    line.send("Network.emulateNetworkConditions", {**SLOW, "uploadThroughput": -1})
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()
    expect(progress).to_be_hidden()
    look("3-uploaded")

    page.get_by_role("button", name="Pay $2.00").click()
    checkout = checkout_of(page)
    expect(checkout.get_by_text("No money moves")).to_be_visible()
    expect(page.locator("[aria-current=step]")).to_have_text("Payment")
    expect(checkout.get_by_role("heading")).to_have_text("Hero Me: your picture")
    expect(page.get_by_role("button", name="Back to the picture")).to_be_in_viewport(ratio=1)
    wait_for(lambda: checkout.locator("body").evaluate("body => innerHeight === body.offsetHeight"), "the frame to fit")
    look("4-payment")
    assert barriers(page.frames[1]) == []

    assert page.evaluate("localStorage.length") == 1
    rest = site.proxy.stop_at(Stop(RETRIEVE, after=len(data) // 2, breaks=False))
    pay(page)
    wait_for(rest.reached.is_set, "half of the picture to be back")
    expect(page.get_by_text("Fetching your picture")).to_be_visible()
    assert page.evaluate("localStorage.length") == 0
    look("5-return")
    rest.go_on.set()
    expect_picture(page, data)
    expect(page.get_by_text("your picture is back, byte for byte")).to_be_visible()
    look("6-received")

    assert page.url == site.url
    assert len(site.stand_in.sessions) == 1
    expect_nothing_held(site)
    wait_for(lambda: page.evaluate("Object.keys(sessionStorage)") == [], "the claim to be forgotten")


# In the middle of the headers, at the first bytes of the picture, within it, and just before its end.
@pytest.mark.parametrize("after", [0, 150, 700, 100_000, -1])
def test_a_connection_that_breaks_on_return_is_opened_again(site: Site, visitor: Visitor, after: int) -> None:
    data = pictures.jpeg(0.3)
    cut = site.proxy.stop_at(Stop(RETRIEVE, after=after if after >= 0 else len(data)))
    visitor.page.goto(returning(site, data))
    expect_picture(visitor.page, data)
    assert cut.reached.is_set()
    expect_nothing_held(site)


def test_a_long_loss_of_the_connection_is_explained_and_can_be_retried(site: Site, visitor: Visitor) -> None:
    page, data = visitor.page, pictures.jpeg()
    address = returning(site, data)
    page.goto(site.url)
    page.clock.install()
    page.route("**/api/temp-image-retrieve*", lambda route: route.abort("connectionreset"))
    page.goto(address)
    expect(page.get_by_role("status")).to_have_text("The connection broke. Your picture is safe. We try again in 1 s.")
    picture(page, "problem-connection-waiting")
    assert barriers(page) == []
    let_time_pass(page, page.get_by_role("alert").locator("p").is_visible)
    assert problem(page) == "The connection broke. Please check that you are online, and try again."
    picture(page, "problem-connection-lost")
    assert barriers(page) == []
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    expect_picture(page, data)


def test_a_page_reloaded_in_the_middle_of_the_retrieval_gets_the_picture(site: Site, visitor: Visitor) -> None:
    data = pictures.jpeg(0.3)
    middle = site.proxy.stop_at(Stop(RETRIEVE, after=len(data) // 2, breaks=False))
    visitor.page.goto(returning(site, data))
    wait_for(middle.reached.is_set, "half of the picture to be back")
    visitor.page.reload()
    expect_picture(visitor.page, data)
    middle.go_on.set()
    expect_nothing_held(site)


def test_one_of_two_windows_gets_the_picture_and_the_other_says_so(site: Site, visitor: Visitor) -> None:
    data = pictures.jpeg(0.3)
    address = returning(site, data)
    middle = site.proxy.stop_at(Stop(RETRIEVE, after=len(data) // 2, breaks=False))
    first, second = visitor.page, visitor.context.new_page()
    second.clock.install()
    first.goto(address)
    wait_for(middle.reached.is_set, "the first window to fetch it")
    second.goto(address)
    expect(second.get_by_role("status")).to_contain_text("Another window is opening this picture. Please look there.")
    picture(second, "problem-other-window-fetches")
    middle.go_on.set()
    expect_picture(first, data)
    expect_nothing_held(site)
    second.clock.fast_forward(300_000)
    assert problem(second) == "Another window has received this picture. Please look there."
    picture(second, "problem-other-window-has-it")
    assert barriers(second) == []


def test_a_window_closed_during_the_retrieval_leaves_the_picture_to_the_next(site: Site, visitor: Visitor) -> None:
    data = pictures.jpeg(0.3)
    address = returning(site, data)
    middle = site.proxy.stop_at(Stop(RETRIEVE, after=len(data) // 2, breaks=False))
    visitor.page.goto(address)
    wait_for(middle.reached.is_set, "the first window to fetch it")
    visitor.page.close()
    page = visitor.context.new_page()
    page.clock.install()
    page.goto(address)
    expect(page.get_by_role("status")).to_contain_text("the picture appears here in 5 min.")
    site.clock.forward(301)
    page.clock.fast_forward(301_000)
    expect_picture(page, data)


def test_a_picture_that_was_handed_over_already_is_explained(site: Site, visitor: Visitor) -> None:
    address = returning(site, pictures.jpeg())
    visitor.page.goto(address)
    expect_picture(visitor.page, pictures.jpeg())
    expect_nothing_held(site)
    visitor.page.goto(address)
    session_id = parse_qs(urlsplit(address).query)["session_id"][0]
    assert problem(visitor.page) == (
        "This picture was handed over already, or it has expired. Is it in another window? "
        f"If not, please contact us and mention this payment: {session_id}"
    )
    picture(visitor.page, "problem-handed-over")
    assert barriers(visitor.page) == []
    visitor.page.get_by_role("button", name="Start again").click()
    expect(visitor.page.get_by_role("heading", name="Start with a picture")).to_be_visible()


def test_a_large_picture_is_scaled_down_before_the_upload(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    choose(page, pictures.photograph(3000, 2000, quality=97))
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()
    assert page.locator("#preview").evaluate("image => image.naturalWidth") == 2048
    (image_id, _) = site.api.server.names()
    assert Image.open(BytesIO(site.api.retrieve(image_id).content)).size == (2048, 1365)


def test_a_heic_photograph_that_the_browser_cannot_open_is_explained(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    choose(page, pictures.encode(pictures.quarters(), "HEIF"), "IMG_1.HEIC")
    assert problem(page).startswith("This photograph is a HEIC file, which this browser cannot open.")
    picture(page, "problem-heic")
    assert barriers(page) == []


def test_a_heic_photograph_is_kept_until_its_decoder_loads(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    page.evaluate("""async () => {
        const { setHeicDecoder } = await import("/static/heroimg.js");
        const image = { is_primary: () => true, get_width: () => 40, get_height: () => 20 };
        image.display = (pixels, done) => done(pixels);
        const loaded = { HeifDecoder: class { decode = () => [image]; } };
        let isOnline = false;
        setHeicDecoder(async () => {
            if (isOnline) return { default: loaded };
            isOnline = true;
            throw new TypeError("Failed to fetch");
        });
    }""")
    choose(page, pictures.encode(pictures.quarters(), "HEIF"), "IMG_1.HEIC")
    assert problem(page).startswith("The program that opens this HEIC photograph did not load.")
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()


def test_html_named_jpg_is_refused_and_another_picture_is_taken(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    choose(page, b"<!doctype html><script>alert(1)</script>")
    assert problem(page) == "This browser cannot open this file as a picture. Please choose a JPEG or PNG."
    picture(page, "problem-not-a-picture")
    assert barriers(page) == []
    expect(page.get_by_role("button", name="Pay $2.00")).to_be_hidden()
    choose(page, pictures.png(), "photo.png")
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()


def test_an_upload_whose_connection_breaks_is_sent_again(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    page.clock.install()
    site.proxy.stop_at(Stop(UPLOAD, after=100_000, upwards=True, lasting=True))
    choose(page, pictures.jpeg(0.3))
    broken = "The connection broke. Please check that you are online, and try again."
    expect(page.get_by_role("status")).to_have_text(f"{broken} We try again in 1 s.")
    expect(page.get_by_text("Waiting")).to_be_visible()
    let_time_pass(page, page.get_by_role("alert").locator("p").is_visible)
    assert problem(page) == "The picture cannot be sent. Please try again, or choose a smaller one."
    site.proxy.clear()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()
    wait_for(lambda: len(site.api.server.names()) == 2, "one picture to be held")


def test_an_upload_can_be_stopped_for_another_picture(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    middle = site.proxy.stop_at(Stop(UPLOAD, after=100_000, upwards=True, breaks=False))
    choose(page, pictures.jpeg(0.3))
    wait_for(middle.reached.is_set, "the upload to be on its way")
    expect(page.get_by_role("button", name="Pay $2.00")).to_be_hidden()
    with page.expect_event("requestfailed"):
        page.get_by_role("button", name="Choose another picture").click()
    expect(page.get_by_role("heading", name="Start with a picture")).to_be_visible()
    expect(page.locator("#problem p")).to_have_count(0)
    choose(page, pictures.jpeg())
    page.get_by_role("button", name="Pay $2.00").click()
    middle.go_on.set()
    pay(page)
    expect_picture(page, pictures.jpeg())


def test_an_expired_picture_is_uploaded_again(site: Site, visitor: Visitor) -> None:
    page, data = visitor.page, pictures.jpeg()
    page.goto(site.url)
    choose(page, data)
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()
    site.clock.forward(3601)
    page.get_by_role("button", name="Pay $2.00").click()
    expect(page.get_by_text("Your picture had expired, so we uploaded it again. Nothing is lost.")).to_be_visible()
    picture(page, "problem-hour-ran-out")
    pay(page)
    expect_picture(page, data)


def test_a_picture_that_expired_after_the_payment_is_explained(site: Site, visitor: Visitor) -> None:
    site.stand_in.webhook_url = None
    address = returning(site, pictures.jpeg())
    site.clock.forward(3601)
    visitor.page.goto(address)
    assert "it has expired" in problem(visitor.page)


def test_an_unreachable_stripe_is_explained_and_can_be_retried(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    choose(page, pictures.jpeg())
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()
    page.clock.install()
    site.stand_in.fail_next("disconnect", 2)
    page.get_by_role("button", name="Pay $2.00").click()
    sentence = "The payment service cannot be reached just now. Please try again in a moment."
    expect(page.get_by_role("status")).to_contain_text(f"{sentence} Your picture is safe. We try again in")
    refusal = {"status": 503, "json": {"error": sentence, "code": "payment_unreachable"}}
    page.route(
        "**/api/checkout/embedded-session", lambda route: route.fulfill(**refusal, headers={"Retry-After": "60"})
    )
    let_time_pass(page, page.get_by_role("alert").locator("p").is_visible)
    assert problem(page) == sentence
    page.unroute_all()
    picture(page, "problem-stripe-out-of-reach")
    assert barriers(page) == []
    page.get_by_role("button", name="Try again").click()
    pay(page)
    expect_picture(page, pictures.jpeg())


@pytest.mark.parametrize(
    ("failure", "sentence"),
    [
        ("disconnect", "The payment service cannot be reached just now."),
        ("500", "The payment service could not do that."),
    ],
)
def test_a_failure_of_stripe_is_retried_on_return(site: Site, visitor: Visitor, failure: str, sentence: str) -> None:
    address = returning(site, pictures.jpeg())
    site.stand_in.fail_next(failure, 2)
    visitor.page.clock.install()
    visitor.page.goto(address)
    status = visitor.page.get_by_role("status")
    expect(status).to_contain_text(sentence)
    visitor.page.clock.fast_forward(60_000)
    expect_picture(visitor.page, pictures.jpeg())


def test_a_checkout_that_cannot_be_loaded_is_explained_and_can_be_retried(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.route("**/stripe.js", lambda route: route.abort())
    page.goto(site.url)
    choose(page, pictures.jpeg())
    page.get_by_role("button", name="Pay $2.00").click()
    assert problem(page) == "The checkout could not be loaded. Please check your connection and your content blocker."
    page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    pay(page)
    expect_picture(page, pictures.jpeg())


def test_a_declined_card_is_explained_and_another_card_pays(site: Site, visitor: Visitor) -> None:
    checkout = go_to_checkout(site, visitor.page, pictures.jpeg())
    checkout.get_by_role("button", name="Pay with a declined card").click()
    expect(checkout.get_by_role("alert")).to_have_text(
        "Your card was declined. Nothing was charged. Please try another card."
    )
    picture(visitor.page, "problem-declined")
    assert barriers(visitor.page.frames[1]) == []
    pay(visitor.page)
    expect_picture(visitor.page, pictures.jpeg())


def test_a_checkout_that_was_closed_can_be_opened_again_or_left(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    checkout = go_to_checkout(site, page, pictures.jpeg())
    checkout.get_by_role("button", name="Close without paying").click()
    expect(checkout.get_by_role("alert")).to_have_text("You closed the checkout. Nothing was charged.")
    checkout.get_by_role("button", name="Open the checkout again").click()
    expect(checkout.get_by_role("button", name="Pay $2.00")).to_be_visible()
    page.get_by_role("button", name="Back to the picture").click()
    expect(page.get_by_text("Your picture is still safe with us.")).to_be_visible()
    page.get_by_role("button", name="Choose another picture").click()
    choose(page, pictures.png(), "photo.png")
    page.get_by_role("button", name="Pay $2.00").click()
    pay(page)
    expect(page.get_by_role("heading", name="Here it is")).to_be_visible()
    expect(page.get_by_role("link", name="Save the picture")).to_have_attribute("download", "hero-me.png")


def test_a_customer_who_comes_back_without_having_paid_can_still_pay(site: Site, visitor: Visitor) -> None:
    session_id = site.api.session_of(site.api.keep(pictures.jpeg()))
    visitor.page.goto(f"{site.url}?session_id={session_id}")
    assert problem(visitor.page) == "You have not paid yet."
    visitor.page.get_by_role("button", name="Continue to the payment").click()
    # The frame grows and shrinks with its content, and a click on the button below could hit the frame.
    expect(checkout_of(visitor.page).get_by_role("button", name="Pay $2.00")).to_be_visible()
    visitor.page.get_by_role("button", name="Back to the picture").click()
    assert problem(visitor.page) == "You have not paid yet."
    visitor.page.get_by_role("button", name="Continue to the payment").click()
    pay(visitor.page)
    expect_picture(visitor.page, pictures.jpeg())


def test_a_picture_that_expired_before_the_payment_is_explained(site: Site, visitor: Visitor) -> None:
    session_id = site.api.session_of(site.api.keep(pictures.jpeg()))
    visitor.page.goto(f"{site.url}?session_id={session_id}")
    assert problem(visitor.page) == "You have not paid yet."
    site.clock.forward(3601)
    visitor.page.get_by_role("button", name="Continue to the payment").click()
    expect(visitor.page.get_by_role("alert")).to_contain_text("This picture has expired, and we no longer have it.")
    visitor.page.get_by_role("button", name="Start again").click()
    expect(visitor.page).to_have_url(site.url)
    expect(visitor.page.locator("#problem p")).to_have_count(0)


def test_an_expired_checkout_says_that_nothing_was_charged(site: Site, visitor: Visitor) -> None:
    session_id = site.api.session_of(site.api.keep(pictures.jpeg()))
    site.stand_in.expire(session_id)
    visitor.page.goto(f"{site.url}?session_id={session_id}")
    assert problem(visitor.page) == "The time to pay ran out. Nothing was charged."


def test_a_picture_paid_by_bank_debit_comes_once_the_money_arrived(site: Site, visitor: Visitor) -> None:
    checkout = go_to_checkout(site, visitor.page, pictures.jpeg())
    checkout.get_by_role("button", name="Pay by bank debit").click()
    assert problem(visitor.page).startswith("Your bank has not confirmed the payment yet.")
    (session_id,) = site.stand_in.sessions
    site.stand_in.settle(session_id)
    visitor.page.get_by_role("button", name="Check again").click()
    expect_picture(visitor.page, pictures.jpeg())


def test_a_picture_paid_for_in_another_window_is_not_paid_for_again(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    choose(page, pictures.jpeg())
    page.get_by_role("button", name="Pay $2.00").click()
    expect(checkout_of(page).get_by_text("No money moves")).to_be_visible()
    page.get_by_role("button", name="Back to the picture").click()
    (session_id,) = site.stand_in.sessions
    site.stand_in.pay(session_id)
    page.get_by_role("button", name="Pay $2.00").click()
    assert problem(page) == "This picture has been paid for already."
    page.get_by_role("button", name="Get the picture").click()
    expect_picture(page, pictures.jpeg())


def test_a_session_that_stripe_does_not_know_is_explained(site: Site, visitor: Visitor) -> None:
    visitor.page.goto(f"{site.url}?session_id=cs_test_nobodys")
    assert problem(visitor.page) == INCOMPLETE


def test_a_session_id_in_the_address_is_shown_as_text(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(f"{site.url}?session_id=%3Cimg%20src=x%20onerror=alert(1)%3E")
    assert problem(page) == INCOMPLETE
    complete = {"status": "complete", "payment_status": "paid", "metadata": {"imageId": "0" * 32}}
    page.route("**/api/checkout/session-status*", lambda route: route.fulfill(json=complete))
    page.reload()
    assert problem(page).endswith("<img src=x onerror=alert(1)>")
    assert page.locator("img[src=x]").count() == 0


def test_a_browser_that_forbids_storage_makes_the_whole_journey(site: Site, visitor: Visitor) -> None:
    for name in ("localStorage", "sessionStorage"):
        forbidden = "{ get() { throw new DOMException('no') } }"
        visitor.page.add_init_script(f"Object.defineProperty(window, '{name}', {forbidden})")
    go_to_checkout(site, visitor.page, pictures.jpeg())
    pay(visitor.page)
    expect_picture(visitor.page, pictures.jpeg())
    expect_nothing_held(site)


def test_a_checkout_that_opens_after_another_picture_was_chosen_is_not_shown(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    choose(page, pictures.png(), "first.png")
    held = site.stand_in.hold()
    page.get_by_role("button", name="Pay $2.00").click()
    wait_for(held.is_set, "the checkout to be on its way")
    expect(page.get_by_role("button", name="Pay $2.00")).to_be_disabled()
    expect(page.get_by_role("status")).to_have_text("Opening the checkout…")
    page.get_by_role("button", name="Choose another picture").click()
    choose(page, pictures.jpeg())
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()
    with page.expect_response("**/api/checkout/embedded-session"):
        site.stand_in.release()
    page.get_by_role("button", name="Pay $2.00").click()
    pay(page)
    expect_picture(page, pictures.jpeg())


def test_another_picture_can_be_paid_for_while_the_first_ones_checkout_waits(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    choose(page, pictures.png(), "first.png")
    refusal = {"status": 503, "json": {"error": "Later.", "code": "payment_unreachable"}}
    session = "**/api/checkout/embedded-session"
    page.route(session, lambda route: route.fulfill(**refusal, headers={"Retry-After": "60"}))
    page.get_by_role("button", name="Pay $2.00").click()
    expect(page.get_by_role("status")).to_contain_text("We try again in 60 s.")
    page.unroute(session)
    page.get_by_role("button", name="Choose another picture").click()
    choose(page, pictures.jpeg())
    page.get_by_role("button", name="Pay $2.00").click()
    pay(page)
    expect_picture(page, pictures.jpeg())


def test_a_picture_paid_for_and_fetched_in_another_window_is_not_sold_again(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    go_to_checkout(site, page, pictures.jpeg())
    expect(checkout_of(page).get_by_text("No money moves")).to_be_visible()
    (session_id,) = site.stand_in.sessions
    elsewhere = visitor.context.new_page()
    elsewhere.goto(str(site.stand_in.pay(session_id)["return_url"]))
    expect_picture(elsewhere, pictures.jpeg())
    expect_nothing_held(site)
    page.get_by_role("button", name="Back to the picture").click()
    page.get_by_role("button", name="Pay $2.00").click()
    assert problem(page) == "This picture has been paid for already."
    page.get_by_role("button", name="Get the picture").click()
    assert session_id in problem(page)
    assert len(site.stand_in.sessions) == 1


def test_leaving_the_page_needs_confirmation_until_the_picture_is_saved(site: Site, visitor: Visitor) -> None:
    page, asked = visitor.page, list[str]()

    def leave(dialog: Dialog) -> None:
        asked.append(dialog.type)
        dialog.accept()

    page.on("dialog", leave)
    for is_saved in (False, True):
        page.goto(returning(site, pictures.jpeg()))
        expect(page.get_by_role("heading", name="Here it is")).to_be_visible()
        page.get_by_role("heading", name="Here it is").click()
        if is_saved:
            expect_picture(page, pictures.jpeg())
        page.reload()
        expect(page.get_by_role("heading", name="Start with a picture")).to_be_visible()
    assert asked == ["beforeunload"]


def test_a_problem_is_in_view_and_its_button_has_the_focus(site: Site, visit: Callable[[str], Visitor]) -> None:
    page = visit("phone").page
    page.set_viewport_size({"width": 375, "height": 500})
    page.goto(site.url)
    choose(page, pictures.portrait())
    page.route("**/stripe.js", lambda route: route.abort())
    page.get_by_role("button", name="Pay $2.00").click()
    again = page.get_by_role("button", name="Try again")
    expect(again).to_be_focused()
    expect(again).to_be_in_viewport(ratio=1)
    page.unroute_all()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Payment")).to_be_focused()


def test_a_picture_can_be_dropped_on_the_page(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    drop = page.evaluate_handle(
        """(numbers) => {
            const drop = new DataTransfer();
            drop.items.add(new File([new Uint8Array(numbers)], "photo.jpg", { type: "image/jpeg" }));
            return drop;
        }""",
        list(pictures.jpeg()),
    )
    for kind in ("dragover", "drop"):
        page.dispatch_event("#drop svg", kind, {"dataTransfer": drop})
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()


def test_a_picture_can_be_pasted_into_the_page(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(site.url)
    page.evaluate(
        """(numbers) => {
            const clipboardData = new DataTransfer();
            clipboardData.items.add(new File([new Uint8Array(numbers)], "image.png", { type: "image/png" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData }));
        }""",
        list(pictures.png()),
    )
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()


@pytest.mark.parametrize("has_paid", [True, False])
def test_a_customer_can_continue_on_a_page_from_the_browsers_cache(
    site: Site, visitor: Visitor, has_paid: bool
) -> None:
    page = visitor.page
    go_to_checkout(site, page, pictures.jpeg())
    expect(checkout_of(page).get_by_text("No money moves")).to_be_visible()
    (session_id,) = site.stand_in.sessions
    if has_paid:
        site.stand_in.pay(session_id)
    # The browser's cache of pages is off under Playwright; tests/browser/test_engines.py uses the real one.
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    if has_paid:
        return expect_picture(page, pictures.jpeg())
    assert problem(page) == "You have not paid yet."
    page.get_by_role("button", name="Continue to the payment").click()
    pay(page)
    return expect_picture(page, pictures.jpeg())


def test_the_journey_works_by_keyboard_alone(site: Site, visitor: Visitor, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(pictures.jpeg())
    page = visitor.page

    def press(name: str) -> None:
        for _ in range(20):
            page.keyboard.press("Tab")
            place = page.frames[-1] if page.evaluate("document.activeElement.tagName") == "IFRAME" else page
            if name in place.evaluate(TEXT_IN_FOCUS):
                page.keyboard.press("Enter")
                return
        raise AssertionError(f"no {name} within reach")

    page.goto(site.url)
    with page.expect_file_chooser() as chooser:
        press("Choose a picture")
    chooser.value.set_files(tmp_path / "photo.jpg")
    expect(page.get_by_role("heading", name="Your picture")).to_be_focused()
    expect(page.get_by_text("Your picture is safe with us")).to_be_visible()
    press("Pay $2.00")
    expect(page.get_by_role("heading", name="Payment")).to_be_focused()
    expect(checkout_of(page).get_by_role("button", name="Pay $2.00")).to_be_visible()
    press("Pay $2.00")
    expect(page.get_by_role("heading", name="Here it is")).to_be_focused()
    press("Start with another picture")
    expect(page.get_by_role("heading", name="Start with a picture")).to_be_focused()


def test_the_root_redirects_to_the_page(site: Site) -> None:
    answer = requests.get(f"{site.api.server.url}/", timeout=20)
    assert urlsplit(answer.url).path == "/hero-me"
    assert answer.status_code == 200


def test_the_page_allows_no_inline_code_and_no_other_origins(site: Site) -> None:
    headers = requests.get(f"{site.api.server.url}/hero-me", timeout=20).headers
    policy = dict(part.split(" ", 1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == f"'self' {site.stand_in.url}"
    assert policy["frame-src"] == site.stand_in.url
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "strict-origin-when-cross-origin"
    assert headers["Cache-Control"] == "no-store"
