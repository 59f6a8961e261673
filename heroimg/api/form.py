"""How the picture in a form reaches the store: written once, as it arrives, straight to where it will live."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import IO, cast

import flask
from flask import Flask, Response, request
from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from werkzeug.exceptions import ClientDisconnected, HTTPException, RequestEntityTooLarge
from werkzeug.utils import cached_property

from heroimg.api.services import services
from heroimg.config import MAX_REQUEST_BYTES
from heroimg.errors import NoImage, RequestTooLarge
from heroimg.stores.base import Staged

# Every read has its price, and smaller ones are copied more often on their way through gunicorn: docs/performance.md.
_BLOCK = 512 * 1024

# Our form has one part, with two headers. No browser sends as much as this, and reading it costs next to nothing.
_MAX_PARTS = 20
_MAX_HEADERS = 8
_MAX_HEADER_BYTES = 4096

# Werkzeug stumbles over years that no calendar has. ETags do the same work, and nothing here is worth a part of it.
_NOT_READ = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE")


class LimitedPart:
    """A picture on its way into the store. What exceeds the limit is counted, and not written.

    So a picture that is too large is read to its end, and the answer can name its size.
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
        """Read so much from its start; all of it where that is -1."""
        self.staged.seek(0)
        return self.staged.read(size)


class Body:
    """A request's body: what Werkzeug's LimitedStream is, without the two copies that it makes of everything.

    Every fault counts as a broken connection: servers raise errors of their own for some.

    :param length: bytes that the body has; None if nobody knows before its end.
    :param limit: bytes that it may have; may be raised on the way.
    """

    def __init__(self, stream: IO[bytes], length: int | None, limit: int) -> None:
        self.limit = limit
        self._stream = stream
        self._length = length
        self._taken = 0

    def read(self, size: int = -1) -> bytes:
        """Read so much, or all of it.

        :raises RequestEntityTooLarge: it is over its limit; where its length is known, nothing is read.
        :raises ClientDisconnected: it has ended too soon, or is malformed.
        """
        if (self._length or self._taken) > self.limit:
            raise RequestEntityTooLarge
        if size < 0:
            return b"".join(iter(lambda: self.read(_BLOCK), b""))
        end = self.limit + 1 if self._length is None else self._length
        try:
            data = self._stream.read(min(size, end - self._taken))
        except Exception as error:
            self._stream = io.BytesIO()  # to read on would be to wait for what never comes
            raise ClientDisconnected from error
        self._taken += len(data)
        if not data and self._taken < (self._length or 0):
            raise ClientDisconnected
        return data


class Request(flask.Request):
    """A request whose body is read as it arrives."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        for header in _NOT_READ:
            self.environ.pop(header, None)

    @cached_property
    def stream(self) -> IO[bytes]:
        length = self.content_length
        if length is None and not self.environ.get("wsgi.input_terminated"):
            length = 0  # or a server that does not know the body's end either would wait for more
        return cast(IO[bytes], Body(self.environ["wsgi.input"], length, self.max_content_length or MAX_REQUEST_BYTES))


def accept_uploads(app: Flask) -> None:
    """Let this application take pictures in forms."""
    app.request_class = Request
    app.after_request(_read_to_the_end)


@contextmanager
def received_image() -> Iterator[LimitedPart]:
    """Receive the file `image` of the request's form, and let go of it afterwards, unless the store has kept it.

    :raises NoImage: there is none, or it is empty.
    :raises RequestTooLarge: the form has more of something than a form with a picture has.
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
    """Parse the form as it arrives: each part's headers, its bytes in pieces, and None at its end."""
    if request.mimetype != "multipart/form-data":
        raise NoImage
    try:
        parser = PushMultipartParser(
            request.mimetype_params.get("boundary", ""),
            max_header_size=_MAX_HEADER_BYTES,
            max_header_count=_MAX_HEADERS,
            max_segment_count=_MAX_PARTS,
        )
        yield from parser.parse_blocking(request.stream.read, _BLOCK)
    except (RequestEntityTooLarge, ParserLimitReached) as error:
        raise RequestTooLarge(_what_is_too_large(request.content_length)) from error
    except MultipartError as error:
        raise NoImage from MultipartError(error.args[0])  # without the line that it quotes: it may have a file's name


def _is_file(segment: MultipartSegment) -> bool:
    """Tell a file from a text field, also where its name is in `filename*` alone, as urllib3 before 1.25 sent it."""
    return segment.filename is not None or "filename*" in segment.header("Content-Disposition", "").lower()


def _what_is_too_large(content_length: int | None) -> str:
    if content_length and content_length > MAX_REQUEST_BYTES:
        return f"The upload is {content_length / 2**20:.1f} MB; the limit is {MAX_REQUEST_BYTES / 2**20:.0f} MB."
    return (
        f"The form is too large: the limits are {_MAX_PARTS} parts, each with {_MAX_HEADERS} headers of "
        f"{_MAX_HEADER_BYTES // 1024} KB, and {MAX_REQUEST_BYTES / 2**20:.0f} MB altogether. Send the picture alone."
    )


def _read_to_the_end(response: Response) -> Response:
    """Read what is left of a refused upload: a browser that is still sending would show a broken connection instead."""
    if request.method == "POST":
        cast(Body, request.stream).limit = MAX_REQUEST_BYTES  # JSON's is lower
        with suppress(HTTPException):  # longer than we read, or the client has gone
            while request.stream.read(_BLOCK):
                pass
    return response
