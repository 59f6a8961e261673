"""heroimg.js in a real browser: what its functions give, and what they make of failures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, Route

from . import pictures
from .browser import Visitor
from .conftest import Site
from .programs import run_node_tool
from .proxy import Stop
from .serving import ROOT, wait_for

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
    code = """async ({ uploadImage }, size) => {
        const controller = new AbortController();
        const reason = new Error("changed my mind");
        const upload = uploadImage(new Blob([new Uint8Array(size)]), { signal: controller.signal });
        controller.abort(reason);
        return [upload, uploadImage(new Blob(["x"]), { signal: controller.signal })].map((promise) =>
            promise.catch((error) => error === reason));
    }"""
    code = code.replace("return [", "return Promise.all([").replace("error === reason));", "error === reason)));")
    assert call(page, code, 3_000_000) == [True, True]
    assert site.api.server.names() == []


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
    page.route("**/api/**", lambda route: route.fulfill(status=413, body="<html>nginx</html>"))
    expected = {
        "name": "HeroimgError",
        "code": "answer_unreadable",
        "message": "The server gave an answer that makes no sense here (413). Please try again in a moment.",
        "status": 413,
        "retryAfter": None,
    }
    for code in ("({ uploadImage }) => uploadImage(new Blob([]))", "({ sessionStatus }) => sessionStatus('x')"):
        assert call(page, code)["failure"] == expected
    page.unroute_all()
    page.route("**/api/**", lambda route: route.fulfill(status=200, content_type="text/html", body="<html>spa</html>"))
    for code in (
        "({ uploadImage }) => uploadImage(new Blob([]))",
        "({ createCheckoutSession }) => createCheckoutSession('x')",
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
        headers = {"Content-Type": "image/jpeg", "Content-Length": str(len(data))}
        return route.fulfill(headers=headers, body=data[:-1])

    page.route(RETRIEVE, shorten_the_first)
    assert retrieve(page, image_id) == data
    wait_for(lambda: len(asked) == 3, "the confirmation")
    assert asked == ["GET", "GET", "DELETE"]


def waits(page: Page, code: str, answers: list[dict[str, Any]], path: str = STATUS) -> list[Any]:
    """Give these answers, one after another; return what the module says of each wait, and how it ended."""
    page.route(path, lambda route: route.fulfill(**answers.pop(0)) if answers else route.abort("connectionreset"))
    page.clock.install()
    page.evaluate(
        f"""async () => {{
            const heroimg = await import("/static/heroimg.js");
            window.told = [];
            const onWait = ({{ code, status }}, seconds) => told.push([code, status, seconds]);
            ({code})(heroimg, onWait).then(
                () => told.push("done"), ({{ code }}) => told.push(code));
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
        answer(503, "not_ready", **{"Retry-After": "Sun, 22 Nov 2026 10:00:00 GMT"}),
        {"status": 200, "json": {"status": "complete"}},
    ]
    assert waits(page, ASK_STATUS, answers) == [
        ["store_unavailable", 503, 7],
        ["too_many_requests", 429, 60],
        ["image_claimed", 409, 1],
        ["answer_unreadable", 502, 8],
        ["not_ready", 503, 16],
        "done",
    ]


def test_patience_ends_with_the_last_failure(page: Page) -> None:
    told = waits(page, ASK_PICTURE, [], RETRIEVE)
    assert told[:6] == [["connection_lost", 0, seconds] for seconds in (1, 2, 4, 8, 16, 16)]
    assert told[-1] == "connection_lost"
    assert 300 < sum(wait[2] for wait in told[:-1]) <= 330


def test_a_wait_longer_than_the_patience_is_not_begun(page: Page) -> None:
    answers = [answer(409, "image_claimed", **{"Retry-After": "331"})]
    assert waits(page, ASK_PICTURE, answers, RETRIEVE) == ["image_claimed"]


@pytest.mark.parametrize(
    ("status", "code"), [(404, "image_not_found"), (502, "payment_failed"), (400, "claim_malformed")]
)
def test_what_asking_again_does_not_mend_is_not_asked_again(page: Page, status: int, code: str) -> None:
    assert waits(page, ASK_PICTURE, [answer(status, code)], RETRIEVE) == [code]


def test_a_connection_on_which_nothing_arrives_is_given_up_after_a_minute(site: Site, page: Page) -> None:
    data = pictures.jpeg(0.3)
    image_id = site.api.keep(data)
    silent = site.proxy.stop_at(Stop(b"GET /api/temp-image-retrieve", after=100_000, breaks=False))
    page.clock.install()
    page.evaluate(
        """async (id) => {
            const { retrieveImage } = await import("/static/heroimg.js");
            window.picture = retrieveImage(id);
        }""",
        image_id,
    )
    wait_for(silent.reached.is_set, "the connection to fall silent")
    page.clock.run_for(61_000)
    page.clock.run_for(1_000)
    assert page.evaluate("picture.then((blob) => blob.size)") == len(data)
