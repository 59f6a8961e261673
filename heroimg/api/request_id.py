"""The id of a request. The answer (`X-Request-ID`), every log line about the request, and nginx's log show the id.

With the id, an operator finds the log lines that belong to a customer's report.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from werkzeug.wsgi import ClosingIterator

from heroimg.logs import request_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEADER = "X-Request-ID"

# If a client's id matches, heroimg uses it; otherwise heroimg makes an id. A UUID matches. The log shows a request's id
# whole, so the expression excludes the ids of pictures and Checkout Sessions. deploy/nginx-errors.conf has the same
# expression.
_PLAIN = re.compile(r"(?!.*[0-9a-f]{32})[A-Za-z0-9.-]{1,64}")


def identify_requests(wsgi_app: WSGIApplication) -> WSGIApplication:
    """Wrap the application: give each request an id, and send the id in the answer."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        given = environ.get("HTTP_X_REQUEST_ID", "")
        own = given if _PLAIN.fullmatch(given) else secrets.token_hex(8)
        request_id.set(own)

        def start(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            return start_response(status, [*headers, (HEADER, own)], *exc_info)

        # The server calls close() last, also if the connection breaks.
        return ClosingIterator(wsgi_app(environ, start), _leave_request)

    return respond


def _leave_request() -> None:
    request_id.set("")
