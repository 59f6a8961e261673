"""Read the picture in a form, and write it to the store as it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from flask import request
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.exceptions import RequestEntityTooLarge

from heroimg.api.request_body import READ_BYTES
from heroimg.api.services import services
from heroimg.config import MAX_REQUEST_BYTES
from heroimg.errors import NoImage, RequestTooLarge
from heroimg.stores.base import Staged

# These limits keep the parsing cheap. A form needs only one part with two headers.
_MAX_PARTS = 20
_MAX_HEADERS = 8
_MAX_HEADER_BYTES = 4096


class LimitedPart:
    """A picture that is being written to the store.

    Bytes beyond the limit are not written. They are counted, so that the refusal can name the picture's size.
    """

    def __init__(self, staged: Staged, limit: int) -> None:
        self.staged = staged
        self.size = 0
        self._limit = limit

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= self._limit:
            self.staged.write(data)

    def read(self, size: int) -> bytes:
        """Read at most `size` bytes from the start, or all bytes if `size` is -1."""
        self.staged.seek(0)
        return self.staged.read(size)


@contextmanager
def received_image() -> Iterator[LimitedPart]:
    """Receive the file `image` of the request's form. Remove it afterwards, unless the store has kept it.

    :raises NoImage: the form has no such file, or the file is empty.
    :raises RequestTooLarge: the body, the number of parts or a part's headers exceed a limit.
    """
    with ExitStack() as stack:
        part, is_arriving = None, False
        for event in _form_events():
            if isinstance(event, MultipartSegment):
                is_arriving = part is None and event.name == "image" and _is_file(event)
                if is_arriving:
                    staged = stack.enter_context(closing(services().store.stage()))
                    part = LimitedPart(staged, services().config.max_image_bytes)
            elif event and part and is_arriving:
                part.write(event)
        if not part or not part.size:
            raise NoImage
        yield part


def _form_events() -> Iterator[MultipartSegment | bytes | None]:
    """Parse the form while it arrives. Yield each part's headers, then the part's bytes in pieces, then None."""
    if request.mimetype != "multipart/form-data":
        raise NoImage
    try:
        parser = PushMultipartParser(
            request.mimetype_params.get("boundary", ""),
            max_header_size=_MAX_HEADER_BYTES,
            max_header_count=_MAX_HEADERS,
            max_segment_count=_MAX_PARTS,
        )
        yield from parser.parse_blocking(request.stream.read, READ_BYTES)
    except (RequestEntityTooLarge, ParserLimitReached) as error:
        raise RequestTooLarge(_what_is_too_large(request.content_length)) from error
    except MultipartError as error:
        raise NoImage from MultipartError(error.args[0])  # without args[1], a line that may contain a file's name


def _is_file(segment: MultipartSegment) -> bool:
    """Return True for a file, False for a text field. urllib3 before 1.25 sent some names only as `filename*`."""
    return segment.filename is not None or "filename*" in segment.header("Content-Disposition", "").lower()


def _what_is_too_large(content_length: int | None) -> str:
    if content_length and content_length > MAX_REQUEST_BYTES:
        return f"The upload is {content_length / 2**20:.1f} MB; the limit is {MAX_REQUEST_BYTES / 2**20:.0f} MB."
    return (
        f"The form is too large: the limits are {_MAX_PARTS} parts, each with {_MAX_HEADERS} headers of "
        f"{_MAX_HEADER_BYTES // 1024} KB, and {MAX_REQUEST_BYTES / 2**20:.0f} MB altogether. Send the picture alone."
    )
