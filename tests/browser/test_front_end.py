"""A front end on another origin: CORS admits only its origin, and the examples in docs/front-end.md work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, Route, expect

from tests.helpers import pictures
from tests.helpers.browser import Visitor, let_time_pass
from tests.helpers.fenced_files import fenced_files
from tests.helpers.front_end import FrontEnd, ShopElsewhere
from tests.helpers.node_tools import run_node_tool
from tests.helpers.serving import LONG, ROOT, wait_for

PLAIN = fenced_files(ROOT / "docs" / "front-end.md")["hero-me.html"]
OLD_PAGE = Path(__file__).with_name("old-page.js")
REACT = ROOT / "docs" / "react"
MODULE = {f"/{path.name}": path.read_text() for path in (ROOT / "heroimg" / "static").glob("*.js")}


@pytest.fixture
def shop(elsewhere: ShopElsewhere) -> ShopElsewhere:
    return elsewhere


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
    shop.front_end.serve({"/hero-me": shop.fill_in(PLAIN)})
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
    choose_and_pay(page, pictures.encode(pictures.quarters(), "WEBP"))  # needs the worker
    assert picture_saved(page).startswith(b"\xff\xd8")


def test_the_plain_page_of_the_documentation_shows_failures(shop: ShopElsewhere, page: Page) -> None:
    shop.front_end.serve({"/hero-me": shop.fill_in(PLAIN)})
    page.goto(f"{shop.front_end.url}/hero-me")
    choose(page, b"no picture")
    expect(page.get_by_role("status")).to_contain_text("This browser cannot open this file as a picture.")
    choose_and_pay(page, pictures.jpeg())
    assert picture_saved(page) == pictures.jpeg()


def show_as_left(page: Page) -> None:
    """Simulate that the browser shows the page from its cache, which Playwright switches off."""
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
    page.wait_for_load_state()


@pytest.fixture(scope="module")
def built(open_elsewhere: ShopElsewhere, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | bytes]:
    """Install the npm package in a front end, and build the documentation's pages with Vite, for development."""
    folder = tmp_path_factory.mktemp("vite")
    run_node_tool("npm", "pack", "--pack-destination", str(folder), cwd=ROOT)
    (package,) = folder.glob("heroimg-*.tgz")
    (folder / "package.json").write_text('{ "type": "module" }')
    run_node_tool("npm", "install", "--offline", "--no-audit", "--no-fund", str(package), cwd=folder)
    for name in ("@stripe", "libheif-js", "react", "react-dom"):
        (folder / "node_modules" / name).symlink_to(ROOT / "node_modules" / name)
    for path in REACT.iterdir():
        (folder / path.name).write_text(open_elsewhere.fill_in(path.read_text()))
    (folder / "react.html").write_text('<div id="root"></div><script type="module" src="./main.jsx"></script>')
    plain = open_elsewhere.fill_in(PLAIN).replace(f"{open_elsewhere.api.server.url}/static/heroimg.js", "heroimg")
    (folder / "plain.html").write_text(plain)
    inputs = '{ build: { rollupOptions: { input: ["react.html", "plain.html"] }, chunkSizeWarningLimit: 3000 } }'
    (folder / "vite.config.js").write_text(f"export default {inputs};")
    output = run_node_tool("vite", "build", "--mode", "development", cwd=folder, NODE_ENV="development")
    assert "arning" not in output, output
    files = {path: path.read_bytes() for path in (folder / "dist").rglob("*") if path.is_file()}
    return {f"/{path.relative_to(folder / 'dist')}": content for path, content in files.items()}


@pytest.fixture
def react_shop(shop: ShopElsewhere, built: dict[str, str | bytes]) -> ShopElsewhere:
    shop.front_end.serve({**built, "/hero-me": built["/react.html"]})
    return shop


@pytest.fixture(params=["react", "plain"])
def built_page(request: pytest.FixtureRequest, shop: ShopElsewhere, built: dict[str, str | bytes], page: Page) -> Page:
    """Open a page of the documentation, as Vite has built it."""
    shop.front_end.serve({**built, "/hero-me": built[f"/{request.param}.html"]})
    page.goto(f"{shop.front_end.url}/hero-me")
    return page


def test_a_customer_who_has_not_paid_can_order_again(shop: ShopElsewhere, built_page: Page) -> None:
    page = built_page
    form = page.get_by_label("Your picture")
    session_id = shop.api.session_of(shop.api.keep(pictures.jpeg()))
    page.goto(f"{shop.front_end.url}/hero-me?session_id={session_id}")
    expect(page.get_by_text("The payment is not complete yet.")).to_be_visible()
    expect(form).to_be_visible()
    shop.stand_in.expire(session_id)
    page.reload()
    expect(page.get_by_text("The time to pay ran out.")).to_be_visible()
    expect(form).to_be_visible()
    choose_and_pay(page, pictures.jpeg())
    assert picture_saved(page) == pictures.jpeg()


def test_a_customer_whose_payment_is_delayed_is_not_asked_to_order_again(shop: ShopElsewhere, built_page: Page) -> None:
    page = built_page
    session_id = shop.api.session_of(shop.api.keep(pictures.jpeg()))
    shop.stand_in.pay_later(session_id)
    page.goto(f"{shop.front_end.url}/hero-me?session_id={session_id}")
    expect(page.get_by_text("The payment is not complete yet.")).to_be_visible()
    expect(page.get_by_label("Your picture")).to_be_hidden()


@pytest.mark.proof
def test_the_npm_package_fits_photographs_in_a_build_of_vite(built_page: Page) -> None:
    page = built_page
    with page.expect_worker() as worker:
        choose_and_pay(page, pictures.encode(pictures.quarters(), "WEBP"))
    assert "/assets/fit-worker-" in worker.value.url
    assert picture_saved(page).startswith(b"\xff\xd8\xff")


def test_a_page_from_the_browsers_cache_starts_anew_unless_it_has_the_picture(built_page: Page) -> None:
    page = built_page
    choose(page, pictures.jpeg())
    checkout = page.frame_locator("iframe[title=Checkout]")
    expect(checkout.get_by_text("No money moves")).to_be_visible()
    with page.expect_navigation():
        show_as_left(page)
    choose_and_pay(page, pictures.jpeg())
    expect(page.get_by_role("link", name="Save your picture")).to_be_visible()
    wait_for(lambda: page.evaluate("sessionStorage.length") == 0, "the picture to be confirmed")
    show_as_left(page)
    assert picture_saved(page) == pictures.jpeg()


def test_the_decoder_for_heic_is_loaded_when_it_is_needed(react_shop: ShopElsewhere, page: Page) -> None:
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{react_shop.front_end.url}/hero-me")
    expect(page.get_by_label("Your picture")).to_be_visible()
    assert not any("wasm-bundle" in url for url in asked)
    choose_and_pay(page, pictures.encode(pictures.quarters(), "HEIF"))
    assert picture_saved(page).startswith(b"\xff\xd8\xff")
    assert sum("wasm-bundle" in url for url in asked) == 1


def test_the_version_of_the_npm_package_is_heroimgs() -> None:
    package = json.loads((ROOT / "package.json").read_text())
    assert f"version = {package['version']}\n" in (ROOT / "setup.cfg").read_text()


def test_the_npm_package_holds_the_module_its_types_and_the_licence() -> None:
    (package,) = json.loads(run_node_tool("npm", "pack", "--dry-run", "--json", "--silent", cwd=ROOT))
    static = ROOT / "heroimg" / "static"
    module = {str(path.relative_to(ROOT)) for path in (*static.glob("*.js"), *static.glob("types/*.d.ts"))}
    assert {file["path"] for file in package["files"]} == {*module, "package.json", "LICENSE", "README.md"}


def test_the_npm_packages_types_are_those_of_the_module(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "heroimg").symlink_to(ROOT)
    (tmp_path / "use.ts").write_text(
        """import { HeroimgError, fitImage, uploadImage, type OnProgress } from "heroimg";
        const onProgress: OnProgress = (sent, state) => console.log(sent.toFixed(), state === "sending");
        const id: string = await uploadImage(new Blob(), { fit: { maxEdge: 2048 }, onProgress });
        const blob: Blob = await fitImage(new Blob());
        const status: number = new HeroimgError("a", "b").status;
        // @ts-expect-error
        await uploadImage("a string");
        export { id, blob, status };"""
    )
    options = ["--strict", "--noEmit", "--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022"]
    run_node_tool("tsc", *options, "--types", "", "use.ts", cwd=tmp_path)


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


def test_the_react_components_of_the_documentation_show_failures(
    react_shop: ShopElsewhere, page: Page, visitor: Visitor
) -> None:
    page.goto(f"{react_shop.front_end.url}/hero-me")
    react_shop.stand_in.fail_next("403")
    choose(page, pictures.jpeg())
    expect(page.get_by_role("alert")).to_have_text("The payment service could not do that. Please try again later.")
    page.route("https://js.stripe.com/**", lambda route: route.abort())
    page.reload()
    choose(page, pictures.jpeg())
    expect(page.get_by_role("alert")).to_have_text("Failed to load Stripe.js")
    session_id = react_shop.api.session_of(react_shop.api.keep(pictures.jpeg()))
    page.goto(f"{react_shop.front_end.url}/hero-me?session_id={session_id}")
    expect(page.get_by_role("alert")).to_have_text("The payment is not complete yet.")
    # stripe-js loads its script in advance, and reports the failure in the console.
    visitor.complaints[:] = [text for text in visitor.complaints if "Failed to load Stripe.js" not in text]


def test_a_page_for_a_server_that_keeps_pictures_in_memory_works_unchanged(shop: ShopElsewhere, page: Page) -> None:
    shop.front_end.serve({"/hero-me": "<!doctype html>", "/old-page.js": OLD_PAGE.read_text()})
    page.goto(f"{shop.front_end.url}/hero-me")
    # The development server of such a page forwards /api/, so that the API has the page's origin.
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
    const upload = await codeOf(heroimg.uploadImage(file));
    const tooLarge = await codeOf(heroimg.uploadImage(new Blob([new Uint8Array(7 * 1024 * 1024)]), { fit: false }));
    const session = await codeOf(heroimg.createCheckoutSession("0".repeat(32)));
    return [upload, tooLarge, session];
}"""


def test_a_page_of_the_front_ends_origin_may_call_the_api(shop: ShopElsewhere, page: Page) -> None:
    shop.front_end.serve({"/hero-me": "<!doctype html>", **MODULE})
    page.goto(f"{shop.front_end.url}/hero-me")
    tried = page.evaluate(TRY_ALL, [shop.api.server.url, list(pictures.jpeg())])
    assert tried == ["done", "image_too_large", "image_not_found"]
    # A retrieval ends with a DELETE, which needs a preflight. A pause needs Retry-After, which CORS must expose.
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


def test_pages_of_other_origins_are_refused_and_change_nothing(shop: ShopElsewhere, visitor: Visitor) -> None:
    image_id = shop.api.keep(pictures.jpeg())
    with FrontEnd() as stranger:
        stranger.serve({"/page": "<!doctype html>", **MODULE})
        visitor.page.goto(f"{stranger.url}/page")
        visitor.page.clock.install()
        start = f"(arguments) => void ({TRY_ALL})(arguments).then((tried) => (window.tried = tried))"
        visitor.page.evaluate(start, [shop.api.server.url, list(pictures.jpeg())])
        let_time_pass(visitor.page, lambda: visitor.page.evaluate("window.tried"))
        assert visitor.page.evaluate("tried") == ["connection_lost"] * 3
        confirm = "(url) => fetch(url, { method: 'DELETE' }).then(() => 'done', () => 'refused')"
        retrieve = f"{shop.api.server.url}/api/temp-image-retrieve?imageId={image_id}"
        assert visitor.page.evaluate(confirm, retrieve) == "refused"
        module = f"{shop.api.server.url}/static/heroimg.js"
        assert visitor.page.evaluate("(url) => import(url).then(() => 'done', () => 'refused')", module) == "refused"
    assert all("blocked by CORS policy" in complaint for complaint in visitor.complaints)
    visitor.complaints.clear()
    assert shop.api.retrieve(image_id).content == pictures.jpeg()
