"""Retrieval: exactly one reader gets the picture, and a broken connection does not use it up."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from tests.helpers import pictures
from tests.helpers.api import RETRIEVE, Api, new_token
from tests.helpers.serving import DrivenClock, Server, serving, serving_at, wait_for

THREE_MB = pictures.jpeg(3)
TOKEN = "claim-of-the-one-page"
OTHER_TOKEN = "claim-of-another-page"


@pytest.mark.proof
@pytest.mark.parametrize("claims", [False, True], ids=["plain", "with claims"])
def test_exactly_one_of_16_readers_at_once_gets_the_picture_in_each_of_100_rounds(shared: Api, claims: bool) -> None:
    for _ in range(100):
        image_id = shared.keep(pictures.jpeg())
        answers = shared.many(16, image_id, claims)
        statuses = Counter(answer.status_code for answer in answers)
        assert statuses[200] == 1, statuses
        assert set(statuses) <= {200, 404, 409}, statuses
        (winner,) = (answer for answer in answers if answer.status_code == 200)
        assert winner.content == pictures.jpeg()
        assert all(b"JFIF" not in answer.content for answer in answers if answer is not winner)


def test_a_fetch_without_a_claim_is_not_logged_as_claimed(own: Api) -> None:
    image_id = own.keep(pictures.jpeg())
    assert own.retrieve(image_id).status_code == 200
    wait_for(lambda: f"handed over {image_id[:6]}" in own.server.log(), "the hand-over")
    assert f"handing over {image_id[:6]}... for one use" in own.server.log()
    assert "claimed" not in own.server.log()


def test_a_refused_reader_gets_the_seconds_to_wait(shared: Api) -> None:
    image_id = shared.keep(pictures.jpeg())
    shared.retrieve(image_id, TOKEN)
    answer = shared.retrieve(image_id, OTHER_TOKEN)
    assert (answer.status_code, answer.json()["code"]) == (409, "image_claimed")
    assert 200 <= int(answer.headers["Retry-After"]) <= 300


@pytest.mark.parametrize("count", [1, len(THREE_MB) // 2, len(THREE_MB) - 1], ids=["1 byte", "half", "all but one"])
def test_a_claim_survives_a_reader_that_hangs_up(shared: Api, count: int) -> None:
    image_id = shared.keep(THREE_MB)
    for _ in range(2):
        shared.hang_up_after(count, image_id, TOKEN)
        assert shared.retrieve(image_id, OTHER_TOKEN).status_code == 409
        assert shared.confirm(image_id, OTHER_TOKEN).status_code == 409
        assert shared.confirm(image_id).status_code == 409
    assert shared.retrieve(image_id, TOKEN).content == THREE_MB
    assert shared.confirm(image_id, TOKEN).status_code == 204
    assert shared.retrieve(image_id, TOKEN).status_code == 404


@pytest.mark.parametrize("count", [1, 100_000])
def test_a_plain_reader_that_hangs_up_early_has_not_used_the_picture_up(shared: Api, count: int) -> None:
    image_id = shared.keep(pictures.png(30 / 6))
    shared.hang_up_after(count, image_id)
    wait_for(lambda: shared.retrieve(image_id, method="HEAD").status_code == 200, "the claim to be given back")
    assert shared.retrieve(image_id).content == pictures.png(30 / 6)
    wait_for(lambda: shared.is_gone(image_id), "the picture to be gone")


def test_a_claim_lapses_and_the_picture_can_be_claimed_again(tmp_path: Path, clock: DrivenClock) -> None:
    with serving_at(clock, tmp_path / "served") as server:
        api = Api(server)
        image_id = api.keep(pictures.jpeg())
        assert api.retrieve(image_id, TOKEN).status_code == 200
        clock.forward(200)
        assert api.retrieve(image_id, OTHER_TOKEN).status_code == 409
        clock.forward(101)
        assert api.retrieve(image_id, OTHER_TOKEN).status_code == 200
        assert api.retrieve(image_id, TOKEN).status_code == 409
        assert api.confirm(image_id, TOKEN).status_code == 409
        assert api.retrieve(image_id, OTHER_TOKEN).content == pictures.jpeg()


def test_head_neither_makes_nor_renews_nor_revives_a_claim(tmp_path: Path, clock: DrivenClock) -> None:
    with serving_at(clock, tmp_path / "served") as server:
        api = Api(server)
        image_id = api.keep(pictures.jpeg())
        assert api.retrieve(image_id, OTHER_TOKEN, method="HEAD").status_code == 200
        assert api.retrieve(image_id, TOKEN).status_code == 200
        clock.forward(200)
        assert api.retrieve(image_id, TOKEN, method="HEAD").status_code == 200
        clock.forward(101)
        assert api.retrieve(image_id, TOKEN, method="HEAD").status_code == 200
        assert api.retrieve(image_id, OTHER_TOKEN).status_code == 200


@pytest.mark.parametrize("claim", [None, TOKEN], ids=["plain", "with a claim"])
def test_a_slow_reader_keeps_its_claim_for_as_long_as_it_reads(
    tmp_path: Path, clock: DrivenClock, claim: str | None
) -> None:
    picture = pictures.long_jpeg()
    with serving_at(clock, tmp_path / "served", {"HEROIMG_MAX_IMAGE_BYTES": "20000000"}) as server:
        api = Api(server)
        image_id = api.keep(picture)
        query = f"?imageId={image_id}" + (f"&claim={claim}" if claim else "")
        with api.connection(window=32768) as connection:
            connection.sendall(f"GET {RETRIEVE}{query} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            connection.recv(1000)
            first = claim_of(server, image_id)
            clock.forward(200)
            while claim_of(server, image_id) == first:
                assert connection.recv(65536)
            clock.forward(200)
            assert api.retrieve(image_id, OTHER_TOKEN).status_code == 409


def test_a_reader_whose_claim_has_lapsed_and_passed_to_another_does_not_get_the_rest(
    tmp_path: Path, clock: DrivenClock
) -> None:
    picture = pictures.long_jpeg()
    settings = {"HEROIMG_MAX_IMAGE_BYTES": "20000000", "HEROIMG_IMAGE_SECONDS": "2592000"}
    with serving_at(clock, tmp_path / "served", settings) as server:
        api = Api(server)
        image_id = api.keep(picture)
        with api.connection(window=32768) as connection:
            request = f"GET {RETRIEVE}?imageId={image_id} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
            connection.sendall(request.encode())
            connection.recv(1000)
            while (answer := api.retrieve(image_id, OTHER_TOKEN)).status_code == 409:
                clock.forward(301)  # until the server cannot send any more, it renews the claim
            assert answer.content == picture
            assert api.confirm(image_id, OTHER_TOKEN).status_code == 204
            with suppress(ConnectionError):
                assert len(connection.makefile("rb").read()) < len(picture)
        assert image_id not in server.log()


def claim_of(server: Server, image_id: str) -> int:
    until: int = json.loads((server.uploads / f"{image_id}.json").read_text())["claim"]["until"]
    return until


def test_a_worker_killed_in_the_middle_costs_the_claims_time_and_not_the_picture(
    tmp_path: Path, clock: DrivenClock
) -> None:
    picture = pictures.long_jpeg()
    with serving_at(clock, tmp_path / "served", {"HEROIMG_MAX_IMAGE_BYTES": "20000000"}) as server:
        api = Api(server)
        image_id = api.keep(picture)
        with api.connection(window=32768) as connection:
            connection.sendall(f"GET {RETRIEVE}?imageId={image_id} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
            connection.recv(100)
            for worker in server.workers():
                os.kill(worker, signal.SIGKILL)
        wait_for(lambda: server.log().count("ready: ") == 4, "new workers")
        assert api.retrieve(image_id).status_code == 409
        clock.forward(301)
        assert api.retrieve(image_id).content == picture
        wait_for(lambda: server.names() == [], "the picture to be gone")


def test_head_gives_the_headers_and_uses_nothing_up(shared: Api) -> None:
    image_id = shared.keep(pictures.jpeg())
    heads = [shared.retrieve(image_id, method="HEAD") for _ in range(3)]
    assert [head.status_code for head in heads] == [200, 200, 200]
    assert heads[0].content == b""
    answer = shared.retrieve(image_id)
    assert answer.content == pictures.jpeg()
    for name in ("Content-Type", "Content-Length", "Image-Size", "Content-Disposition", "Cache-Control"):
        assert heads[0].headers[name] == answer.headers[name]
    wait_for(lambda: shared.is_gone(image_id), "the picture to be gone")
    assert f"gave back {image_id[:6]}" not in shared.server.log()


def test_the_file_is_closed_once_its_reader_has_it(shared: Api) -> None:
    image_id = shared.keep(pictures.jpeg())
    shared.retrieve(image_id, TOKEN)

    def open_files() -> list[str]:
        targets = []
        for worker in shared.server.workers():
            for file in Path(f"/proc/{worker}/fd").iterdir():
                with suppress(FileNotFoundError):  # closed since it was listed
                    targets.append(str(file.readlink()))
        return [target for target in targets if image_id in target]

    wait_for(lambda: not open_files(), "the file to be closed")


def test_head_of_a_claimed_picture_answers_as_get_would(shared: Api) -> None:
    image_id = shared.keep(pictures.jpeg())
    shared.retrieve(image_id, TOKEN)
    assert shared.retrieve(image_id, method="HEAD").status_code == 409
    assert shared.retrieve(image_id, OTHER_TOKEN, method="HEAD").status_code == 409
    assert shared.retrieve(image_id, TOKEN, method="HEAD").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Purpose": "prefetch"},
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "Prefetch", "Sec-Purpose": ""},
        {"Purpose": "preview"},
        {"X-Purpose": "preview"},
        {"X-Moz": "prefetch"},
    ],
)
def test_a_prefetch_is_refused_and_uses_nothing_up(shared: Api, headers: dict[str, str]) -> None:
    image_id = shared.keep(pictures.jpeg())
    answer = shared.retrieve(image_id, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (503, "prefetch_refused")
    assert shared.retrieve(image_id).content == pictures.jpeg()


@pytest.mark.parametrize("asked", ["bytes=0-0", "bytes=0-99", "bytes=-1", "bytes=999999999-"])
def test_a_range_gets_the_whole_picture_so_that_no_part_of_it_uses_it_up(shared: Api, asked: str) -> None:
    image_id = shared.keep(pictures.jpeg())
    answer = shared.retrieve(image_id, headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, pictures.jpeg())
    assert "Content-Range" not in answer.headers


def test_options_and_post_use_nothing_up(shared: Api) -> None:
    image_id = shared.keep(pictures.jpeg())
    assert shared.retrieve(image_id, method="OPTIONS").status_code == 200
    answer = shared.retrieve(image_id, method="POST")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    assert "GET" in answer.headers["Allow"]
    assert shared.retrieve(image_id).status_code == 200


def test_a_picture_is_sent_so_that_no_cache_keeps_it_and_no_browser_runs_it(shared: Api) -> None:
    headers = shared.retrieve(shared.keep(pictures.jpeg())).headers
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["Image-Size"] == headers["Content-Length"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-Security-Policy"] == "default-src 'none'; sandbox"
    assert "Accept-Ranges" not in headers


def test_no_answer_of_the_api_may_be_stored(shared: Api) -> None:
    for answer in (shared.upload(pictures.jpeg()), shared.upload(b"x"), shared.retrieve("x"), shared.confirm("x")):
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "image_id",
    ["0" * 32, "0" * 31, "0" * 33, "A" * 32, "..", "../../etc/passwd", "%00", "é" * 32, "0" * 32 + "\n", "0" * 3000],
)
def test_an_invalid_id_of_any_form_is_not_found(shared: Api, image_id: str) -> None:
    for method in ("GET", "HEAD"):
        assert shared.retrieve(image_id, method=method).status_code == 404
    assert shared.retrieve(image_id).json() == {"error": "Image not found or expired", "code": "image_not_found"}
    assert shared.retrieve(image_id, TOKEN).status_code == 404
    assert shared.confirm(image_id).status_code == 204


def test_the_names_of_other_files_in_the_folder_are_no_ids(shared: Api) -> None:
    image_id = shared.keep(pictures.jpeg())
    for name in (f"{image_id}.json", ".htaccess"):
        assert shared.retrieve(name).status_code == 404
        assert shared.confirm(name).status_code == 204
    assert shared.retrieve(image_id).status_code == 200


def test_a_request_without_an_id_is_refused(shared: Api) -> None:
    for method in ("GET", "DELETE"):
        for query in ("", "?imageId=", "?image=x"):
            answer = shared.request(method, RETRIEVE + query)
            assert (answer.status_code, answer.json()["error"]) == (400, "imageId required")


@pytest.mark.parametrize("claim", ["short", "x" * 65, "with spaces in between", "é" * 20, "x" * 16 + "\n"])
def test_a_claim_of_the_wrong_form_is_refused_and_uses_nothing_up(shared: Api, claim: str) -> None:
    image_id = shared.keep(pictures.jpeg())
    for method in ("GET", "DELETE"):
        answer = shared.retrieve(image_id, claim, method=method)
        assert (answer.status_code, answer.json()["code"]) == (400, "claim_malformed")
    assert shared.request("GET", f"{RETRIEVE}?imageId={image_id}&claim=").status_code == 400
    assert shared.retrieve(image_id).status_code == 200


def test_without_a_claim_delete_removes_a_picture_that_is_not_claimed(shared: Api) -> None:
    image_id = shared.keep(pictures.jpeg())
    assert shared.confirm(image_id).status_code == 204
    assert shared.confirm(image_id).status_code == 204
    assert shared.retrieve(image_id).status_code == 404


def test_nothing_from_a_customer_is_echoed(shared: Api) -> None:
    script = "<script>alert(1)</script>"
    for answer in (
        shared.retrieve(script),
        shared.retrieve("0" * 32, script),
        shared.upload(b"x", script),
        shared.request("GET", f"/{script}"),
        shared.status(script),
        shared.open_checkout(script),
    ):
        assert "script" not in answer.text
        assert answer.headers["Content-Type"] == "application/json"


def test_a_picture_is_gone_the_second_its_hour_is_over_whether_or_not_a_sweep_ran(
    tmp_path: Path, clock: DrivenClock
) -> None:
    with serving_at(clock, tmp_path / "served", {"HEROIMG_SWEEP_SECONDS": "0"}) as server:
        api = Api(server)
        image_id = api.keep(pictures.jpeg())
        claimed = api.keep(pictures.jpeg())
        api.retrieve(claimed, TOKEN)
        clock.forward(3500)
        assert api.retrieve(image_id, method="HEAD").status_code == 200
        assert api.retrieve(claimed, TOKEN).status_code == 200
        clock.forward(101)
        for method in ("HEAD", "GET"):
            assert api.retrieve(image_id, method=method).status_code == 404
            assert api.retrieve(claimed, TOKEN, method=method).status_code == 404
        assert len(server.names()) == 4


def test_retrieval_works_while_the_disk_has_no_room_for_more(tmp_path: Path) -> None:
    with serving(tmp_path / "served") as server:
        image_id = Api(server).keep(pictures.jpeg())
    with serving(tmp_path / "served", {"HEROIMG_MIN_FREE_BYTES": str(2**50)}) as server:
        api = Api(server)
        answer = api.upload(pictures.jpeg())
        assert (answer.status_code, answer.json()["code"]) == (507, "no_room")
        assert "HEROIMG_MIN_FREE_BYTES" in server.log()
        assert api.retrieve(image_id, new_token()).content == pictures.jpeg()
        assert api.confirm(image_id).status_code == 409
