"""The records of a picture's Checkout Sessions, event by event."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from itertools import permutations

import pytest

from heroimg.payments.notes import completed, ended, opened
from heroimg.stores.image import StoredImage

IMAGE = StoredImage("0" * 32, "image/png", 67, stored=0, expires=3600)


def noted(*changes: object) -> StoredImage:
    """Apply changes to a new picture, one after the other."""
    return reduce(lambda image, change: change(image), changes, IMAGE)  # type: ignore[operator]


def open_(session: str) -> object:
    return lambda image: opened(image, session)


def complete(session: str, *, is_paid: bool = True) -> object:
    return lambda image: completed(image, session, is_paid=is_paid)


def end(session: str) -> object:
    return lambda image: ended(image, session)


def test_a_session_that_is_replaced_must_be_ended() -> None:
    image = noted(open_("a"), open_("b"))
    assert (image.checkout_session, image.sessions_to_end) == ("b", ("a",))
    assert noted(open_("a"), open_("b"), end("a")) == noted(open_("b"))


def test_a_session_that_has_ended_is_replaced_by_the_next() -> None:
    assert noted(open_("a"), end("a")).checkout_ended
    assert noted(open_("a"), end("a"), open_("b")) == noted(open_("b"))


def test_a_replaced_session_that_is_noted_again_changes_nothing() -> None:
    image = noted(open_("a"), open_("b"))
    assert opened(image, "a") == image


def test_a_session_opened_after_the_payment_must_be_ended() -> None:
    image = noted(open_("a"), complete("a"), open_("b"))
    assert (image.checkout_session, image.checkout_complete, image.sessions_to_end) == ("a", True, ("b",))


def test_the_paid_one_of_two_sessions_is_the_pictures_and_the_other_must_be_ended() -> None:
    for changes in permutations([open_("a"), open_("b"), complete("a")]):
        image = noted(*changes)
        assert (image.checkout_session, image.checkout_complete, image.sessions_to_end) == ("a", True, ("b",))


def test_a_second_payment_leaves_the_first_session_noted() -> None:
    image = noted(open_("a"), complete("a"), complete("b"))
    assert image == noted(open_("a"), complete("a"))


def test_a_failed_debit_ends_the_session_in_whichever_order_the_events_arrive() -> None:
    pending, failed = complete("a", is_paid=False), end("a")
    assert noted(open_("a"), pending).checkout_complete
    for events in ((pending, failed), (failed, pending), (pending, failed, pending)):
        image = noted(open_("a"), *events)
        assert (image.checkout_complete, image.checkout_ended) == (False, True)


def test_a_debit_that_arrives_makes_a_session_complete_again() -> None:
    assert noted(open_("a"), end("a"), complete("a")).checkout_complete


@pytest.mark.parametrize("change", [open_("a"), open_("b"), complete("a"), complete("b"), end("a"), end("b")])
def test_every_change_made_twice_is_made_once(change: object) -> None:
    for start in (noted(), noted(open_("a")), noted(open_("a"), open_("b")), noted(open_("a"), complete("a"))):
        once = change(start)  # type: ignore[operator]
        assert change(once) == once  # type: ignore[operator]
        assert replace(once, **_fields(start)) == start


def _fields(image: StoredImage) -> dict[str, object]:
    return {name: getattr(image, name) for name in image.checkout_fields()}


def test_a_payment_that_has_arrived_does_not_become_pending_again() -> None:
    paid = noted(open_("a"), complete("a", is_paid=False), complete("a"))
    assert completed(paid, "a", is_paid=False) == paid == noted(open_("a"), complete("a"))


def test_a_session_that_is_paid_takes_the_place_of_one_whose_payment_is_pending() -> None:
    image = noted(open_("a"), complete("a", is_paid=False), open_("b"), complete("b"))
    assert (image.checkout_session, image.payment_pending, image.sessions_to_end) == ("b", False, ("a",))
    failed = ended(image, "a")
    assert (failed.checkout_session, failed.checkout_complete) == ("b", True)
