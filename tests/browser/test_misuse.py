"""Pages that abort signals at any moment, throw in callbacks or pass bad arguments, and proxies that answer nothing."""

from __future__ import annotations

from functools import partial

import pytest
from playwright.sync_api import Page, Route

from tests.helpers import pictures
from tests.helpers.browser import Visitor
from tests.helpers.heroimg_js import answer, call
from tests.helpers.serving import wait_for
from tests.helpers.shop import Site

pytestmark = pytest.mark.proof

UPLOAD = "**/api/temp-image-upload"
LATER = answer(503, "store_unavailable", **{"Retry-After": "60"})


def test_errors_in_a_pages_callbacks_are_reported_and_stop_nothing(site: Site, page: Page, visitor: Visitor) -> None:
    refusals = [{**LATER, "headers": {"Retry-After": "1"}}]
    page.route(UPLOAD, lambda route: route.fulfill(**refusals.pop()) if refusals else route.continue_())
    code = """({ uploadImage }, numbers) => uploadImage(new Blob([new Uint8Array(numbers)]), {
        onProgress: (sent, state) => { throw new Error(`${state} failed`); },
        onWait: () => { throw new Error("onWait failed"); },
    })"""
    image_id = call(page, code, list(pictures.jpeg()))
    assert site.api.retrieve(image_id).content == pictures.jpeg()
    wait_for(lambda: page.evaluate("1") and "onWait failed" in str(visitor.complaints), "the report")
    visitor.complaints.clear()


def test_a_signal_that_was_aborted_before_stops_everything_at_once(page: Page) -> None:
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    for name, argument in (
        ("uploadImage", "blob, "),
        ("fitImage", "blob, "),
        ("serverLimits", ""),
        ("createCheckoutSession", "'x', "),
    ):
        code = f"""(heroimg) => {{
            const blob = new Blob(["x"]);
            return heroimg.{name}({argument}{{ signal: AbortSignal.abort("stopped") }}).catch((reason) => reason);
        }}"""
        assert call(page, code) == "stopped", name
    assert asked == []


@pytest.mark.parametrize("held", ["**/api/limits", "**/api/checkout/embedded-session"])
def test_a_request_is_given_up_when_its_signal_is_aborted(page: Page, held: str) -> None:
    requests = list[Route]()
    page.route(held, partial(list.append, requests))
    page.evaluate(
        """async (isLimits) => {
            const { createCheckoutSession, serverLimits } = await import("/static/heroimg.js");
            window.controller = new AbortController();
            const options = { signal: controller.signal };
            const work = isLimits ? serverLimits(options) : createCheckoutSession("x", options);
            work.catch((reason) => (window.result = reason));
        }""",
        "limits" in held,
    )
    wait_for(lambda: page.evaluate("1") and requests, "the request")
    page.evaluate("controller.abort('stopped')")
    assert page.evaluate("window.result") == "stopped"
    requests[0].abort()


@pytest.mark.parametrize("fit", ["true", "false"])
def test_an_upload_is_stopped_by_its_signal_while_its_file_is_read(page: Page, fit: str) -> None:
    code = f"""({{ uploadImage }}) => {{
        const controller = new AbortController();
        const file = Object.assign(new Blob(["x"]), {{ arrayBuffer: () => new Promise(() => {{}}) }});
        const upload = uploadImage(file, {{ fit: {fit}, signal: controller.signal }});
        controller.abort("stopped");
        return upload.catch((reason) => reason);
    }}"""
    assert call(page, code) == "stopped"


def test_onwait_itself_may_abort_the_signal(page: Page) -> None:
    page.route(UPLOAD, lambda route: route.fulfill(**LATER))
    code = """({ uploadImage }) => {
        const controller = new AbortController();
        const onWait = () => controller.abort("stopped");
        const { signal } = controller;
        return uploadImage(new Blob(["x"]), { fit: false, onWait, signal }).catch((reason) => reason);
    }"""
    assert call(page, code) == "stopped"


def test_a_lost_upload_is_stopped_by_its_signal_while_its_reason_is_looked_for(page: Page) -> None:
    page.route(UPLOAD, lambda route: route.abort())
    page.clock.install()
    page.evaluate("""async () => {
        const { uploadImage } = await import("/static/heroimg.js");
        window.controller = new AbortController();
        [window.asked, window.result] = [false, ""];
        window.fetch = (url, { signal }) => {
            asked = true; // in the page, because its clock runs faster than a request reaches this test
            return new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
        };
        const work = uploadImage(new Blob(["x"]), { fit: false, signal: controller.signal });
        work.catch((reason) => (result = String(reason.code ?? reason)));
    }""")
    while not page.evaluate("asked"):
        assert page.evaluate("result") == ""
        page.clock.run_for(16_000)
    page.evaluate("controller.abort('stopped')")
    assert page.evaluate("result") == "stopped"


@pytest.mark.parametrize("edge", ["0", "-1", "NaN", "null", "'large'", "{}"])
def test_a_maxedge_that_is_no_length_is_refused(page: Page, edge: str) -> None:
    code = f"({{ fitImage }}, numbers) => fitImage(new Blob([new Uint8Array(numbers)]), {{ maxEdge: {edge} }})"
    failure = call(page, code, list(pictures.jpeg()))["failure"]
    assert failure["name"] == "RangeError"
    assert failure["message"].startswith("maxEdge must be at least 1 (pixel), not ")


def test_nothing_is_asked_for_a_file_that_cannot_be_read(page: Page) -> None:
    page.route("**/api/limits", lambda route: route.fulfill(**LATER))
    code = """async ({ uploadImage }) => {
        const waits = [];
        const { code } = await uploadImage(new Blob([]), { onWait: ({ code }) => waits.push(code) }).catch((e) => e);
        await fetch("/static/heroimg.js"); // as long as an answer takes
        return [code, ...waits];
    }"""
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    assert call(page, code) == ["file_unreadable"]
    assert asked == []


def test_a_worker_without_a_canvas_leaves_the_drawing_to_the_page(page: Page, visitor: Visitor) -> None:
    script = "import '/static/fit-worker.js?'; delete self.OffscreenCanvas;"
    page.context.route(
        "**/static/fit-worker.js", lambda route: route.fulfill(body=script, content_type="text/javascript")
    )
    code = """({ fitImage }, numbers) =>
        fitImage(new Blob([new Uint8Array(numbers)]), { maxEdge: 100 }).then(({ type }) => type)"""
    assert call(page, code, list(pictures.jpeg())) == "image/jpeg"
    assert call(page, code, list(pictures.jpeg()[:-2])) == "image/jpeg"
    visitor.complaints.clear()  # Chromium warns if a page reads pixels often


FIT_LATER = """async (numbers) => {
    const { fitImage } = await import("/static/heroimg.js");
    window.result = "";
    const picture = new Blob([new Uint8Array(numbers)]);
    fitImage(picture).then(({ type }) => (result = type), ({ code }) => (result = code));
}"""


def test_the_page_draws_if_the_workers_script_does_not_arrive(page: Page) -> None:
    page.evaluate("import('/static/heroimg.js')")
    held = list[Route]()
    page.context.route("**/static/photograph.js", partial(list.append, held))  # the worker's; the page has its own
    page.clock.install()
    page.evaluate(FIT_LATER, list(pictures.encode(pictures.quarters(), "WEBP")))
    wait_for(lambda: page.evaluate("1") and held, "the worker's request")
    page.clock.run_for(9_000)
    assert page.evaluate("result") == ""
    page.clock.run_for(2_000)
    wait_for(lambda: page.evaluate("result"), "the picture")
    assert page.evaluate("result") == "image/jpeg"
    held[0].abort()


def test_a_worker_that_has_started_may_draw_for_long(page: Page) -> None:
    script = """
        import "/static/fit-worker.js?";
        const { convertToBlob } = OffscreenCanvas.prototype;
        OffscreenCanvas.prototype.convertToBlob = async function (options) {
            await fetch("/held");
            return convertToBlob.call(this, options);
        };
    """
    page.context.route(
        "**/static/fit-worker.js", lambda route: route.fulfill(body=script, content_type="text/javascript")
    )
    held = list[Route]()
    page.context.route("**/held", partial(list.append, held))
    page.clock.install()
    page.evaluate(FIT_LATER, list(pictures.encode(pictures.quarters(), "WEBP")))
    wait_for(lambda: page.evaluate("1") and held, "the worker to draw")
    page.clock.run_for(60_000)
    page.evaluate("fetch('/static/heroimg.js')")  # as long as drawing takes
    assert page.evaluate("result") == ""
    held[0].fulfill(body="")
    wait_for(lambda: page.evaluate("result"), "the picture")
    assert page.evaluate("result") == "image/jpeg"


TOO_LARGE = "image_too_large: This picture is too large for this browser's memory. Please choose a smaller one."


@pytest.mark.parametrize(("of_worker", "of_page", "result"), [(300, 0, 300), (0, 300, 300), (0, 0, TOO_LARGE)])
def test_a_picture_becomes_smaller_until_a_canvas_can_encode_it(
    page: Page, of_worker: int, of_page: int, result: int | str
) -> None:
    script = f"""
        import "/static/fit-worker.js?";
        const {{ convertToBlob }} = OffscreenCanvas.prototype;
        OffscreenCanvas.prototype.convertToBlob = async function (options) {{
            if (this.width > {of_worker}) throw new Error("too wide");
            return convertToBlob.call(this, options);
        }};
    """
    page.context.route(
        "**/static/fit-worker.js", lambda route: route.fulfill(body=script, content_type="text/javascript")
    )
    code = f"""({{ fitImage }}, numbers) => {{
        const {{ toBlob }} = HTMLCanvasElement.prototype;
        HTMLCanvasElement.prototype.toBlob = function (done, ...options) {{
            this.width > {of_page} ? done(null) : toBlob.call(this, done, ...options);
        }};
        return fitImage(new Blob([new Uint8Array(numbers)])).then(createImageBitmap).then(
            ({{ width }}) => width, ({{ code, message }}) => `${{code}}: ${{message}}`);
    }}"""
    assert call(page, code, list(pictures.encode(pictures.quarters(), "WEBP"))) == result


@pytest.mark.parametrize("decoder", ["{}", "{ HeifDecoder: class { decode() { throw new Error('out of memory'); } } }"])
def test_a_decoder_for_heic_that_fails_is_reported_as_one_that_is_missing(page: Page, decoder: str) -> None:
    code = f"""({{ fitImage, setHeicDecoder }}, numbers) => {{
        setHeicDecoder(async () => ({{ default: {decoder} }}));
        return fitImage(new Blob([new Uint8Array(numbers)]));
    }}"""
    heic = pictures.encode(pictures.quarters(), "HEIF")
    assert call(page, code, list(heic))["failure"]["code"] == "heic_unsupported"


@pytest.mark.parametrize(
    ("name", "code"), [("ChunkLoadError", "connection_lost"), ("CompileError", "heic_unsupported")]
)
def test_only_a_decoder_for_heic_that_could_not_be_fetched_may_be_tried_again(page: Page, name: str, code: str) -> None:
    load = f"""({{ fitImage, setHeicDecoder }}, numbers) => {{
        setHeicDecoder(async () => {{ throw Object.assign(new Error("x"), {{ name: "{name}" }}); }});
        return fitImage(new Blob([new Uint8Array(numbers)]));
    }}"""
    heic = pictures.encode(pictures.quarters(), "HEIF")
    assert call(page, load, list(heic))["failure"]["code"] == code


def test_a_proxys_413_without_a_body_says_that_the_picture_is_too_large(page: Page) -> None:
    page.route(UPLOAD, lambda route: route.fulfill(status=413))
    failure = call(page, "({ uploadImage }) => uploadImage(new Blob(['x']), { fit: false })")["failure"]
    assert failure["code"] == "image_too_large"


def test_a_refusal_names_the_kind_of_file_that_the_server_saw(page: Page) -> None:
    code = "({ uploadImage }, text) => uploadImage(new Blob([text]), { fit: false }).catch(({ found }) => found)"
    assert call(page, code, "%PDF-1.7") == "pdf"
