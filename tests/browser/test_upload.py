"""uploadImage with real networks, proxies and file pickers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Page, Route

from tests.helpers import pictures
from tests.helpers.heroimg_js import answer, call, waits
from tests.helpers.proxy import Stop
from tests.helpers.serving import wait_for
from tests.helpers.shop import Site

pytestmark = pytest.mark.proof

UPLOAD = "**/api/temp-image-upload"
POST = b"POST /api/temp-image-upload"
LATER = answer(503, "store_unavailable", **{"Retry-After": "7"})

# The server would refuse this file, but these tests only send it.
SEND = "({ uploadImage }, onWait) => uploadImage(new Blob(['x']), { fit: false, onWait })"

# Starts an upload of these bytes, or of this many zeros, and records its progress and its result.
START_UPLOAD = """async (content) => {
    const { uploadImage } = await import("/static/heroimg.js");
    window.controller = new AbortController();
    window.reason = new Error("changed my mind");
    window.progress = [];
    window.waits = [];
    window.result = "";
    uploadImage(new Blob([new Uint8Array(content)]), {
        fit: false,
        signal: controller.signal,
        onProgress: (sent, state) => progress.push([sent, state]),
        onWait: ({ code }, seconds) => waits.push([code, seconds]),
    }).then(
        (id) => (result = id),
        (error) => (result = error === reason ? "stopped" : `${error.code}: ${error.message}`),
    );
}"""


def test_progress_is_1_only_once_the_server_has_answered(site: Site, page: Page) -> None:
    middle = site.proxy.stop_at(Stop(POST, after=0, breaks=False))
    page.evaluate(
        """async (numbers) => {
            const { uploadImage } = await import("/static/heroimg.js");
            window.progress = [];
            const onProgress = (sent, state) => progress.push([sent, state]);
            window.id = uploadImage(new Blob([new Uint8Array(numbers)]), { onProgress });
        }""",
        list(pictures.jpeg()),
    )
    wait_for(middle.reached.is_set, "the answer")
    wait_for(lambda: page.evaluate("progress.at(-1)[1]") == "waiting", "all bytes to have left")
    assert page.evaluate("Math.max(...progress.map(([sent]) => sent))") < 1
    middle.go_on.set()
    assert site.api.retrieve(page.evaluate("id")).content == pictures.jpeg()
    progress = page.evaluate("progress")
    assert progress[0] == [0, "preparing"]
    assert progress[-1] == [1, "waiting"]
    assert progress == sorted(progress, key=lambda report: report[0])


@pytest.mark.parametrize("silence", [60, 120], ids=["while its bytes leave", "before the answer"])
def test_a_silent_upload_is_given_up_and_tried_again_within_two_minutes(site: Site, page: Page, silence: int) -> None:
    is_sending = silence == 60
    after = 1_000_000 if is_sending else 0
    held = site.proxy.stop_at(Stop(POST, after=after, upwards=is_sending, breaks=False, lasting=True))
    page.clock.install()
    page.evaluate(START_UPLOAD, 12_000_000 if is_sending else 1000)
    wait_for(held.reached.is_set, "the upload to be on its way")
    wait_for(lambda: page.evaluate("progress.at(-1)[1]") == ("sending" if is_sending else "waiting"), "the silence")
    page.clock.run_for((silence - 5) * 1000)
    assert page.evaluate("waits") == []

    def has_ended() -> bool:
        page.clock.run_for(5_000)
        return bool(page.evaluate("result"))

    wait_for(has_ended, "it to be given up")
    assert page.evaluate("result") == (
        "connection_lost: The picture cannot be sent. Please try again, or choose a smaller one."
    )
    assert page.evaluate("waits")[0] == ["connection_lost", 1]
    assert [0, "retrying"] in page.evaluate("progress")
    assert page.evaluate("progress.every(([sent]) => sent < 1)")


def test_an_upload_without_an_answer_is_sent_again(site: Site, page: Page) -> None:
    # Each upload is the first request of its connection, because Chromium itself retries on a reused connection.
    for after, upwards in ((20_000, True), (10, False)):
        site.proxy.clear()
        site.proxy.stop_at(Stop(POST, after=after, upwards=upwards))
        code = """async ({ uploadImage }, numbers) => {
            window.waits = 0;
            return uploadImage(new Blob([new Uint8Array(numbers)]), { onWait: () => waits++ });
        }"""
        image_id = call(page, code, list(pictures.jpeg()))
        assert site.api.retrieve(image_id).content == pictures.jpeg()


def test_an_upload_waits_as_long_as_the_server_says(page: Page) -> None:
    busy = answer(429, "too_many_requests", **{"Retry-After": "60"})
    done = {"status": 200, "json": {"imageId": "0" * 32}}
    assert waits(page, SEND, [LATER, busy, done], UPLOAD) == [
        ["store_unavailable", 503, 7],
        ["too_many_requests", 429, 60],
        "done",
    ]


@pytest.mark.parametrize(
    ("status", "code"),
    [(503, "store_unavailable"), (507, "no_room"), (502, "server_unreachable"), (500, "internal_error")],
)
def test_an_upload_that_is_refused_without_retry_after_is_not_sent_again(page: Page, status: int, code: str) -> None:
    assert waits(page, SEND, [answer(status, code)], UPLOAD) == [code]


def test_an_upload_is_retried_for_two_minutes_at_most(page: Page) -> None:
    reports = waits(page, SEND, [LATER] * 100, UPLOAD)
    assert reports[-1] == "store_unavailable"
    assert sum(wait[2] for wait in reports[:-1]) <= 120


def test_an_empty_body_is_sent_again_once(page: Page) -> None:
    no_image = answer(400, "no_image")
    done = {"status": 200, "json": {"imageId": "0" * 32}}
    assert waits(page, SEND, [no_image, done], UPLOAD) == ["done"]
    page.reload()
    assert waits(page, SEND, [no_image, no_image, done], UPLOAD) == ["file_unreadable"]


def test_a_file_that_is_gone_or_has_changed_since_it_was_chosen_is_unreadable(page: Page, tmp_path: Path) -> None:
    page.set_content("<input type=file>")
    path = tmp_path / "photo.jpg"
    code = "({ uploadImage }) => uploadImage(document.querySelector('input').files[0])"
    for change in (Path.unlink, partial(Path.write_bytes, data=b"another")):
        path.write_bytes(pictures.jpeg())
        page.set_input_files("input", path)
        change(path)
        failure = call(page, code)["failure"]
        assert failure["code"] == "file_unreadable"
        assert failure["message"].endswith("Please choose it again.")


def test_a_proxys_413_says_that_the_picture_is_too_large(page: Page) -> None:
    page.route(UPLOAD, lambda route: route.fulfill(status=413, body="<html>nginx</html>"))
    failure = call(page, "({ uploadImage }) => uploadImage(new Blob(['x']), { fit: false })")["failure"]
    assert failure["code"] == "image_too_large"
    assert failure["message"] == "The picture is too large for the server. Please choose a smaller one."


def stop(page: Page) -> str:
    page.evaluate("controller.abort(reason)")
    wait_for(lambda: page.evaluate("result"), "the upload to be stopped")
    return str(page.evaluate("result"))


def test_an_upload_is_stopped_by_its_signal_while_its_bytes_leave(site: Site, page: Page) -> None:
    middle = site.proxy.stop_at(Stop(POST, after=100_000, upwards=True, breaks=False))
    page.evaluate(START_UPLOAD, 3_000_000)
    wait_for(middle.reached.is_set, "the upload to be on its way")
    assert stop(page) == "stopped"
    middle.go_on.set()
    again = (
        "({ uploadImage }) => uploadImage(new Blob(['x']), { signal: controller.signal }).catch((e) => e === reason)"
    )
    assert call(page, again) is True


def test_an_upload_is_stopped_by_its_signal_between_two_attempts(page: Page) -> None:
    page.route(UPLOAD, lambda route: route.fulfill(**LATER))
    page.evaluate(START_UPLOAD, 1)
    wait_for(lambda: page.evaluate("waits.length"), "the wait")
    assert stop(page) == "stopped"


@pytest.mark.parametrize("held", ["**/api/limits", "**/static/photograph.js"], ids=["limits", "worker"])
def test_an_upload_is_stopped_by_its_signal_while_the_picture_is_made_to_fit(page: Page, held: str) -> None:
    page.evaluate("import('/static/heroimg.js').then(() => 1)")
    requests = list[Route]()
    page.context.route(held, lambda route: requests.insert(0, route))
    page.evaluate(START_UPLOAD.replace("fit: false", "fit: { maxEdge: 10 }"), list(pictures.jpeg()))
    wait_for(lambda: page.evaluate("1") and requests, "the request that is held")
    assert stop(page) == "stopped"
    for route in requests:
        route.abort()


def test_an_upload_that_the_browser_ends_is_sent_again(site: Site, page: Page) -> None:
    middle = site.proxy.stop_at(Stop(POST, after=100_000, upwards=True, breaks=False))
    page.evaluate(START_UPLOAD, 3_000_000)
    wait_for(middle.reached.is_set, "the upload to be on its way")
    page.evaluate("window.stop()")
    middle.go_on.set()
    wait_for(lambda: page.evaluate("result"), "the second attempt")
    assert page.evaluate("waits") == [["connection_lost", 1]]
    assert page.evaluate("result").startswith("not_a_picture")


def test_when_the_browser_is_online_again_the_old_connection_is_given_up(site: Site, page: Page) -> None:
    middle = site.proxy.stop_at(Stop(POST, after=100_000, upwards=True, breaks=False))
    page.evaluate(START_UPLOAD, 3_000_000)
    wait_for(middle.reached.is_set, "the upload to be on its way")
    page.evaluate("dispatchEvent(new Event('online'))")
    wait_for(lambda: page.evaluate("result"), "the second attempt")
    middle.go_on.set()
    assert page.evaluate("waits") == [["connection_lost", 1]]
