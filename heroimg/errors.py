"""heroimg's own errors: the status, the code and the sentence that a client gets.

Stores, helpers and views raise these errors. `api/answers.py` turns them, and Werkzeug's own errors, into
`{"error": <sentence for a person>, "code": <stable word for a program>}`. The codes never change. Some sentences never
change either, because older front ends depend on them ("No image provided", "Image not found or expired", ...).

Advice that only the operator may read is in the exception's cause (`raise StoreFull from OSError(advice)`). The cause
is logged and not sent to the client.
"""

from __future__ import annotations


class HeroimgError(Exception):
    """A failure that is reported to the client.

    :param sentence: used instead of the class's sentence, for example to add figures.
    :param retry_after: seconds to wait before another try; sent as `Retry-After`.
    :param fields: further fields of the answer.
    """

    status: int
    code: str
    sentence = "Something went wrong here. Please try again."

    def __init__(self, sentence: str | None = None, *, retry_after: int | None = None, **fields: str) -> None:
        self.sentence = sentence or self.sentence
        self.retry_after = retry_after
        self.fields = fields
        super().__init__(self.sentence)


class NoImage(HeroimgError):
    status, code, sentence = 400, "no_image", "No image provided"


class ImageIdRequired(HeroimgError):
    status, code, sentence = 400, "image_id_required", "imageId required"


class SessionIdRequired(HeroimgError):
    status, code, sentence = 400, "session_id_required", "session_id is required"


class SessionIdMalformed(HeroimgError):
    status, code = 400, "session_id_malformed"
    sentence = "session_id is not the id of a Checkout Session: those start with cs_test_ or cs_live_."


class ClaimMalformed(HeroimgError):
    status, code = 400, "claim_malformed"
    sentence = "claim must be 16 to 64 characters of A-Z, a-z, 0-9, - and _."


class NotAJsonObject(HeroimgError):
    status, code = 400, "json_object_required"
    sentence = 'The body must be a JSON object, such as {"imageId": "..."}, sent as application/json.'


class SignatureInvalid(HeroimgError):
    status, code, sentence = 400, "signature_invalid", "The webhook's signature is missing, wrong or too old."


class ThinEvent(HeroimgError):
    status, code = 400, "thin_event"
    sentence = "This is a thin event of Stripe's API v2. Set the webhook's destination to snapshot events of API v1."


class ImageNotFound(HeroimgError):
    status, code, sentence = 404, "image_not_found", "Image not found or expired"


class SessionNotFound(HeroimgError):
    status, code, sentence = 404, "session_not_found", "There is no such Checkout Session."


class ImageClaimed(HeroimgError):
    status, code = 409, "image_claimed"


class CheckoutComplete(HeroimgError):
    status, code, sentence = 409, "checkout_complete", "The checkout for this picture is complete already."


class ImageTooLarge(HeroimgError):
    status, code = 413, "image_too_large"


class RequestTooLarge(HeroimgError):
    status, code = 413, "request_too_large"


class NotAPicture(HeroimgError):
    """The file is not in a format that we accept. The field `found` names the kind of file."""

    status, code = 415, "not_a_picture"


class ImageDamaged(HeroimgError):
    status, code = 422, "image_damaged"
    sentence = "This picture is damaged or incomplete. Please choose another, or save it again."


class TooManyPixels(HeroimgError):
    status, code = 422, "too_many_pixels"


class ImageTooComplex(HeroimgError):
    status, code = 422, "image_too_complex"


class TooManyRequests(HeroimgError):
    status, code = 429, "too_many_requests"


class StripeFailed(HeroimgError):
    status, code, sentence = 502, "payment_failed", "The payment service could not do that. Please try again later."


class StripeUnreachable(HeroimgError):
    status, code = 503, "payment_unreachable"
    sentence = "The payment service cannot be reached just now. Please try again in a moment."


class CheckoutNotConfigured(HeroimgError):
    status, code = 503, "checkout_not_configured"
    sentence = "Payments are not set up on this server. Its operator must set STRIPE_SECRET_KEY."


class ClockWrong(HeroimgError):
    status, code = 503, "clock_wrong"
    sentence = "Payments cannot be taken on this server just now. Please try again later."


class Prefetched(HeroimgError):
    status, code = 503, "prefetch_refused"
    sentence = "A picture is handed over once, so it is not handed to a prefetch."


class StoreUnavailable(HeroimgError):
    status, code = 503, "store_unavailable"
    sentence = "Pictures cannot be kept or read just now. Please try again in a moment."


class NotReady(HeroimgError):
    status, code = 503, "not_ready"


# On a full btrfs or ZFS, even a removal can raise StoreFull, so `except StoreUnavailable` must catch it.
class StoreFull(StoreUnavailable):
    status, code, sentence = 507, "no_room", "There is no room on the server just now. Please try again later."
