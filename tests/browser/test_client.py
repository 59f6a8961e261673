"""heroimg.js in a real browser: what its functions give, and what they make of failures."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, Route
from pytest_httpserver import HTTPServer

from tests.helpers import pictures
from tests.helpers.browser import Visitor
from tests.helpers.node_tools import run_node_tool
from tests.helpers.proxy import Stop
from tests.helpers.serving import ROOT, wait_for
from tests.helpers.shop import Site

CLIENT = ROOT / "heroimg" / "static" / "heroimg.js"

RETRIEVE = "**/api/temp-image-retrieve*"
STATUS = "**/api/checkout/session-status*"

# Runs with the module as `heroimg`; what it throws comes back as an object.
CALL = """async ([url, argument]) => {
    const heroimg = await import(url);
    const tell = ({ name, code, message, status, retryAfter }) => ({ name, code, message, status, retryAfter });
    try { return await (%s)(heroimg, argument); } catch (error) { return { failure: tell(error) }; }
}"""
READ = "Array.from(new Uint8Array(await blob.arrayBuffer()))"


@pytest.fixture
def page(site: Site, visitor: Visitor) -> Page:
    """Open a blank page of the admitted origin."""
    visitor.page.route(f"{site.proxy.url}/blank", lambda route: route.fulfill(body="<!doctype html>"))
    visitor.page.goto(f"{site.proxy.url}/blank")
    return visitor.page


def call(page: Page, code: str, argument: object = None, origin: str = "") -> Any:
    """Call the module in the page, and return what comes of it."""
    return page.evaluate(CALL % code, [f"{origin}/static/heroimg.js", argument])


def retrieve(page: Page, image_id: str) -> bytes:
    code = f"async ({{ retrieveImage }}, id) => {{ const blob = await retrieveImage(id); return {READ}; }}"
    return bytes(call(page, code, image_id))


def fulfill(route: Route, status: int, body: str) -> None:
    route.fulfill(status=status, body=body)


def test_the_module_is_kept_by_browsers_and_asked_about_every_time(site: Site) -> None:
    url = f"{site.api.server.url}/static/heroimg.js"
    answer = requests.get(url, timeout=20)
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.content == CLIENT.read_bytes()
    again = requests.get(url, headers={"If-None-Match": answer.headers["ETag"]}, timeout=20)
    assert (again.status_code, again.content) == (304, b"")


def test_the_types_are_those_of_the_module(tmp_path: Path) -> None:
    run_node_tool("tsc", "--project", "tsconfig.types.json", "--outDir", str(tmp_path), cwd=ROOT)
    made = (tmp_path / "heroimg.d.ts").read_text()
    assert made == CLIENT.with_suffix(".d.ts").read_text(), "run `npm run types`"


def test_an_upload_gives_the_id_and_tells_its_progress(site: Site, page: Page) -> None:
    code = """async ({ uploadImage }, numbers) => {
        const told = [];
        const id = await uploadImage(new Blob([new Uint8Array(numbers)]), { onProgress: (sent) => told.push(sent) });
        return { id, told };
    }"""
    result = call(page, code, list(pictures.jpeg()))
    assert site.api.retrieve(result["id"]).content == pictures.jpeg()
    assert result["told"] == sorted(result["told"])
    assert result["told"][-1] == 1


def test_an_upload_is_stopped_by_its_signal_and_gives_its_reason(site: Site, page: Page) -> None:
    middle = site.proxy.stop_at(Stop(b"POST /api/temp-image-upload", after=100_000, upwards=True, breaks=False))
    page.evaluate(
        """async (size) => {
            const { uploadImage } = await import("/static/heroimg.js");
            window.controller = new AbortController();
            window.reason = new Error("changed my mind");
            const file = new Blob([new Uint8Array(size)]);
            window.stopped = uploadImage(file, { signal: controller.signal }).catch((error) => error === reason);
        }""",
        3_000_000,
    )
    wait_for(middle.reached.is_set, "the upload to be on its way")
    page.evaluate("controller.abort(reason)")
    middle.go_on.set()
    assert page.evaluate("stopped") is True
    again = "({ uploadImage }) => uploadImage(new Blob(), { signal: controller.signal }).catch((e) => e === reason)"
    assert call(page, again) is True


def test_an_upload_that_the_browser_ends_is_a_lost_connection(site: Site, page: Page) -> None:
    middle = site.proxy.stop_at(Stop(b"POST /api/temp-image-upload", after=100_000, upwards=True, breaks=False))
    page.evaluate(
        """async (size) => {
            const { uploadImage } = await import("/static/heroimg.js");
            window.ended = uploadImage(new Blob([new Uint8Array(size)])).catch(({ code }) => code);
        }""",
        3_000_000,
    )
    wait_for(middle.reached.is_set, "the upload to be on its way")
    page.evaluate("window.stop()")
    middle.go_on.set()
    assert page.evaluate("ended") == "connection_lost"


def test_failures_carry_the_words_and_sentences_of_the_api(page: Page) -> None:
    code = "({ uploadImage }, size) => uploadImage(new Blob([new Uint8Array(size)]))"
    assert call(page, code, 7 * 1024 * 1024)["failure"] == {
        "name": "HeroimgError",
        "code": "image_too_large",
        "message": "The picture is 7.0 MB; the limit is 5 MB.",
        "status": 413,
        "retryAfter": None,
    }
    assert call(page, code, 100)["failure"]["code"] == "not_a_picture"
    assert call(page, "({ createCheckoutSession }) => createCheckoutSession('0'.repeat(32))")["failure"]["code"] == (
        "image_not_found"
    )
    assert call(page, "({ sessionStatus }) => sessionStatus('..')")["failure"]["code"] == "session_id_malformed"
    assert call(page, "({ retrieveImage }) => retrieveImage('a&b=c')")["failure"]["code"] == "image_not_found"
    assert call(page, "({ HeroimgError }) => new HeroimgError('a', 'b') instanceof Error")


def test_what_is_no_answer_of_the_api_is_a_failure_too(page: Page) -> None:
    expected = {
        "name": "HeroimgError",
        "code": "answer_unreadable",
        "message": "The server sent an unexpected answer (413). Please try again in a moment.",
        "status": 413,
        "retryAfter": None,
    }
    for body in ("<html>nginx</html>", '{"error": {"code": 413}}', '{"code": 413}', "null"):
        page.unroute_all()
        page.route("**/api/**", partial(fulfill, status=413, body=body))
        for code in ("({ uploadImage }) => uploadImage(new Blob([]))", "({ sessionStatus }) => sessionStatus('x')"):
            assert call(page, code)["failure"] == expected
    for body in ("<html>a single-page application</html>", '{"foo": 1}'):
        page.unroute_all()
        page.route("**/api/**", partial(fulfill, status=200, body=body))
        for code in (
            "({ uploadImage }) => uploadImage(new Blob([]))",
            "({ createCheckoutSession }) => createCheckoutSession('x')",
            "({ sessionStatus }) => sessionStatus('x')",
            "({ retrieveImage }) => retrieveImage('x')",
        ):
            assert call(page, code)["failure"]["code"] == "answer_unreadable"


def test_the_whole_journey_by_the_module_alone(site: Site, page: Page) -> None:
    upload = "({ uploadImage }, numbers) => uploadImage(new Blob([new Uint8Array(numbers)]))"
    image_id = call(page, upload, list(pictures.jpeg()))
    secret = call(page, "({ createCheckoutSession }, id) => createCheckoutSession(id)", image_id)
    session_id = secret.partition("_secret_")[0]
    site.stand_in.pay(session_id)
    assert call(page, "({ sessionStatus }, id) => sessionStatus(id)", session_id) == {
        "status": "complete",
        "payment_status": "paid",
        "metadata": {"imageId": image_id},
    }
    assert retrieve(page, image_id) == pictures.jpeg()
    wait_for(lambda: site.api.server.names() == [], "the picture to be gone")


def test_calls_at_once_and_later_ones_share_one_retrieval(site: Site, page: Page) -> None:
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.method))
    code = """async ({ retrieveImage }, id) => {
        const [first, second] = await Promise.all([retrieveImage(id), retrieveImage(id)]);
        const blob = await retrieveImage(id);
        return first === second && second === blob && %s;
    }"""
    assert bytes(call(page, code % READ, site.api.keep(pictures.jpeg()))) == pictures.jpeg()
    wait_for(lambda: page.evaluate("sessionStorage.length") == 0, "the picture to be confirmed")
    assert asked.count("GET") == 2  # the module, and the picture
    assert asked.count("DELETE") == 1


def test_the_claim_survives_a_reload_and_is_forgotten_once_confirmed(site: Site, page: Page) -> None:
    image_id = site.api.keep(pictures.jpeg())
    page.route(RETRIEVE, lambda route: route.continue_() if route.request.method == "GET" else route.abort())
    page.clock.install()
    assert retrieve(page, image_id) == pictures.jpeg()
    (claim,) = page.evaluate("Object.values(sessionStorage)")
    assert len(claim) == 32
    assert site.api.retrieve(image_id).status_code == 409
    for _ in range(25):
        page.clock.run_for(16_000)  # past all patience with the confirmation
    assert page.evaluate("Object.values(sessionStorage)") == [claim]
    page.unroute(RETRIEVE)
    page.reload()
    assert retrieve(page, image_id) == pictures.jpeg()
    wait_for(lambda: page.evaluate("sessionStorage.length") == 0, "the claim to be forgotten")
    assert site.api.server.names() == []


def test_without_a_session_storage_the_claim_is_kept_in_memory(site: Site, page: Page) -> None:
    page.add_init_script("Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no') } })")
    page.reload()
    data = pictures.jpeg(0.3)
    site.proxy.stop_at(Stop(b"GET /api/temp-image-retrieve", after=100_000))
    assert retrieve(page, site.api.keep(data)) == data
    wait_for(lambda: site.api.server.names() == [], "the picture to be gone")


def test_nothing_is_confirmed_before_every_byte_is_there(site: Site, page: Page) -> None:
    image_id, data = site.api.keep(pictures.jpeg()), pictures.jpeg()
    asked = list[str]()

    def shorten_the_first(route: Route) -> None:
        asked.append(route.request.method)
        if len(asked) > 1:
            return route.continue_()
        # As by a proxy that drops or changes the length it was told, and then loses the connection.
        return route.fulfill(headers={"Content-Type": "image/jpeg", "Image-Size": str(len(data))}, body=data[:-1])

    page.route(RETRIEVE, shorten_the_first)
    assert retrieve(page, image_id) == data
    wait_for(lambda: page.evaluate("1") and len(asked) == 3, "the confirmation")
    assert asked == ["GET", "GET", "DELETE"]


def test_a_confirmation_that_is_lost_is_made_again(site: Site, page: Page) -> None:
    asked = list[str]()

    def lose_the_first(route: Route) -> None:
        asked.append(route.request.method)
        return route.abort() if asked.count("DELETE") == 1 and asked[-1] == "DELETE" else route.continue_()

    page.route(RETRIEVE, lose_the_first)
    assert retrieve(page, site.api.keep(pictures.jpeg())) == pictures.jpeg()
    wait_for(lambda: page.evaluate("1") and site.api.server.names() == [], "the picture to be gone")


def test_every_picture_has_a_claim_of_its_own(site: Site, page: Page) -> None:
    page.route(RETRIEVE, lambda route: route.continue_() if route.request.method == "GET" else route.abort())
    page.clock.install()
    for _ in range(2):
        retrieve(page, site.api.keep(pictures.jpeg()))
    assert len(set(page.evaluate("Object.values(sessionStorage)"))) == 2


def test_a_retrieval_that_failed_for_good_can_be_tried_again(page: Page) -> None:
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    for _ in range(2):
        assert call(page, "({ retrieveImage }) => retrieveImage('a&b')")["failure"]["code"] == "image_not_found"
    assert sum("imageId=a%26b&claim=" in url for url in asked) == 2


def test_every_caller_is_told_of_the_waits(page: Page) -> None:
    page.route(RETRIEVE, lambda route: route.abort())
    page.clock.install()
    page.evaluate(
        """async () => {
            const { retrieveImage } = await import("/static/heroimg.js");
            window.told = [];
            for (const name of ["first", "second"]) retrieveImage("x", { onWait: () => told.push(name) });
        }"""
    )
    wait_for(lambda: page.evaluate("told.length") >= 2, "both to be told of the first wait")
    assert page.evaluate("told.slice(0, 2)") == ["first", "second"]


def test_an_upload_that_may_be_tried_later_says_when(page: Page) -> None:
    later = answer(503, "store_unavailable", **{"Retry-After": "7"})
    page.route("**/api/**", lambda route: route.fulfill(**later))
    assert call(page, "({ uploadImage }) => uploadImage(new Blob())")["failure"]["retryAfter"] == 7


def test_the_next_attempt_is_made_when_the_wait_is_over_and_not_before(page: Page) -> None:
    later = answer(503, "store_unavailable", **{"Retry-After": "60"})
    page.route(STATUS, lambda route: route.fulfill(**later))
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.clock.install()
    page.evaluate(
        """async () => {
            const { sessionStatus } = await import("/static/heroimg.js");
            window.told = [];
            sessionStatus("a&b", { onWait: () => told.push(1) });
        }"""
    )
    wait_for(lambda: page.evaluate("told.length") == 1, "the first wait")
    page.clock.run_for(40_000)  # real time passes as well
    assert [url for url in asked if "session_id=a%26b" in url] == asked[1:]
    assert len(asked) == 2  # the module, and the first attempt
    page.clock.run_for(20_000)
    wait_for(lambda: page.evaluate("1") and len(asked) == 3, "the second attempt")


def test_a_gateway_that_compresses_does_no_harm(site: Site, page: Page) -> None:
    body = gzip.compress(json.dumps({"status": "open", "filler": "a" * 500}).encode())
    with HTTPServer("127.0.0.1") as gateway:
        answer = gateway.expect_request("/api/checkout/session-status")
        answer.respond_with_data(body, headers={"Content-Encoding": "gzip"}, content_type="application/json")
        page.evaluate("import('/static/heroimg.js').then(() => 1)")
        target, site.proxy.target = site.proxy.target, gateway.url_for("/")
        site.proxy.clear()
        try:
            assert call(page, "({ sessionStatus }) => sessionStatus('x')")["status"] == "open"
        finally:
            site.proxy.target = target


def waits(page: Page, code: str, answers: list[dict[str, Any]], path: str = STATUS) -> list[Any]:
    """Give these answers, one after another; return what the module says of each wait, and how it ended."""
    page.route(path, lambda route: route.fulfill(**answers.pop(0)) if answers else route.abort("connectionreset"))
    page.clock.install()
    page.evaluate(
        f"""async () => {{
            const heroimg = await import("/static/heroimg.js");
            window.told = [];
            window.begun = Date.now();
            const onWait = ({{ code, status }}, seconds) => told.push([code, status, seconds]);
            ({code})(heroimg, onWait).then(
                () => told.push("done"), ({{ code }}) => told.push(code)).finally(() => (window.ended = Date.now()));
        }}"""
    )
    for _ in range(400):
        page.clock.run_for(1000)
        told: list[Any] = page.evaluate("told")
        if told and isinstance(told[-1], str):
            return told
    raise AssertionError(told)


def answer(status: int, code: str, **headers: str) -> dict[str, Any]:
    return {"status": status, "json": {"code": code, "error": "Later."}, "headers": headers}


ASK_STATUS = "({ sessionStatus }, onWait) => sessionStatus('cs_test_x', { onWait })"
ASK_PICTURE = "({ retrieveImage }, onWait) => retrieveImage('x', { onWait })"


def test_retry_after_is_honoured(page: Page) -> None:
    answers = [
        answer(503, "store_unavailable", **{"Retry-After": "7"}),
        answer(429, "too_many_requests", **{"Retry-After": "60"}),
        answer(409, "image_claimed", **{"Retry-After": "0"}),
        {"status": 502, "body": "<html>"},
        {"status": 504, "body": "<html>"},
        answer(503, "not_ready", **{"Retry-After": "Sun, 22 Nov 2026 10:00:00 GMT"}),
        {"status": 200, "json": {"status": "complete"}},
    ]
    assert waits(page, ASK_STATUS, answers) == [
        ["store_unavailable", 503, 7],
        ["too_many_requests", 429, 60],
        ["image_claimed", 409, 1],
        ["answer_unreadable", 502, 8],
        ["answer_unreadable", 504, 16],
        ["not_ready", 503, 16],
        "done",
    ]


def test_patience_ends_with_the_last_failure(page: Page) -> None:
    told = waits(page, ASK_PICTURE, [], RETRIEVE)
    assert told[:6] == [["connection_lost", 0, seconds] for seconds in (1, 2, 4, 8, 16, 16)]
    assert told[-1] == "connection_lost"
    assert sum(wait[2] for wait in told[:-1]) <= 330
    # By the page's clock, which goes on during a request: another wait of 16 seconds would exceed the 330.
    assert 330 - 16 <= page.evaluate("(ended - begun) / 1000") <= 332


def test_an_operators_failure_is_not_asked_about_again(page: Page) -> None:
    assert waits(page, ASK_STATUS, [answer(503, "checkout_not_configured")]) == ["checkout_not_configured"]


def test_a_wait_longer_than_the_patience_is_not_begun(page: Page) -> None:
    answers = [answer(409, "image_claimed", **{"Retry-After": "331"})]
    assert waits(page, ASK_PICTURE, answers, RETRIEVE) == ["image_claimed"]


@pytest.mark.parametrize(
    ("status", "code"), [(404, "image_not_found"), (502, "payment_failed"), (400, "claim_malformed")]
)
def test_what_asking_again_does_not_mend_is_not_asked_again(page: Page, status: int, code: str) -> None:
    assert waits(page, ASK_PICTURE, [answer(status, code)], RETRIEVE) == [code]


@pytest.mark.parametrize("after", [0, 100_000])
def test_a_connection_on_which_nothing_arrives_is_given_up_after_a_minute(site: Site, page: Page, after: int) -> None:
    image_id = site.api.keep(pictures.jpeg(0.3))
    silent = site.proxy.stop_at(Stop(b"GET /api/temp-image-retrieve", after=after, breaks=False))
    page.clock.install()
    page.evaluate(
        """async (id) => {
            const { retrieveImage } = await import("/static/heroimg.js");
            window.told = [];
            retrieveImage(id, { onWait: ({ code }, seconds) => told.push([code, seconds]) });
        }""",
        image_id,
    )
    wait_for(silent.reached.is_set, "the connection to fall silent")
    page.clock.run_for(40_000)  # real time passes as well
    assert page.evaluate("told") == []

    def is_given_up() -> bool:
        page.clock.run_for(5_000)  # from when the last bytes were seen, which may be after they were sent
        return bool(page.evaluate("told")[:1] == [["connection_lost", 1]])

    wait_for(is_given_up, "it to be given up")


def test_a_slow_connection_on_which_something_arrives_is_not_given_up(site: Site, page: Page) -> None:
    data = pictures.jpeg(0.3)
    image_id = site.api.keep(data)
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.method))
    third = Stop(b"", after=50_000, breaks=False)
    second = Stop(b"", after=50_000, breaks=False, then=third)
    first = site.proxy.stop_at(Stop(b"GET /api/temp-image-retrieve", after=100_000, breaks=False, then=second))
    page.clock.install()
    page.evaluate(
        """async (id) => {
            const { retrieveImage } = await import("/static/heroimg.js");
            window.picture = retrieveImage(id);
        }""",
        image_id,
    )
    for stop in (first, second, third):
        wait_for(stop.reached.is_set, "the next bytes to be on their way")
        page.clock.run_for(24_000)  # two of these are less than a minute, and all three are more
        stop.go_on.set()
    assert page.evaluate("picture.then((blob) => blob.size)") == len(data)
    assert asked.count("GET") == 2  # the module, and the picture


def test_a_confirmation_outlives_its_page(site: Site, page: Page) -> None:
    image_id = site.api.keep(pictures.jpeg())
    held = site.proxy.stop_at(Stop(b"DELETE /api/temp-image-retrieve", after=0, upwards=True, breaks=False))
    assert retrieve(page, image_id) == pictures.jpeg()
    wait_for(held.reached.is_set, "the confirmation to be on its way")
    page.goto("about:blank")
    held.go_on.set()
    wait_for(lambda: site.api.server.names() == [], "the picture to be gone")


def test_a_browser_without_streams_gets_the_picture_too(site: Site, page: Page) -> None:
    page.add_init_script("Object.defineProperty(Response.prototype, 'body', { get() {} })")
    page.reload()
    assert retrieve(page, site.api.keep(pictures.jpeg())) == pictures.jpeg()
    wait_for(lambda: site.api.server.names() == [], "the picture to be gone")
