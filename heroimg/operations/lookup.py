"""Show an operator what is known about a picture, and remove a picture at a customer's request.

The operator names the picture by its id or by its Checkout Session's id. The beginning that the log shows is enough.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

import click

from heroimg.errors import CheckoutNotConfigured, HeroimgError, ImageClaimed, ImageNotFound, SessionNotFound
from heroimg.logs import short
from heroimg.stores.base import Clock, ImageStore
from heroimg.stores.image import StoredImage, is_image_id

_ARGUMENT = re.compile(r"(?P<start>[0-9a-f]{4,32}|cs_(test|live)_[A-Za-z0-9]*)(\.\.\.)?")

# A whole session id has at least this many characters. The beginning that the log shows has fewer characters.
_WHOLE_SESSION_ID = 20

_COMPLETE, _ENDED = "is complete: refund it if the customer asks for that", "is ended"


class Lookup:
    """Finds pictures, describes and removes them.

    :param end_sessions: makes every Checkout Session of a picture unpayable; raises a HeroimgError if it cannot.
    :param session_state: asks Stripe for a session's state, such as "complete, paid", and for its picture's id.
    """

    def __init__(
        self,
        store: ImageStore,
        clock: Clock,
        end_sessions: Callable[[StoredImage], None],
        session_state: Callable[[str], tuple[str, str | None]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._end_sessions = end_sessions
        self._session_state = session_state

    def show(self, name: str) -> Iterator[str]:
        """Describe a picture in lines.

        :raises ClickException: several pictures have this name, or nothing is known about it.
        """
        image = self._find(name)
        if image is None:
            state, image_id = self._ask_stripe(name)
            yield f"checkout {short(name)}: Stripe says {state}"
            image = self._get(image_id)
            if image is None:
                yield _gone(image_id)
                return
        yield f"picture {short(image.id)}: {image.media_type}, {image.size} bytes"
        yield f"stored: {self._instant(image.stored)}"
        yield f"expires: {self._instant(image.expires)}"
        yield f"claim: {self._claim(image)}"
        yield f"checkout: {self._checkout(image)}"
        if image.sessions_to_end:
            yield f"checkouts to end: {', '.join(map(short, image.sessions_to_end))}"

    def forget(self, name: str) -> Iterator[str]:
        """End a picture's checkouts and remove the picture, even if a reader has claimed it. Report each step.

        :raises ClickException: there is no such picture, or it could not be removed.
        """
        image = self._find(name)
        if image is None:
            state, image_id = self._ask_stripe(name)
            image = self._get(image_id)
            if image is None:
                raise click.ClickException(_missing(name))
            yield f"checkout {short(name)}: Stripe says {state}"
        try:
            self._end_sessions(image)
            seen = self._get(image.id)
            removed = seen and self._store.remove(seen.id, seen.claim.token if seen.claim else None)
        except ImageClaimed as error:
            raise click.ClickException(
                "A reader claimed the picture just now; nothing is removed. Try again."
            ) from error
        except HeroimgError as error:
            raise click.ClickException(
                f"The picture stays, and its checkout may still be open ({error.code}). Try again in a minute."
            ) from error
        last = removed or image
        if removed:
            with suppress(HeroimgError):  # `_outcome` says what is still open
                self._end_sessions(removed)  # the page may have opened a checkout since the record was read
        for session_id in dict.fromkeys(filter(None, (*_sessions(image), *_sessions(last)))):
            yield f"checkout {short(session_id)} {self._outcome(last, session_id)}"
        if removed is None:
            yield f"picture {short(image.id)} was gone already"
            return
        yield f"picture {short(removed.id)} is removed, with everything that was noted about it"

    def _find(self, name: str) -> StoredImage | None:
        """Find the one picture that a name identifies; None if there is none."""
        read = _ARGUMENT.fullmatch(name)
        if not read:
            raise click.ClickException(
                "Give at least four digits of a picture's id, or a Checkout Session's id (cs_...), as the log shows it."
            )
        start = read["start"]
        if is_image_id(start):
            return self._get(start)
        images = [
            image
            for image in self._store.images()
            if any(one.startswith(start) for one in (image.id, *_sessions(image)))
        ]
        if len(images) > 1:
            raise click.ClickException(f"{len(images)} pictures match {_shown(name)}: give more of the id.")
        return images[0] if images else None

    def _get(self, image_id: str | None) -> StoredImage | None:
        with suppress(ImageNotFound):
            return self._store.get(image_id) if image_id else None
        return None

    def _ask_stripe(self, name: str) -> tuple[str, str | None]:
        """Ask Stripe about a session that is in no record. Records do not keep replaced sessions that have ended."""
        if not name.startswith("cs_") or len(name) < _WHOLE_SESSION_ID:
            raise click.ClickException(_missing(name))
        try:
            return self._session_state(name)
        except SessionNotFound as error:
            raise click.ClickException(f"{_missing(name)} Stripe has no such session.") from error
        except HeroimgError as error:
            raise click.ClickException(
                f"{_shown(name)} is in no picture's record, and Stripe cannot be asked about it ({error.code})."
            ) from error

    def _outcome(self, image: StoredImage, session_id: str) -> str:
        """Describe the state of a session that `forget` had to end.

        Ask Stripe, unless the picture's record says that the session is complete.
        """
        is_current = session_id == image.checkout_session
        if is_current and image.checkout_complete:
            return _COMPLETE
        try:
            state, _ = self._session_state(session_id)
        except (SessionNotFound, CheckoutNotConfigured):
            return (
                "is not in this Stripe account, or STRIPE_SECRET_KEY is not set: it may still be payable, so expire it "
                "in its own account"
            )
        except HeroimgError as error:
            state = error.code
        if state.startswith("complete"):  # Stripe also says this if a delayed payment has failed
            return _ENDED if is_current and image.checkout_ended else _COMPLETE
        if state.startswith("expired"):
            return _ENDED
        return f"may still be open ({state}): expire it in Stripe's dashboard, or refund its payment"

    def _instant(self, instant: int) -> str:
        minutes = round((instant - self._clock()) / 60)
        relative = f"in {minutes} minutes" if minutes > 0 else f"{-minutes} minutes ago"
        return f"{datetime.fromtimestamp(instant, UTC):%Y-%m-%d %H:%M:%S} UTC, {relative}"

    def _claim(self, image: StoredImage) -> str:
        if image.claim:
            return f"a reader has it until {self._instant(image.claim.until)}, and has not confirmed"
        return "lapsed: a reader got it, at least in part, and did not confirm" if image.claim_lapsed else "none"

    def _checkout(self, image: StoredImage) -> str:
        if not image.checkout_session:
            return "none was opened"
        state = "complete" if image.checkout_complete else "ended unpaid" if image.checkout_ended else "open"
        try:
            answer = f"Stripe says {self._session_state(image.checkout_session)[0]}"
        except HeroimgError as error:
            answer = f"Stripe cannot be asked ({error.code})"
        return f"{short(image.checkout_session)}, noted as {state}; {answer}"


def _sessions(image: StoredImage) -> tuple[str, ...]:
    return (image.checkout_session or "", *image.sessions_to_end)


def _shown(name: str) -> str:
    return short(name.removesuffix("..."))


def _missing(name: str) -> str:
    return f"No picture is held for {_shown(name)}: it was handed over, has expired, was removed, or never existed."


def _gone(image_id: str | None) -> str:
    if image_id is None:
        return "picture: none, because the checkout is not for one of heroimg's pictures"
    return (
        f"picture {short(image_id)}: handed over, expired, or removed by `forget`. Look for `confirmed "
        f"{short(image_id)}` and `handed over {short(image_id)}` in the log; if neither is there and it was paid for, "
        "refund it, unless its owner asked for the removal."
    )
