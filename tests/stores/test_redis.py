"""Pictures in Redis: two gunicorns as two machines, and the keys that they write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from heroimg.config import Config
from heroimg.stores import open_store
from heroimg.stores.image import StoredImage
from tests.helpers import pictures
from tests.helpers.api import Api, new_token
from tests.helpers.machines import Machines, OpenMachines
from tests.helpers.redis_servers import RedisServer
from tests.helpers.serving import serving, wait_for
from tests.helpers.store_shelf import HOUR, OTHER_TOKEN, START, TOKEN, Clock, Shelf, noted


@pytest.mark.proof
def test_exactly_one_of_16_readers_on_two_machines_gets_the_picture_in_each_of_100_rounds(machines: Machines) -> None:
    apis = [machines.one, machines.two]
    data = pictures.jpeg()
    with ThreadPoolExecutor(16) as pool:
        for number in range(100):
            image_id = apis[number % 2].keep(data)
            tokens = [new_token() if number % 4 < 2 else None for _ in range(16)]
            readers = [pool.submit(api.retrieve, image_id, token) for api, token in zip(apis * 8, tokens, strict=True)]
            answers = [reader.result() for reader in readers]
            assert Counter(answer.status_code for answer in answers)[200] == 1
            assert {answer.status_code for answer in answers} <= {200, 404, 409}
            assert [answer.content for answer in answers if answer.status_code == 200] == [data]


def test_a_journey_begun_on_one_machine_ends_on_the_other(machines: Machines, redis: RedisServer) -> None:
    one, two = machines.one, machines.two
    image_id = one.keep(pictures.portrait())
    session_id = two.session_of(image_id)
    assert one.session_of(image_id) == session_id
    machines.stand_in.pay(session_id)
    assert one.status(session_id).json()["status"] == "complete"
    assert two.open_checkout(image_id).json()["code"] == "checkout_complete"
    answer = two.retrieve(image_id, TOKEN)
    assert (answer.content, answer.headers["Content-Type"]) == (pictures.portrait(), "image/jpeg")
    assert one.retrieve(image_id, OTHER_TOKEN).status_code == 409
    assert one.confirm(image_id, TOKEN).status_code == 204
    assert two.retrieve(image_id, TOKEN).status_code == 404
    assert redis.names() == []
    for api in (one, two):
        assert not (api.server.folder / "uploads").exists()
        assert not (api.server.folder / "instance").exists()


@pytest.mark.parametrize("claim", [None, TOKEN], ids=["plain", "with a claim"])
def test_a_machine_killed_in_the_middle_of_a_retrieval_leaves_the_picture_to_the_other(
    redis: RedisServer, open_machines: OpenMachines, claim: str | None
) -> None:
    machines = open_machines(redis.url, HEROIMG_MAX_IMAGE_BYTES="20000000")
    one, two = machines.one, machines.two
    image_id = one.keep(pictures.long_jpeg())
    query = f"?imageId={image_id}" + (f"&claim={claim}" if claim else "")
    with one.connection(window=32768) as connection:
        connection.sendall(f"GET /api/temp-image-retrieve{query} HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        assert connection.recv(1000)
        one.server.kill()
    assert two.retrieve(image_id, OTHER_TOKEN).status_code == 409
    machines.clock.forward(301)
    assert two.retrieve(image_id, OTHER_TOKEN).content == pictures.long_jpeg()


def test_rates_hold_over_all_machines(redis: RedisServer, open_machines: OpenMachines) -> None:
    machines = open_machines(redis.url, HEROIMG_UPLOAD_RATE="5 per hour")
    answers = [api.upload(pictures.jpeg()) for api in [machines.one, machines.two] * 3]
    assert [answer.status_code for answer in answers] == [200] * 5 + [429]
    assert 3590 <= int(answers[-1].headers["Retry-After"]) <= 3601


def test_keys_of_others_in_the_same_redis_are_neither_read_nor_deleted(machines: Machines, redis: RedisServer) -> None:
    others: dict[str, str] = {
        "a" * 32: "plain",
        "heroimg": "name",
        "heroimg:{x}": "braces",
        "heroimg:{" + "g" * 32 + "}": "g",
    }
    for key, value in others.items():
        redis.client.set(key, value)
    image_id = machines.one.keep(pictures.jpeg())
    for strange in (*others, "*", "../" + image_id, image_id + "}", "{" + image_id):
        assert machines.one.retrieve(strange).status_code == 404
        assert machines.one.confirm(strange).status_code == 204
        assert machines.one.open_checkout(strange).status_code == 404
    assert "Pictures held: 1," in machines.one.server.flask("held").stdout
    assert machines.one.server.flask("sweep").stdout == "Swept 0 expired pictures and 0 leftovers.\n"
    assert machines.one.retrieve(image_id).status_code == 200
    wait_for(lambda: redis.names() == sorted(others), "the picture to be gone, and nothing else")
    assert {key: redis.client.get(key).decode() for key in others} == others


def test_a_script_cache_that_was_flushed_does_no_harm(machines: Machines, redis: RedisServer) -> None:
    image_id = machines.one.keep(pictures.jpeg())
    assert machines.one.retrieve(image_id, TOKEN).status_code == 200
    redis.client.script_flush()
    assert machines.one.retrieve(image_id, TOKEN).status_code == 200
    redis.client.script_flush()
    assert machines.one.confirm(image_id, TOKEN).status_code == 204


def test_redis_removes_a_picture_when_its_time_is_over(tmp_path: Path, redis: RedisServer) -> None:
    settings = {"REDIS_URL": redis.url, "HEROIMG_IMAGE_SECONDS": "1"}
    with serving(tmp_path / "served", settings) as server:
        Api(server).keep(pictures.jpeg())
        wait_for(lambda: redis.names() == [], "Redis to remove it")


def test_the_bytes_are_kept_as_they_are_in_one_hash_a_picture(machines: Machines, redis: RedisServer) -> None:
    data = pictures.portrait()
    image_id = machines.one.keep(data)
    assert redis.names() == [f"heroimg:{{{image_id}}}"]
    assert 0 < redis.client.ttl(redis.names()[0]) <= 3600
    fields = redis.client.hgetall(redis.names()[0])
    assert b"".join(fields[str(number).encode()] for number in range(int(fields[b"blocks"]))) == data


def test_redis_removes_a_picture_after_its_time_and_a_paid_one_a_day_later_whatever_the_clocks_say(
    redis: RedisServer,
) -> None:
    clock = Clock(START + 365 * 24 * HOUR)
    shelf = Shelf(open_store(Config(redis_url=redis.url), clock), clock, redis.names)
    image = shelf.keep()

    def is_removed_in(seconds: int) -> bool:
        left: int = redis.client.ttl(f"heroimg:{{{image.id}}}")
        return seconds - 60 < left <= seconds

    assert is_removed_in(HOUR)
    clock.now = START
    shelf.store.pin(image.id, START + 1)
    assert is_removed_in(HOUR)
    shelf.store.pin(image.id, START + 2 * HOUR)
    assert is_removed_in(2 * HOUR)
    shelf.store.note(image.id, noted(checkout_complete=True))
    assert is_removed_in(26 * HOUR)


def memory(worker: int, what: str) -> int:
    """Read the memory of a process in megabytes: VmRSS now, or VmHWM for the peak since its last reset."""
    line = next(line for line in Path(f"/proc/{worker}/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) // 1024


def test_a_worker_has_a_picture_in_memory_once_while_it_passes_and_none_of_those_held(tmp_path: Path) -> None:
    settings = {"HEROIMG_IMAGE_CHECK": "header", "HEROIMG_MAX_IMAGE_BYTES": str(32 * 2**20)}
    with (
        RedisServer(tmp_path / "redis", appendonly="no") as redis,
        serving(tmp_path / "served", {"REDIS_URL": redis.url, **settings}, workers=1) as server,
    ):
        api = Api(server)
        (worker,) = server.workers()
        picture = pictures.jpeg().ljust(30 * 2**20, b"\0")
        api.retrieve(api.keep(picture))  # the heap keeps some of what the first large picture needed while it grew

        def peak_of(act: Callable[[], object]) -> int:
            Path(f"/proc/{worker}/clear_refs").write_text("5")  # resets the peak
            before = memory(worker, "VmRSS")
            act()
            return memory(worker, "VmHWM") - before

        def keep_and_fetch() -> None:
            api.retrieve(api.keep(picture))

        # A buffer that grows out of the heap is copied once, so take the best of some tries. A second copy would be in
        # every try.
        assert min(peak_of(keep_and_fetch) for _ in range(4)) < 45
        for _ in range(20):
            api.keep(pictures.portrait())
        before = memory(worker, "VmRSS")
        for _ in range(40):
            api.keep(pictures.portrait())
        assert memory(worker, "VmRSS") - before < 20


def test_a_claim_that_is_made_while_a_session_is_noted_is_seen(redis: RedisServer) -> None:
    clock = Clock()
    store, other_machine = (open_store(Config(redis_url=redis.url), clock) for _ in range(2))
    image = Shelf(store, clock, redis.names).keep()

    def change(seen: StoredImage) -> StoredImage:
        other_machine.claim(image.id, OTHER_TOKEN).stream.close()  # after store.note has read it
        return noted(checkout_session="cs_test_1")(seen)

    _, after = store.note(image.id, change)
    assert after.claim
    assert after.claim.token == OTHER_TOKEN


def test_one_machine_reports_a_paid_picture_that_expired_unfetched(
    redis: RedisServer, open_machines: OpenMachines
) -> None:
    machines = open_machines(redis.url, HEROIMG_SWEEP_SECONDS="1")
    one, two = machines.one, machines.two
    image_id, unpaid = one.keep(pictures.jpeg()), one.keep(pictures.jpeg())
    session_id = one.session_of(image_id)
    machines.stand_in.pay(session_id)
    assert one.status(session_id).json()["status"] == "complete"
    machines.clock.forward(3500)
    assert two.retrieve(image_id, method="HEAD").status_code == 200
    machines.clock.forward(101)
    assert two.retrieve(image_id).status_code == 404
    wait_for(lambda: redis.names() == [f"heroimg:{{{unpaid}}}"], "a sweep")  # Redis itself expires this one

    def reports() -> list[str]:
        log = one.server.log() + two.server.log()
        return [line for line in log.splitlines() if "was paid for" in line]

    wait_for(reports, "the sweep to be logged")
    assert len(reports()) == 1
    assert image_id[:6] in reports()[0]
    assert image_id not in reports()[0]


def test_without_a_thread_that_sweeps_a_request_reports_a_paid_picture_that_expired(
    redis: RedisServer, open_machines: OpenMachines
) -> None:
    machines = open_machines(redis.url, HEROIMG_SWEEP_SECONDS="0")
    image_id = machines.one.keep(pictures.jpeg())
    session_id = machines.one.session_of(image_id)
    machines.stand_in.pay(session_id)
    assert machines.one.status(session_id).json()["status"] == "complete"
    machines.clock.forward(3601)

    def reports() -> int:
        machines.clock.forward(181)  # a sweep that a slow Redis refuses is tried again after three minutes
        machines.two.request("GET", "/healthz")
        # Machine one may sweep too, after the answer above, because the clock may have moved by then.
        return sum(machine.server.log().count("was paid for") for machine in (machines.one, machines.two))

    wait_for(lambda: reports() == 1, "the report")
    assert f"heroimg:{{{image_id}}}" not in redis.names()
    assert reports() == 1


def test_an_id_that_a_crash_left_in_the_set_of_due_pictures_does_no_harm(
    redis: RedisServer, open_machines: OpenMachines
) -> None:
    machines = open_machines(redis.url, HEROIMG_SWEEP_SECONDS="1")
    image_id = machines.one.keep(pictures.jpeg())
    redis.client.zadd("heroimg:due", {image_id: 1, "f" * 32: 2, "strange": 3})
    expires = float(redis.client.hget(f"heroimg:{{{image_id}}}", "expires"))
    wait_for(
        lambda: redis.client.zrange("heroimg:due", 0, -1, withscores=True) == [(image_id.encode(), expires)], "a sweep"
    )
    assert machines.one.retrieve(image_id, TOKEN).status_code == 200
    assert machines.one.confirm(image_id, TOKEN).status_code == 204
