"""The rule of the checkout, without a server: open, reuse, end, note, keep."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stripe.checkout import Session

from heroimg.config import MIN_RETURN_SECONDS, Config
from heroimg.errors import (
    CheckoutComplete,
    ClockWrong,
    ImageClaimed,
    ImageNotFound,
    SessionNotFound,
    StripeFailed,
    StripeUnreachable,
)
from heroimg.payments import notes
from heroimg.payments.checkout import Checkout
from heroimg.payments.ending import SessionEnder
from heroimg.payments.events import PaymentEvents
from heroimg.stores.base import ImageStore
from heroimg.stores.files.store import FileStore
from heroimg.stores.image import StoredImage
from tests.helpers.store_shelf import HOUR, OTHER_TOKEN, TOKEN, Clock, noted

MINUTE = 60


class Sessions:
    """Sessions in memory, by the names of StripeSessions' methods. Calls can fail, or run an action first."""

    seconds_ahead = 0.0

    def __init__(self) -> None:
        self.all = dict[str, Any]()
        self.failures = list[Exception]()
        self.calls = 0
        self.during_create: Callable[[], object] = lambda: None
        self.event = ("", "")

    def create(self, image_id: str, expires_at: int, after: str | None = None) -> Session:
        self._call()
        session_id = f"cs_test_{image_id[:8]}{expires_at}{hash(after) % 1000}"  # as if by an idempotency key
        self.all.setdefault(
            session_id,
            {
                "id": session_id, "status": "open", "payment_status": "unpaid", "expires_at": expires_at,
                "metadata": {"imageId": image_id}, "client_secret": f"{session_id}_secret",
            },
        )  # fmt: skip
        during, self.during_create = self.during_create, lambda: None
        during()
        return self._session(session_id)

    def retrieve(self, session_id: str) -> Session:
        self._call()
        if session_id not in self.all:
            raise SessionNotFound
        return self._session(session_id)

    def expire(self, session: Session) -> Session:
        if session.status != "open":
            return session
        self._call()
        if self.all[session.id]["status"] == "open":
            self.all[session.id]["status"] = "expired"
        return self._session(session.id)

    def read_event(self, _payload: bytes, _signature: str | None) -> tuple[str, str]:
        return self.event

    def refuse_old_event(self, _payload: bytes, _signature: str | None) -> None:
        pass

    def clock_warning(self) -> str | None:
        return "the clock is off" if abs(self.seconds_ahead) > 60 else None

    def pay(self, session_id: str, payment_status: str = "paid") -> None:
        self.all[session_id] |= {"status": "complete", "payment_status": payment_status}

    def open_ids(self) -> list[str]:
        return [session_id for session_id, session in self.all.items() if session["status"] == "open"]

    def _session(self, session_id: str) -> Session:
        return Session.construct_from(dict(self.all[session_id]), None)

    def _call(self) -> None:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)


class Counter:
    def __init__(self) -> None:
        self.value = 0

    def __call__(self) -> None:
        self.value += 1


class Desk:
    """A checkout with its store, its sessions and its clock."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        config = Config(upload_dir=folder / "uploads", min_free_bytes=0, **settings)
        self.clock = Clock()
        self.store: ImageStore = FileStore(config, self.clock)
        self.sessions = Sessions()
        self.completed = Counter()
        sessions: Any = self.sessions
        checkout_notes = notes.CheckoutNotes(self.store, self.completed)
        self.ender = SessionEnder(self.store, sessions, checkout_notes)
        self.checkout = Checkout(config, self.store, sessions, checkout_notes, self.ender, self.clock)
        self.events = PaymentEvents(config, self.store, sessions, checkout_notes, self.clock)

    def keep(self) -> StoredImage:
        staged = self.store.stage()
        staged.write(b"picture")
        image = self.store.keep(staged, "image/png")
        staged.close()
        return image

    def hear(self, kind: str, session_id: str) -> None:
        self.sessions.event = (f"checkout.session.{kind}", session_id)
        self.events.handle(b"", None)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


# open


def test_a_session_ends_20_minutes_before_its_picture_and_is_noted_with_it(desk: Desk) -> None:
    image = desk.keep()
    session = desk.checkout.open(image.id)
    assert session.expires_at == image.expires - 20 * MINUTE
    assert desk.store.get(image.id).checkout_session == session.id


def test_a_picture_with_too_little_time_left_gets_an_hour_more(desk: Desk) -> None:
    image = desk.keep()
    desk.clock.now += 30 * MINUTE
    session = desk.checkout.open(image.id)
    assert desk.store.get(image.id).expires == desk.clock.now + HOUR == session.expires_at + 20 * MINUTE


def test_nothing_is_opened_for_an_unknown_picture(desk: Desk) -> None:
    with pytest.raises(ImageNotFound):
        desk.checkout.open("0" * 32)
    assert desk.sessions.calls == 0


def test_a_claimed_picture_is_sold_to_its_holder_alone(desk: Desk) -> None:
    image = desk.keep()
    desk.store.claim(image.id, TOKEN).stream.close()
    for claim in (None, OTHER_TOKEN):
        with pytest.raises(ImageClaimed):
            desk.checkout.open(image.id, claim)
    assert desk.checkout.open(image.id, TOKEN).status == "open"


@pytest.mark.parametrize("event", ["claimed", "removed"])
def test_a_picture_handed_over_while_stripe_is_asked_has_no_payable_session(desk: Desk, event: str) -> None:
    image = desk.keep()

    def hand_over() -> None:
        if event == "claimed":
            desk.store.claim(image.id, TOKEN).stream.close()
        else:
            desk.store.remove(image.id)

    desk.sessions.during_create = hand_over
    with pytest.raises(ImageClaimed if event == "claimed" else ImageNotFound):
        desk.checkout.open(image.id)
    assert desk.sessions.open_ids() == []


def test_a_clock_that_is_ahead_by_more_than_the_time_to_return_sells_nothing(desk: Desk) -> None:
    image = desk.keep()
    desk.sessions.seconds_ahead = 19 * MINUTE - 1
    desk.checkout.open(image.id)
    desk.sessions.seconds_ahead = 19 * MINUTE + 1
    for picture in (image, desk.keep()):
        with pytest.raises(ClockWrong):
            desk.checkout.open(picture.id)


def test_a_clock_that_is_a_little_ahead_sells_with_the_shortest_time_to_return(tmp_path: Path) -> None:
    desk = Desk(tmp_path, return_seconds=MIN_RETURN_SECONDS)
    desk.sessions.seconds_ahead = 2.5
    assert desk.checkout.open(desk.keep().id).status == "open"


def test_a_failure_that_stripe_would_replay_is_not_asked_for_again(desk: Desk) -> None:
    image = desk.keep()
    desk.sessions.failures = [StripeFailed()]
    with pytest.raises(StripeFailed):
        desk.checkout.open(image.id)
    assert desk.checkout.open(image.id).expires_at == image.expires + 1 - 20 * MINUTE


# reuse


def test_an_open_session_is_used_again_while_it_leaves_15_minutes(desk: Desk) -> None:
    image = desk.keep()
    first = desk.checkout.open(image.id)
    desk.clock.now += 25 * MINUTE
    assert desk.checkout.open(image.id).id == first.id
    desk.clock.now += 1
    second = desk.checkout.open(image.id)
    assert desk.sessions.open_ids() == [second.id] != [first.id]


def test_a_session_that_was_expired_elsewhere_is_replaced_by_another(desk: Desk) -> None:
    image = desk.keep()
    first = desk.checkout.open(image.id)
    desk.sessions.all[first.id]["status"] = "expired"
    assert desk.checkout.open(image.id).id != first.id


def test_a_picture_that_was_paid_for_gets_no_second_session(desk: Desk) -> None:
    image = desk.keep()
    desk.sessions.pay(desk.checkout.open(image.id).id)
    for _ in range(2):
        with pytest.raises(CheckoutComplete):
            desk.checkout.open(image.id)
    assert desk.store.get(image.id).checkout_complete
    assert desk.completed.value == 1


# end


def test_ending_is_noted_so_that_stripe_is_not_asked_again(desk: Desk) -> None:
    image = desk.keep()
    desk.checkout.open(image.id)
    desk.ender.end(desk.store.get(image.id))
    assert desk.sessions.open_ids() == []
    calls = desk.sessions.calls
    desk.ender.end(desk.store.get(image.id))
    assert desk.sessions.calls == calls
    desk.checkout.open(image.id)
    assert len(desk.sessions.open_ids()) == 1


def test_a_session_of_another_account_counts_as_ended(desk: Desk) -> None:
    image = desk.keep()
    desk.checkout.open(image.id)
    desk.sessions.all.clear()
    desk.ender.end(desk.store.get(image.id))
    assert desk.store.get(image.id).checkout_ended


def test_a_replaced_session_that_cannot_be_ended_keeps_its_picture_from_being_sold_or_handed_over(desk: Desk) -> None:
    image = desk.keep()
    first = desk.checkout.open(image.id)
    desk.clock.now += 30 * MINUTE
    other = "cs_test_other"
    desk.sessions.all[other] = dict(desk.sessions.all[first.id], id=other, expires_at=desk.clock.now + HOUR)

    def replace_meanwhile() -> None:
        desk.store.note(image.id, lambda seen: notes.opened(seen, other))
        desk.sessions.failures = [StripeUnreachable(), StripeUnreachable()]

    desk.sessions.during_create = replace_meanwhile
    with pytest.raises(StripeUnreachable):
        desk.checkout.open(image.id)
    seen = desk.store.get(image.id)
    assert seen.sessions_to_end == (other,)
    for act in (lambda: desk.checkout.open(image.id), lambda: desk.ender.end_before_hand_over(seen)):
        desk.sessions.failures = [StripeUnreachable()]
        with pytest.raises(StripeUnreachable):
            act()
    desk.ender.end_replaced([image.id])
    assert desk.sessions.all[other]["status"] == "expired"
    assert desk.store.get(image.id).sessions_to_end == ()


def test_a_plain_reader_gets_its_picture_if_its_own_session_cannot_be_ended(desk: Desk) -> None:
    image = desk.keep()
    desk.checkout.open(image.id)
    desk.sessions.failures = [StripeUnreachable()]
    desk.ender.end_before_hand_over(desk.store.get(image.id))


# note and keep


@pytest.mark.parametrize("kind", ["completed", "async_payment_succeeded"])
def test_a_paid_picture_is_kept_for_a_day(desk: Desk, kind: str) -> None:
    image = desk.keep()
    session_id = desk.checkout.open(image.id).id
    desk.sessions.pay(session_id)
    for _ in range(2):
        desk.hear(kind, session_id)
    kept = desk.store.get(image.id)
    assert (kept.checkout_complete, kept.expires) == (True, desk.clock.now + 24 * HOUR)
    assert desk.completed.value == 1


def test_a_failed_debit_lets_the_picture_be_paid_for_again(desk: Desk) -> None:
    image = desk.keep()
    session_id = desk.checkout.open(image.id).id
    desk.sessions.pay(session_id, "unpaid")
    desk.hear("completed", session_id)
    with pytest.raises(CheckoutComplete):
        desk.checkout.open(image.id)
    desk.hear("async_payment_failed", session_id)
    assert desk.checkout.open(image.id).id != session_id


def test_a_session_after_a_failed_debit_ends_as_soon_as_any_other(tmp_path: Path) -> None:
    desk = Desk(tmp_path, paid_seconds=7 * 24 * HOUR)
    image = desk.keep()
    session_id = desk.checkout.open(image.id).id
    desk.sessions.pay(session_id, "unpaid")
    for kind in ("completed", "async_payment_failed"):
        desk.hear(kind, session_id)
    second = desk.checkout.open(image.id)
    assert 0 <= second.expires_at - (desk.clock.now + 40 * MINUTE) <= MINUTE
    assert desk.store.get(image.id).expires == desk.clock.now + 7 * 24 * HOUR


@pytest.mark.parametrize("kind", ["completed", "async_payment_failed"])
def test_late_events_of_a_failed_debit_do_not_touch_the_next_checkout(
    desk: Desk, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    image = desk.keep()
    first = desk.checkout.open(image.id).id
    desk.sessions.pay(first, "unpaid")
    for event in ("completed", "async_payment_failed"):
        desk.hear(event, first)
    second = desk.checkout.open(image.id).id
    desk.hear(kind, first)
    assert desk.checkout.open(image.id).id == second
    assert desk.sessions.open_ids() == [second]
    desk.sessions.pay(second)
    desk.hear("completed", second)
    desk.hear(kind, first)
    assert desk.store.get(image.id).checkout_session == second
    assert "paid for twice" not in caplog.text


def test_an_event_about_a_failed_payment_is_checked_with_stripe(desk: Desk) -> None:
    image = desk.keep()
    session_id = desk.checkout.open(image.id).id
    desk.hear("async_payment_failed", session_id)
    assert desk.checkout.open(image.id).id == session_id
    desk.sessions.pay(session_id)
    desk.hear("async_payment_failed", session_id)
    desk.hear("completed", session_id)
    assert desk.store.get(image.id).checkout_complete


def test_a_session_that_ended_after_a_failure_is_not_given_out_again(desk: Desk) -> None:
    image = desk.keep()
    note, desk.store.note = desk.store.note, None  # type: ignore[assignment, method-assign]
    for _ in range(2):  # the sessions are created and expired, and not noted
        with pytest.raises(TypeError):
            desk.checkout.open(image.id)
        desk.sessions.all[list(desk.sessions.all)[-1]]["status"] = "expired"
    desk.store.note = note  # type: ignore[method-assign]
    session = desk.checkout.open(image.id)
    assert (session.status, len(desk.sessions.all)) == ("open", 3)


def test_a_request_passes_over_few_ended_sessions_and_the_next_one_begins_anew(desk: Desk) -> None:
    image = desk.keep()
    for number in range(7):
        session_id = f"cs_test_{number}"
        desk.sessions.all[session_id] = {"id": session_id, "status": "expired", "payment_status": "unpaid"}
    create, calls = desk.sessions.create, list[str | None]()

    def ended(_image_id: str, _expires_at: int, after: str | None = None) -> Session:
        calls.append(after)
        return desk.sessions.retrieve(f"cs_test_{len(calls) - 1}")

    desk.sessions.create = ended  # type: ignore[assignment, method-assign]
    with pytest.raises(StripeUnreachable):
        desk.checkout.open(image.id)
    assert calls == [None, *(f"cs_test_{number}" for number in range(5))]
    assert desk.store.get(image.id).expires == image.expires + 1
    desk.sessions.create = create  # type: ignore[method-assign]
    assert desk.checkout.open(image.id).status == "open"


def test_a_session_that_ends_while_it_is_looked_at_is_not_given_out(desk: Desk) -> None:
    image = desk.keep()
    session = desk.checkout.open(image.id)
    retrieve = desk.sessions.retrieve

    def ended_meanwhile(session_id: str) -> Session:
        seen = retrieve(session_id)
        desk.sessions.retrieve = retrieve  # type: ignore[method-assign]
        desk.ender.end(desk.store.get(image.id))
        return seen

    desk.sessions.retrieve = ended_meanwhile  # type: ignore[method-assign]
    with pytest.raises(StripeUnreachable):
        desk.checkout.open(image.id)
    assert desk.checkout.open(image.id).id != session.id


def test_a_delayed_payment_that_arrives_is_noted_by_the_page_too(desk: Desk) -> None:
    image = desk.keep()
    session_id = desk.checkout.open(image.id).id
    for state, is_pending in (("unpaid", True), ("paid", False)):
        desk.sessions.pay(session_id, state)
        desk.checkout.status(session_id)
        assert desk.store.get(image.id).payment_pending == is_pending


def test_a_session_that_was_paid_although_its_note_failed_is_not_opened_again(desk: Desk) -> None:
    image = desk.keep()
    note, desk.store.note = desk.store.note, None  # type: ignore[assignment, method-assign]
    with pytest.raises(TypeError):
        desk.checkout.open(image.id)
    desk.store.note = note  # type: ignore[method-assign]
    (session_id,) = desk.sessions.all
    desk.sessions.pay(session_id)
    with pytest.raises(CheckoutComplete):
        desk.checkout.open(image.id)
    assert desk.store.get(image.id).checkout_session == session_id


def test_a_reader_that_claims_while_stripe_is_asked_about_the_open_session_keeps_others_from_paying(desk: Desk) -> None:
    image = desk.keep()
    session = desk.checkout.open(image.id)
    retrieve = desk.sessions.retrieve

    def claimed_meanwhile(session_id: str) -> Session:
        desk.store.claim(image.id, OTHER_TOKEN).stream.close()
        return retrieve(session_id)

    desk.sessions.retrieve = claimed_meanwhile  # type: ignore[method-assign]
    with pytest.raises(ImageClaimed):
        desk.checkout.open(image.id, TOKEN)
    assert desk.checkout.open(image.id, OTHER_TOKEN).id == session.id


def test_the_log_names_the_session_that_may_still_be_open_not_the_one_that_was_paid(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    image = desk.keep()
    paid = desk.checkout.open(image.id).id
    desk.sessions.pay(paid)
    desk.hear("completed", paid)
    desk.store.note(image.id, lambda seen: notes.opened(seen, "cs_test_another_one"))
    desk.sessions.failures = [StripeUnreachable()]
    desk.ender.end_before_hand_over(desk.store.get(image.id))
    assert "its checkout cs_test_anot... may still be open" in caplog.text


@pytest.mark.parametrize(("failures", "still_open"), [(1, 1), (2, 2), (3, 5)])
def test_sessions_that_cannot_be_ended_keep_the_sweep_from_the_others_only_after_some_failures(
    desk: Desk, failures: int, still_open: int
) -> None:
    images = [desk.keep() for _ in range(5)]
    for number, image in enumerate(images):
        session_id = f"cs_test_{number}"
        desk.sessions.all[session_id] = {"id": session_id, "status": "open", "payment_status": "unpaid"}
        desk.store.note(image.id, noted(sessions_to_end=(session_id,)))
    desk.sessions.failures = [StripeFailed() for _ in range(failures)]
    desk.ender.end_replaced([image.id for image in images])
    assert len(desk.sessions.open_ids()) == still_open


def test_the_status_of_a_complete_session_is_noted_with_its_picture(desk: Desk) -> None:
    image = desk.keep()
    session_id = desk.checkout.open(image.id).id
    desk.checkout.status(session_id)
    assert not desk.store.get(image.id).checkout_complete
    desk.sessions.pay(session_id)
    desk.checkout.status(session_id)
    assert desk.store.get(image.id).checkout_complete
    assert desk.store.get(image.id).expires == image.expires


def test_events_of_other_kinds_and_of_other_products_change_nothing(desk: Desk) -> None:
    image = desk.keep()
    session_id = desk.checkout.open(image.id).id
    desk.hear("expired", session_id)
    desk.sessions.pay(session_id)
    desk.sessions.all[session_id]["metadata"] = {}
    desk.hear("completed", session_id)
    assert not desk.store.get(image.id).checkout_complete
