"""Limit the bodies of requests, and read the body of a refused upload to its end."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import IO, Any

import flask
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException
from werkzeug.wsgi import LimitedStream

from heroimg.config import MAX_REQUEST_BYTES

# Each read costs time, and in smaller reads gunicorn copies the bytes more often.
READ_BYTES = 512 * 1024

# Werkzeug raises an error for impossible years in these headers. The application does not need these headers,
# because it has ETags and serves no ranges.
_NOT_READ = ("HTTP_IF_MODIFIED_SINCE", "HTTP_IF_RANGE", "HTTP_RANGE")


def limit_bodies(app: Flask) -> None:
    """Let the application read bodies of up to MAX_REQUEST_BYTES."""
    app.request_class = Request
    app.config["MAX_CONTENT_LENGTH"] = MAX_REQUEST_BYTES
    app.after_request(_read_to_the_end)


class Request(flask.Request):
    """A request. Reading a broken or too long body raises an error that becomes an answer."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for header in _NOT_READ:
            self.environ.pop(header, None)
        self.environ["wsgi.input"] = _Input(self.environ["wsgi.input"])
        if self.content_length is not None:
            # With `wsgi.input_terminated`, Werkzeug trusts the server to end the body, and does not notice if the body
            # is too short.
            self.environ.pop("wsgi.input_terminated", None)

    def get_data(self, *args: Any, **kwargs: Any) -> Any:
        data = super().get_data(*args, **kwargs)
        # get_data cuts off a body that is too long. This read raises RequestEntityTooLarge.
        self.stream.read(1)
        return data


class _Input:
    """The server's `wsgi.input`. It turns every error into an OSError, which Werkzeug treats as a broken connection.

    gunicorn raises errors of its own for a malformed chunk.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except Exception as error:
            self._stream = io.BytesIO()  # no more data comes, and another read of the server's stream would block
            raise OSError("the body cannot be read") from error


def _read_to_the_end(response: Response) -> Response:
    """Read the rest of a refused upload. Otherwise the browser shows a connection error instead of our answer."""
    if request.method == "POST":
        request.max_content_length = MAX_REQUEST_BYTES  # a view may have set a lower limit
        with suppress(HTTPException):  # the body is too long, or the connection is broken
            stream = request.stream
            if isinstance(stream, LimitedStream) and request.content_length is None:
                stream.limit = MAX_REQUEST_BYTES
            while stream.read(READ_BYTES):
                pass
    return response
