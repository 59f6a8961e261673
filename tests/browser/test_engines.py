"""The page and the module in Chromium, Firefox and WebKit: the journey, two tabs, broken connections, policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import pictures
from tests.helpers.engines import Engine
from tests.helpers.fenced_files import fenced_files
from tests.helpers.front_end import ShopElsewhere
from tests.helpers.proxy import Stop
from tests.helpers.serving import ROOT, wait_for
from tests.helpers.shop import Site

UPLOAD = b"POST /api/temp-image-upload"
RETRIEVE = b"GET /api/temp-image-retrieve"

MODULE = {f"/{path.name}": path.read_text() for path in (ROOT / "heroimg" / "static").glob("*.js")}
DECODER = ROOT / "node_modules" / "libheif-js" / "libheif-wasm" / "libheif-bundle.mjs"
PLAIN = fenced_files(ROOT / "docs" / "front-end.md")["hero-me.html"]

# Uploads the chosen file. Then the title contains the result, and the thread that drew the picture.
APP = """
    import { setBaseUrl, setHeicDecoder, uploadImage } from "%s";
    setBaseUrl("%s");
    setHeicDecoder(() => import("/libheif-bundle.mjs"));
    let thread = "worker";
    const { getContext } = HTMLCanvasElement.prototype;
    HTMLCanvasElement.prototype.getContext = function (kind) {
        thread = "page";
        return getContext.call(this, kind);
    };
    const input = document.querySelector("input");
    input.addEventListener("change", async () => {
        const result = await uploadImage(input.files[0]).catch(({ code, message }) => `${code}: ${message}`);
        document.title = `${result} ${thread}`;
    });
"""


@pytest.fixture
def front(engine: Engine, site: Site) -> Iterator[Engine]:
    """Open the page."""
    engine.go(site.url)
    yield engine
    engine.go("about:blank")  # no request of this test may be on its way during the next


def saved(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    return path


def expect_picture(site: Site, engine: Engine, width: int) -> None:
    """Wait for the picture with this width, and save it: otherwise leaving the page would need confirmation."""
    engine.find("#received")
    engine.wait(f"document.querySelector('#returned').naturalWidth === {width}", "the picture")
    engine.run("""
        const save = document.querySelector("#save");
        save.addEventListener("click", (event) => event.preventDefault());
        save.click();
    """)
    wait_for(lambda: site.api.server.names() == [], "the picture to be gone")


def returning(site: Site, data: bytes) -> str:
    """Upload and pay without a browser; return the address to which Stripe sends the customer."""
    address = site.stand_in.pay(site.api.session_of(site.api.keep(data)))["return_url"]
    assert isinstance(address, str)
    return address


def test_a_customer_makes_the_whole_journey(site: Site, front: Engine, tmp_path: Path) -> None:
    site.proxy.stop_at(Stop(UPLOAD, after=20_000, upwards=True))  # the first attempt breaks
    front.choose("#file", saved(tmp_path, pictures.encode(pictures.noise(2400, 300), "WEBP")))
    front.click("#pay")
    front.enter_frame("iframe[title=Checkout]")
    front.click("#pay")
    front.leave_frame()
    expect_picture(site, front, 2048)
    assert len(site.stand_in.sessions) == 1


def test_connections_that_break_on_return_are_opened_again(site: Site, front: Engine) -> None:
    data = pictures.jpeg(0.3)
    for after in (0, 150, 700, 100_000, len(data)):
        site.clear()
        cut = site.proxy.stop_at(Stop(RETRIEVE, after=after))
        front.go(returning(site, data))
        expect_picture(site, front, 594)
        assert cut.reached.is_set()


def test_one_of_two_tabs_gets_the_picture_and_the_other_says_so(site: Site, front: Engine) -> None:
    data = pictures.jpeg(0.3)
    address = returning(site, data)
    middle = site.proxy.stop_at(Stop(RETRIEVE, after=len(data) // 2, breaks=False))
    first = front.window()
    front.go(address)
    wait_for(middle.reached.is_set, "the first tab to fetch the picture")
    second = front.new_window()
    front.switch_to(second)
    front.go(address)
    status = "document.querySelector('#status').textContent"
    front.wait(f"{status}.startsWith('Another window is opening this picture.')", "the second tab to say so")
    front.close_window()
    front.switch_to(first)
    middle.go_on.set()
    expect_picture(site, front, 594)


def test_the_back_button_shows_a_form_instead_of_an_old_checkout(
    engine: Engine, elsewhere: ShopElsewhere, tmp_path: Path
) -> None:
    shop = elsewhere
    stripe_js = f"{shop.stand_in.url}/stand-in/stripe.js"
    page = shop.fill_in(PLAIN).replace("https://js.stripe.com/endive/stripe.js", stripe_js)
    shop.front_end.serve({"/hero-me": page, "/elsewhere": "<!doctype html>"})
    engine.go(f"{shop.front_end.url}/hero-me")
    engine.choose("#file", saved(tmp_path, pictures.jpeg()))
    engine.find("#checkout iframe")
    engine.go(f"{shop.front_end.url}/elsewhere")
    engine.back()
    engine.find("#order")


@pytest.mark.parametrize("origin", ["same", "other"])
def test_the_documented_policy_is_enough(engine: Engine, elsewhere: ShopElsewhere, tmp_path: Path, origin: str) -> None:
    api, front_end = elsewhere.api.server.url, elsewhere.front_end
    module = "/heroimg.js" if origin == "same" else f"{api}/static/heroimg.js"
    files: dict[str, str | bytes] = {
        "/page": "<!doctype html><input type=file><script type=module src=/app.js></script>",
        "/app.js": APP % (module, api),
        "/libheif-bundle.mjs": DECODER.read_bytes(),
        **MODULE,
    }
    others = {
        "same": f"script-src 'self'; connect-src {api}",
        "other": f"script-src 'self' {api}; worker-src blob: {api}",
    }
    policy = f"default-src 'none'; connect-src {api}; {others[origin]}"
    for kind, more, expected in (
        ("WEBP", "", " worker"),
        ("HEIF", " 'wasm-unsafe-eval'", " worker"),
        ("HEIF", "", ""),
    ):
        front_end.serve(
            files, {"Content-Security-Policy": policy.replace("script-src 'self'", f"script-src 'self'{more}")}
        )
        engine.go(f"{front_end.url}/page")
        engine.choose("input", saved(tmp_path, pictures.encode(pictures.quarters(), kind)))
        engine.wait("document.title", "the upload")
        title = engine.run("return document.title")
        if expected:
            assert title.endswith(expected), title
            assert elsewhere.api.retrieve(title.partition(" ")[0]).status_code == 200, title
        else:
            assert title.startswith("heic_unsupported"), title
