"""All answers: errors as JSON, CORS, and the headers that keep answers private."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify
from flask_cors import CORS
from werkzeug.exceptions import HTTPException, InternalServerError

from heroimg.config import Config
from heroimg.errors import HeroimgError

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)


def shape_answers(app: Flask, config: Config) -> None:
    """Answer every error as JSON, set the headers of every answer, and allow the front end's origins."""
    app.register_error_handler(HeroimgError, _answer_ours)
    app.register_error_handler(HTTPException, _answer_werkzeugs)
    app.after_request(_keep_private)
    CORS(
        app,
        resources=[r"/api/*", r"/static/*"],
        # Flask-CORS takes an origin with brackets (an IPv6 address) for a regular expression, so origins are escaped.
        origins=[re.compile(re.escape(origin) + r"\Z") for origin in config.frontend_origins],
        methods=["GET", "HEAD", "POST", "DELETE"],
        allow_headers="*",  # upload libraries and tracing add headers of their own
        expose_headers=["Image-Size", "Retry-After", "X-Request-ID"],
        max_age=86400,
    )


def hide_late_errors(wsgi_app: WSGIApplication) -> WSGIApplication:
    """Log an error that occurs while the server sends the answer. Hide it from the server, whose log could show ids.

    Our log's filter does not see the tracebacks that mod_wsgi, Passenger and uWSGI print. A traceback includes causes,
    such as an OSError that names a picture's file.
    """

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _Body(wsgi_app(environ, start_response))

    return respond


class _Body:
    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._close: Callable[[], None] = getattr(blocks, "close", lambda: None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._blocks)
        except StopIteration:
            raise
        except Exception as error:
            _log_late(error)
            raise RuntimeError("the answer failed after its headers were sent; see the log above") from None

    def close(self) -> None:
        try:
            self._close()
        except Exception as error:
            _log_late(error)


def _log_late(error: Exception) -> None:
    is_expected = isinstance(error, (HeroimgError, OSError))
    log.error("an answer failed after its headers were sent: %s", error.__cause__ or error, exc_info=not is_expected)


def _answer_ours(error: HeroimgError) -> Response:
    level = logging.WARNING if error.status >= 500 else logging.INFO
    log.log(level, "answered %d %s: %s", error.status, error.code, error.__cause__ or error.sentence)
    response = jsonify(error=error.sentence, code=error.code, **error.fields)
    response.status_code = error.status
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(error.retry_after)
    return response


def _answer_werkzeugs(error: HTTPException) -> Response:
    """Keep the error's status and headers (such as `Allow`), and replace its HTML page.

    An unexpected exception arrives here as an InternalServerError. Flask has logged it already.
    """
    sentence = HeroimgError.sentence if isinstance(error, InternalServerError) else error.description or error.name
    response = jsonify(error=sentence, code=error.name.lower().replace(" ", "_"))
    response.status_code = error.code or 500
    response.headers.extend((name, value) for name, value in error.get_headers() if name != "Content-Type")
    return response


def _keep_private(response: Response) -> Response:
    """Set `nosniff` on every response, and `no-store` unless the view has set Cache-Control.

    Responses under /api and /static depend on the Origin header. Flask-CORS sets `Vary` only if there is an Origin.
    """
    response.headers.setdefault("Vary", "Origin")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response
