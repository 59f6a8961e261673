"""heroimg.js in Chromium: the results of its functions, their errors and their retries."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Page, Route
from pytest_httpserver import HTTPServer

from tests.helpers import pictures
from tests.helpers.heroimg_js import STATUS, answer, call, waits
from tests.helpers.node_tools import run_node_tool
from tests.helpers.proxy import Stop
from tests.helpers.serving import ROOT, wait_for
from tests.helpers.shop import Site

pytestmark = pytest.mark.proof

CLIENT = ROOT / "heroimg" / "static" / "heroimg.js"

SESSION = "**/api/checkout/embedded-session"
RETRIEVE = "**/api/temp-image-retrieve*"

READ = "Array.from(new Uint8Array(await blob.arrayBuffer()))"


def retrieve(page: Page, image_id: str) -> bytes:
    code = f"async ({{ retrieveImage }}, id) => {{ const blob = await retrieveImage(id); return {READ}; }}"
    return bytes(call(page, code, image_id))


def fulfill(route: Route, status: int, body: str) -> None:
    route.fulfill(status=status, body=body)


def test_browsers_cache_the_module_and_revalidate_it_every_time(site: Site) -> None:
    url = f"{site.api.server.url}/static/heroimg.js"
    answer = requests.get(url, timeout=20)
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    assert answer.content == CLIENT.read_bytes()
    again = requests.get(url, headers={"If-None-Match": answer.headers["ETag"]}, timeout=20)
    assert (again.status_code, again.content) == (304, b"")


def test_the_types_are_those_of_the_module(tmp_path: Path) -> None:
    run_node_tool("tsc", "--project", "tsconfig.types.json", "--outDir", str(tmp_path), cwd=ROOT)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in (CLIENT.parent / "types").iterdir()}, "run `npm run types`"


def test_failures_carry_the_words_and_sentences_of_the_api(page: Page) -> None:
    code = "({ uploadImage }, size) => uploadImage(new Blob([new Uint8Array(size)]), { fit: false })"
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


def test_an_answer_that_is_not_the_apis_is_a_failure(page: Page) -> None:
    expected = {
        "name": "HeroimgError",
        "code": "answer_unreadable",
        "message": "The server sent an unexpected answer (403). Please try again in a moment.",
        "status": 403,
        "retryAfter": None,
    }
    upload = "({ uploadImage }) => uploadImage(new Blob(['x']), { fit: false })"
    for body in ("<html>nginx</html>", '{"error": {"code": 403}}', '{"code": 403}', "null"):
        page.unroute_all()
        page.route("**/api/**", partial(fulfill, status=403, body=body))
        for code in (
            upload,
            "({ uploadImage }) => uploadImage(new Blob(['x']))",
            "({ sessionStatus }) => sessionStatus('x')",
        ):
            assert call(page, code)["failure"] == expected
    for body in ("<html>a single-page application</html>", '{"foo": 1}'):
        page.unroute_all()
        page.route("**/api/**", partial(fulfill, status=200, body=body))
        for code in (
            upload,
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
    page.on("request", lambda request: asked.append(request.method) if "/api/" in request.url else None)
    code = """async ({ retrieveImage }, id) => {
        const [first, second] = await Promise.all([retrieveImage(id), retrieveImage(id)]);
        const blob = await retrieveImage(id);
        return first === second && second === blob && %s;
    }"""
    assert bytes(call(page, code % READ, site.api.keep(pictures.jpeg()))) == pictures.jpeg()
    wait_for(lambda: page.evaluate("sessionStorage.length") == 0, "the picture to be confirmed")
    assert asked.count("GET") == 1
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
        page.clock.run_for(16_000)  # longer than the module retries a confirmation
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


def test_a_picture_is_confirmed_only_when_every_byte_has_arrived(site: Site, page: Page) -> None:
    image_id, data = site.api.keep(pictures.jpeg()), pictures.jpeg()
    asked = list[str]()

    def shorten_the_first(route: Route) -> None:
        asked.append(route.request.method)
        if len(asked) > 1:
            return route.continue_()
        # Like a proxy that changes Content-Length and then loses the connection.
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


def test_every_caller_hears_of_the_pauses(page: Page) -> None:
    page.route(RETRIEVE, lambda route: route.abort())
    page.clock.install()
    page.evaluate(
        """async () => {
            const { retrieveImage } = await import("/static/heroimg.js");
            window.reports = [];
            for (const name of ["first", "second"]) retrieveImage("x", { onWait: () => reports.push(name) });
        }"""
    )
    wait_for(lambda: page.evaluate("reports.length") >= 2, "both to get the first report")
    assert page.evaluate("reports.slice(0, 2)") == ["first", "second"]


def test_the_next_attempt_is_made_when_the_wait_is_over_and_not_before(page: Page) -> None:
    later = answer(503, "store_unavailable", **{"Retry-After": "60"})
    page.route(STATUS, lambda route: route.fulfill(**later))
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.url) if "/api/" in request.url else None)
    page.clock.install()
    page.evaluate(
        """async () => {
            const { sessionStatus } = await import("/static/heroimg.js");
            window.reports = [];
            sessionStatus("a&b", { onWait: () => reports.push(1) });
        }"""
    )
    wait_for(lambda: page.evaluate("reports.length") == 1, "the first wait")
    page.clock.run_for(40_000)  # real time passes as well
    assert len(asked) == 1
    assert "session_id=a%26b" in asked[0]
    page.clock.run_for(20_000)
    wait_for(lambda: page.evaluate("1") and len(asked) == 2, "the second attempt")


def test_an_answer_that_a_gateway_compressed_is_read(site: Site, page: Page) -> None:
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
    reports = waits(page, ASK_PICTURE, [], RETRIEVE)
    assert reports[:6] == [["connection_lost", 0, seconds] for seconds in (1, 2, 4, 8, 16, 16)]
    assert reports[-1] == "connection_lost"
    assert sum(wait[2] for wait in reports[:-1]) <= 330
    # By the page's clock, which goes on during a request: another wait of 16 seconds would exceed the 330.
    assert 330 - 16 <= page.evaluate("(ended - begun) / 1000") <= 334


def test_a_failure_that_only_the_operator_can_fix_is_not_retried(page: Page) -> None:
    assert waits(page, ASK_STATUS, [answer(503, "checkout_not_configured")]) == ["checkout_not_configured"]


def test_a_pause_longer_than_the_patience_fails_at_once(page: Page) -> None:
    answers = [answer(409, "image_claimed", **{"Retry-After": "331"})]
    assert waits(page, ASK_PICTURE, answers, RETRIEVE) == ["image_claimed"]


@pytest.mark.parametrize(("status", "code"), [(404, "image_not_found"), (503, "clock_wrong"), (400, "claim_malformed")])
def test_a_permanent_failure_is_not_retried(page: Page, status: int, code: str) -> None:
    assert waits(page, ASK_PICTURE, [answer(status, code)], RETRIEVE) == [code]


def test_every_temporary_failure_is_retried(page: Page) -> None:
    proxies = [{"status": status, "body": "<html>"} for status in (408, 500, 507, 508, 520, 521, 522, 523, 524, 530)]
    ours = [
        answer(500, "server_unreachable", **{"Retry-After": "5"}),
        answer(500, "internal_error"),
        answer(502, "payment_failed"),
    ]
    reports = waits(page, ASK_STATUS, [*proxies, *ours, {"status": 200, "json": {"status": "complete"}}])
    assert [wait[:2] for wait in reports[:-1]] == [
        *(["answer_unreadable", proxy["status"]] for proxy in proxies),
        ["server_unreachable", 500],
        ["internal_error", 500],
        ["payment_failed", 502],
    ]
    assert reports[-1] == "done"


def test_a_checkout_is_opened_again_when_the_server_says_when(page: Page) -> None:
    session = "({ createCheckoutSession }, onWait) => createCheckoutSession('x', { onWait })"
    busy = answer(503, "payment_unreachable", **{"Retry-After": "2"})
    done = {"status": 200, "json": {"client_secret": "cs_test_x_secret_y"}}
    assert waits(page, session, [busy, done], SESSION) == [["payment_unreachable", 503, 2], "done"]
    for hopeless in (
        answer(503, "payment_unreachable"),
        answer(503, "clock_wrong", **{"Retry-After": "60"}),
        answer(409, "image_claimed", **{"Retry-After": "60"}),
        answer(502, "payment_failed"),
    ):
        page.reload()
        assert waits(page, session, [hopeless], SESSION) == [hopeless["json"]["code"]]


def test_a_page_that_holds_a_picture_opens_its_checkout_with_its_claim(site: Site, page: Page) -> None:
    image_id = site.api.keep(pictures.jpeg())
    page.route(RETRIEVE, lambda route: route.continue_() if route.request.method == "GET" else route.abort())
    retrieve(page, image_id)
    with page.expect_request(SESSION) as request:
        secret = call(page, "({ createCheckoutSession }, id) => createCheckoutSession(id)", image_id)
    assert secret.startswith("cs_test_")
    assert request.value.post_data_json == {
        "imageId": image_id,
        "claim": page.evaluate("Object.values(sessionStorage)[0]"),
    }


def test_a_device_that_slept_during_a_fetch_tries_again(site: Site, page: Page) -> None:
    image_id = site.api.keep(pictures.jpeg())
    silent = site.proxy.stop_at(Stop(b"GET /api/temp-image-retrieve", after=0, breaks=False))
    page.clock.install()
    page.evaluate(
        """async (id) => {
            const { retrieveImage } = await import("/static/heroimg.js");
            const note = (result) => (window.size = result.size ?? result.code);
            retrieveImage(id).then(note, note);
        }""",
        image_id,
    )
    wait_for(silent.reached.is_set, "the connection to fall silent")
    page.clock.fast_forward("06:00")

    def has_ended() -> bool:
        page.clock.run_for(500)
        return bool(page.evaluate("window.size"))

    wait_for(has_ended, "the second attempt")
    assert page.evaluate("size") == len(pictures.jpeg())


@pytest.mark.parametrize("event", ["online", "wake"])
def test_a_pause_ends_when_the_device_is_online_again_or_wakes(page: Page, event: str) -> None:
    answers = [answer(429, "too_many_requests", **{"Retry-After": "300"}), {"status": 200, "json": {"status": "open"}}]
    page.route(STATUS, lambda route: route.fulfill(**answers.pop(0)))
    page.clock.install()
    page.evaluate(
        """async () => {
            const { sessionStatus } = await import("/static/heroimg.js");
            window.waits = 0;
            window.answer = sessionStatus("x", { onWait: () => waits++ });
        }"""
    )
    wait_for(lambda: page.evaluate("waits") == 1, "the wait")
    page.clock.run_for(10_000)
    assert len(answers) == 1
    if event == "online":
        page.evaluate("dispatchEvent(new Event('online'))")
    else:
        page.clock.fast_forward(60_000)
    assert page.evaluate("answer.then(({ status }) => status)") == "open"


def test_time_asleep_uses_up_no_patience(page: Page) -> None:
    page.route(RETRIEVE, lambda route: route.abort("connectionreset"))
    page.clock.install()
    page.evaluate(
        """async () => {
            const { retrieveImage } = await import("/static/heroimg.js");
            window.reports = [];
            window.result = "";
            retrieveImage("x", { onWait: (_, seconds) => reports.push(seconds) }).catch(({ code }) => (result = code));
        }"""
    )
    for count in range(1, 6):
        page.wait_for_function("(count) => reports.length === count", arg=count, polling=50)
        page.clock.fast_forward("30:00")
    assert page.evaluate("result") == ""


@pytest.mark.parametrize("after", [0, 100_000])
def test_a_connection_on_which_nothing_arrives_is_given_up_after_a_minute(site: Site, page: Page, after: int) -> None:
    image_id = site.api.keep(pictures.jpeg(0.3))
    silent = site.proxy.stop_at(Stop(b"GET /api/temp-image-retrieve", after=after, breaks=False))
    page.clock.install()
    page.evaluate(
        """async (id) => {
            const { retrieveImage } = await import("/static/heroimg.js");
            window.reports = [];
            retrieveImage(id, { onWait: ({ code }, seconds) => reports.push([code, seconds]) });
        }""",
        image_id,
    )
    wait_for(silent.reached.is_set, "the connection to fall silent")
    page.clock.run_for(40_000)  # real time passes as well
    assert page.evaluate("reports") == []

    def is_given_up() -> bool:
        page.clock.run_for(5_000)  # from when the last bytes were seen, which may be after they were sent
        return bool(page.evaluate("reports")[:1] == [["connection_lost", 1]])

    wait_for(is_given_up, "it to be given up")


def test_a_slow_connection_on_which_something_arrives_is_not_given_up(site: Site, page: Page) -> None:
    data = pictures.jpeg(0.3)
    image_id = site.api.keep(data)
    asked = list[str]()
    page.on("request", lambda request: asked.append(request.method) if "/api/" in request.url else None)
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
    assert asked.count("GET") == 1


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
