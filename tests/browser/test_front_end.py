"""A front end on another origin: who is admitted, and that what docs/front-end.md shows works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, Route, expect

from demo.stripe_stand_in import StandIn
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.browser import Visitor
from tests.helpers.fenced_files import fenced_files
from tests.helpers.front_end import FrontEnd
from tests.helpers.node_tools import run_node_tool
from tests.helpers.serving import LONG, ROOT, DrivenClock, serving_at, wait_for
from tests.helpers.shop import Shop, stripe_settings

SNIPPETS = fenced_files(ROOT / "docs" / "front-end.md")
CLIENT = (ROOT / "heroimg" / "static" / "heroimg.js").read_text()


class ShopElsewhere(Shop):
    """A shop whose front end is on another origin than heroimg."""

    def __init__(self, api: Api, stand_in: StandIn, clock: DrivenClock, front_end: FrontEnd) -> None:
        super().__init__(api, stand_in, clock)
        self.front_end = front_end

    def fill_in(self, code: str) -> str:
        """Put this shop's address and key where the documentation has an example's."""
        return code.replace("https://pictures.example.com", self.api.server.url).replace(
            "pk_test_...", "pk_test_standin"
        )


@pytest.fixture(scope="module")
def open_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShopElsewhere]:
    folder = tmp_path_factory.mktemp("elsewhere")
    clock = DrivenClock(folder / "clock")
    with StandIn(clock=clock) as stand_in, FrontEnd() as front_end:
        settings = {"FRONTEND_URL": front_end.url, **stripe_settings(stand_in)}
        with serving_at(clock, folder / "served", settings) as server:
            yield ShopElsewhere(Api(server), stand_in, clock, front_end)


@pytest.fixture
def shop(open_elsewhere: ShopElsewhere) -> ShopElsewhere:
    open_elsewhere.clear()
    return open_elsewhere


@pytest.fixture
def visitor(visit: Callable[[str], Visitor]) -> Visitor:
    return visit("phone")


@pytest.fixture
def page(shop: ShopElsewhere, visitor: Visitor) -> Page:
    """Open a browser in which js.stripe.com is the stand-in."""
    page = visitor.page

    def stand_in(route: Route) -> None:
        request = route.request
        path = request.url.removeprefix("https://js.stripe.com").replace("/endive/", "/stand-in/")
        answer = requests.request(request.method, shop.stand_in.url + path, timeout=LONG)
        route.fulfill(status=answer.status_code, headers=dict(answer.headers), body=answer.content)

    page.route("https://js.stripe.com/**", stand_in)
    return page


def choose(page: Page, data: bytes) -> None:
    page.get_by_label("Your picture").set_input_files({"name": "a.jpg", "mimeType": "image/jpeg", "buffer": data})


def choose_and_pay(page: Page, data: bytes) -> None:
    choose(page, data)
    page.frame_locator("iframe[title=Checkout]").get_by_role("button", name="Pay $2.00").click()


def picture_saved(page: Page) -> bytes:
    """Wait for the picture, and save it."""
    with page.expect_download() as download:
        page.get_by_role("link", name="Save your picture").click()
    return Path(download.value.path()).read_bytes()


def test_the_plain_page_of_the_documentation_pays_and_comes_back(shop: ShopElsewhere, page: Page) -> None:
    shop.front_end.serve({"/hero-me": shop.fill_in(SNIPPETS["hero-me.html"])})
    page.goto(f"{shop.front_end.url}/hero-me")
    choose_and_pay(page, pictures.jpeg())
    assert picture_saved(page) == pictures.jpeg()
    wait_for(lambda: shop.api.server.names() == [], "the picture to be gone")


def test_the_plain_page_works_with_the_policy_of_the_documentation(shop: ShopElsewhere, page: Page) -> None:
    snippets = fenced_files(ROOT / "docs" / "front-end.md")
    html, _, script = shop.fill_in(snippets["hero-me.html"]).partition('<script type="module">')
    script, _, end = script.partition("</script>")
    html += f'<script type="module" src="/hero-me.js"></script>{end}'
    shop.front_end.serve({"/hero-me.js": script})
    policy = " ".join(shop.fill_in(snippets["policy"]).split())
    headers = {"Content-Security-Policy": policy}
    shop.front_end.expect_request("/hero-me").respond_with_data(html, content_type="text/html", headers=headers)
    page.goto(f"{shop.front_end.url}/hero-me")
    choose_and_pay(page, pictures.jpeg())
    assert picture_saved(page) == pictures.jpeg()


def test_the_plain_page_of_the_documentation_tells_failures(shop: ShopElsewhere, page: Page) -> None:
    shop.front_end.serve({"/hero-me": shop.fill_in(SNIPPETS["hero-me.html"])})
    page.goto(f"{shop.front_end.url}/hero-me")
    choose(page, bytes(7 * 1024 * 1024))
    expect(page.get_by_role("alert")).to_have_text("The picture is 7.0 MB; the limit is 5 MB.")
    choose_and_pay(page, pictures.jpeg())
    assert picture_saved(page) == pictures.jpeg()


@pytest.fixture(scope="module")
def react_page(open_elsewhere: ShopElsewhere, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Build the components of the documentation as a bundler of a front end would, for development."""
    folder = tmp_path_factory.mktemp("react")
    for name in ("HeroMe.jsx", "main.jsx"):
        (folder / name).write_text(open_elsewhere.fill_in(SNIPPETS[name]))
    (folder / "heroimg.js").write_text(CLIENT)
    (folder / "node_modules").symlink_to(ROOT / "node_modules")
    options = ["--bundle", "--jsx=automatic", "--jsx-dev", '--define:process.env.NODE_ENV="development"']
    warnings = run_node_tool("esbuild", "main.jsx", *options, "--log-level=warning", "--outfile=bundle.js", cwd=folder)
    assert warnings == ""
    return (folder / "bundle.js").read_text()


@pytest.fixture
def react_shop(shop: ShopElsewhere, react_page: str) -> ShopElsewhere:
    html = '<!doctype html><link rel="icon" href="data:,"><div id="root"></div><script src="/bundle.js"></script>'
    shop.front_end.serve({"/hero-me": html, "/bundle.js": react_page})
    return shop


def test_the_react_components_of_the_documentation_make_the_whole_journey(
    react_shop: ShopElsewhere, page: Page
) -> None:
    asked = list[str]()
    page.on("request", lambda request: asked.append(f"{request.method} {request.url}"))
    page.goto(f"{react_shop.front_end.url}/hero-me")
    choose_and_pay(page, pictures.jpeg())
    assert picture_saved(page) == pictures.jpeg()
    wait_for(lambda: react_shop.api.server.names() == [], "the picture to be gone")
    # StrictMode has run the effect twice, and the picture was fetched once.
    assert sum("session-status" in request for request in asked) == 2
    assert sum(request.startswith("GET") and "temp-image-retrieve" in request for request in asked) == 1
    assert len(react_shop.stand_in.sessions) == 1


def test_the_react_components_of_the_documentation_tell_failures(
    react_shop: ShopElsewhere, page: Page, visitor: Visitor
) -> None:
    page.goto(f"{react_shop.front_end.url}/hero-me")
    react_shop.stand_in.fail_next("disconnect", 2)
    choose(page, pictures.jpeg())
    expect(page.get_by_role("alert")).to_have_text(
        "The payment service cannot be reached just now. Please try again in a moment."
    )
    page.route("https://js.stripe.com/**", lambda route: route.abort())
    page.reload()
    choose(page, pictures.jpeg())
    expect(page.get_by_role("alert")).to_have_text("Failed to load Stripe.js")
    session_id = react_shop.api.session_of(react_shop.api.keep(pictures.jpeg()))
    page.goto(f"{react_shop.front_end.url}/hero-me?session_id={session_id}")
    expect(page.get_by_role("status")).to_have_text("The payment is not complete yet.")
    # stripe-js loads its script beforehand, and complains by itself.
    visitor.complaints[:] = [text for text in visitor.complaints if "Failed to load Stripe.js" not in text]


def test_a_page_written_for_pictures_in_memory_works_as_it_is(shop: ShopElsewhere, page: Page) -> None:
    shop.front_end.serve({"/hero-me": "<!doctype html>", "/old-page.js": SNIPPETS["old-page.js"]})
    page.goto(f"{shop.front_end.url}/hero-me")
    # Such a page has its server on its own origin, by a proxy of the development server's.
    page.route("**/api/**", lambda route: route.fulfill(response=route.fetch(url=shop.api.server.url + _path(route))))
    secret = page.evaluate(
        """async (numbers) => {
            const { beforePaying } = await import("/old-page.js");
            return beforePaying(new Blob([new Uint8Array(numbers)]));
        }""",
        list(pictures.jpeg()),
    )
    session_id = secret.partition("_secret_")[0]
    shop.stand_in.pay(session_id)
    numbers = page.evaluate(
        """async (id) => {
            const { afterPaying } = await import("/old-page.js");
            return Array.from(new Uint8Array(await (await afterPaying(id)).arrayBuffer()));
        }""",
        session_id,
    )
    assert bytes(numbers) == pictures.jpeg()


def _path(route: Route) -> str:
    return "/api/" + route.request.url.partition("/api/")[2]


TRY_ALL = """async ([url, numbers]) => {
    const heroimg = await import("/heroimg.js");
    heroimg.setBaseUrl(url + "/");
    const file = new Blob([new Uint8Array(numbers)]);
    const codeOf = (work) => work.then(() => "done", ({ code }) => code);
    const upload = await codeOf(heroimg.uploadImage(file, { onProgress() {} }));
    const tooLarge = await codeOf(heroimg.uploadImage(new Blob([new Uint8Array(7 * 1024 * 1024)])));
    const session = await codeOf(heroimg.createCheckoutSession("0".repeat(32)));
    return [upload, tooLarge, session];
}"""


def test_the_front_end_is_admitted_from_its_own_origin(shop: ShopElsewhere, page: Page) -> None:
    shop.front_end.serve({"/hero-me": "<!doctype html>", "/heroimg.js": CLIENT})
    page.goto(f"{shop.front_end.url}/hero-me")
    tried = page.evaluate(TRY_ALL, [shop.api.server.url, list(pictures.jpeg())])
    assert tried == ["done", "image_too_large", "image_not_found"]
    # Retrieving ends with a DELETE, which a browser asks for leave before; waiting needs to read Retry-After.
    image_id = shop.api.keep(pictures.jpeg())
    assert shop.api.retrieve(image_id, "another-page-s-claim").status_code == 200
    page.clock.install()
    page.evaluate(
        """async (id) => {
            const { retrieveImage } = await import("/heroimg.js");
            window.waited = [];
            window.size = retrieveImage(id, { onWait: ({ code }, seconds) => waited.push(code, seconds) })
                .then((blob) => blob.size);
        }""",
        image_id,
    )
    wait_for(lambda: page.evaluate("waited.length") == 2, "the claim to be in the way")
    code, seconds = page.evaluate("waited")
    assert code == "image_claimed"
    assert 200 < seconds <= 300
    shop.clock.forward(301)
    page.clock.fast_forward(301_000)
    assert page.evaluate("size") == len(pictures.jpeg())
    wait_for(lambda: image_id not in shop.api.server.names(), "the picture to be gone")


def test_strangers_are_refused_and_nothing_of_a_customers_is_touched(shop: ShopElsewhere, visitor: Visitor) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    with FrontEnd() as stranger:
        stranger.serve({"/page": "<!doctype html>", "/heroimg.js": CLIENT})
        visitor.page.goto(f"{stranger.url}/page")
        tried = visitor.page.evaluate(TRY_ALL, [shop.api.server.url, list(pictures.jpeg())])
        assert tried == ["connection_lost"] * 3
        confirm = "(url) => fetch(url, { method: 'DELETE' }).then(() => 'done', () => 'refused')"
        retrieve = f"{shop.api.server.url}/api/temp-image-retrieve?imageId={image_id}"
        assert visitor.page.evaluate(confirm, retrieve) == "refused"
        module = f"{shop.api.server.url}/static/heroimg.js"
        assert visitor.page.evaluate("(url) => import(url).then(() => 'done', () => 'refused')", module) == "refused"
    assert all("blocked by CORS policy" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()
    assert shop.api.retrieve(image_id).content == pictures.jpeg()


def test_every_file_of_the_documentation_is_tried_here() -> None:
    assert set(SNIPPETS) == {"hero-me.html", "HeroMe.jsx", "main.jsx", "old-page.js"}
