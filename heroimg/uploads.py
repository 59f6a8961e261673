"""How a form's file parts reach the store: written once, as they arrive, straight to where they will live."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import IO, Any, cast

import flask
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from .config import MAX_REQUEST_BYTES
from .errors import RequestTooLarge
from .services import services
from .store import Staged

_BLOCK = 64 * 1024

# Our form has one part. Text fields stay in memory until the form is read; Werkzeug wants room for two blocks there.
_MAX_PARTS = 20
_MAX_FIELD_BYTES = 256 * 1024

# Werkzeug stumbles over years that no calendar has. ETags do the same work, and nothing here is worth a part of it.
_NOT_READ = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE")


class LimitedPart(io.RawIOBase):
    """A file part on its way into the store. What exceeds the limit is counted, and not written.

    So a picture that is too large is read to its end, and the answer can name its size.
    """

    def __init__(self, staged: Staged, limit: int) -> None:
        self.staged = staged
        self.size = 0
        self._limit = limit

    def write(self, data: Any, /) -> int:
        self.size += len(data)
        if self.size <= self._limit:
            self.staged.write(data)
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        return self.staged.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self.staged.seek(offset, whence)

    def close(self) -> None:
        self.staged.close()
        super().close()


class Body:
    """A request's body, whose every fault counts as a broken connection: servers raise errors of their own for some."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int = -1, /) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:
            raise OSError("The request's body cannot be read.") from error


class Request(flask.Request):
    """A request whose file parts are staged in the store."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.environ["wsgi.input"] = Body(self.environ["wsgi.input"])
        for header in _NOT_READ:
            self.environ.pop(header, None)
        self._parts: list[LimitedPart] = []

    @property
    def want_form_data_parsed(self) -> bool:
        """Say yes for forms with files alone: a urlencoded form is read into memory whole, and we take none."""
        return self.mimetype == "multipart/form-data"

    def _get_file_stream(self, *_args: Any, **_kwargs: Any) -> IO[bytes]:
        part = LimitedPart(services().store.stage(), services().config.max_image_bytes)
        self._parts.append(part)
        return cast(IO[bytes], part)

    def _load_form_data(self) -> None:
        try:
            super()._load_form_data()
        except RequestEntityTooLarge as error:
            raise RequestTooLarge(_what_is_too_large(self.content_length)) from error

    def close(self) -> None:
        """Close every part, those included that a broken-off form never got to list; only a kept one stays."""
        for part in self._parts:
            part.close()
        super().close()


def accept_uploads(app: Flask) -> None:
    """Let this application take pictures in forms."""
    app.request_class = Request
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    app.config["MAX_FORM_MEMORY_SIZE"] = _MAX_FIELD_BYTES
    app.config["MAX_FORM_PARTS"] = _MAX_PARTS
    app.after_request(_read_to_the_end)


def _what_is_too_large(content_length: int | None) -> str:
    if content_length and content_length > MAX_REQUEST_BYTES:
        return f"The upload is {content_length / 2**20:.1f} MB; the limit is {MAX_REQUEST_BYTES / 2**20:.0f} MB."
    return (
        f"The form is too large: the limits are {_MAX_PARTS} parts, {_MAX_FIELD_BYTES // 1024} KB for a text field and "
        f"{MAX_REQUEST_BYTES / 2**20:.0f} MB altogether. Send the picture alone."
    )


def _read_to_the_end(response: Response) -> Response:
    """Read what is left of a refused upload: a browser that is still sending would show a broken connection instead."""
    if request.method == "POST":
        with suppress(HTTPException):  # longer than we read, or the client has gone
            while request.stream.read(_BLOCK):
                pass
    return response
