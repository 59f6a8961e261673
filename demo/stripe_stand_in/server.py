"""The HTTP server around `StripeApi`, with the files that a browser loads and the commands under /stand-in."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from demo.stripe_stand_in.account import CHANGES
from demo.stripe_stand_in.answers import Answer, ApiRequest, Json, Refusal, Silence, json_answer, new_id
from demo.stripe_stand_in.api import StripeApi

_BROWSER_FILES = Path(__file__).parent / "browser"
_MEDIA_TYPES = {"stripe.js": "text/javascript", "checkout.js": "text/javascript", "checkout.css": "text/css",
                "checkout.html": "text/html"}  # fmt: skip
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'"


class StandIn(StripeApi):
    """The server. It listens once it is created, and serves inside a ``with`` block.

    :param port: 0 takes a free port; see `url`.

    The other parameters are those of `StripeAccount`.
    """

    def __init__(
        self, *, port: int = 0, webhook_url: str | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        super().__init__(webhook_url, clock)
        self._server = _Server(port, self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def command(self, method: str, path: str, params: Mapping[str, str]) -> Answer:
        """Answer a request under /stand-in, from a person or from the page in the checkout's frame."""
        try:
            return self._command(method, path.split("/")[1:], params)
        except Refusal as refusal:
            return json_answer(refusal.status, {"error": refusal.message, "code": refusal.code})

    def _command(self, method: str, path: list[str], params: Mapping[str, str]) -> Answer:
        match method, path:
            case "GET", ["stand-in", name] if name in _MEDIA_TYPES:
                return Answer(200, (_BROWSER_FILES / name).read_bytes(), f"{_MEDIA_TYPES[name]}; charset=utf-8")
            case "GET", ["stand-in", "sessions"]:
                return json_answer(200, {"sessions": [_summary(session) for session in self.sessions.values()]})
            case "GET", ["stand-in", "sessions", session_id]:
                return json_answer(200, self.page(session_id))
            case "POST", ["stand-in", "sessions", session_id, change] if change in CHANGES:
                return json_answer(200, self.change(session_id, change))
            case "POST", ["stand-in", "fail"]:
                mode, times = params.get("mode", ""), params.get("times", "1")
                if not times.isdecimal() or int(times) < 1:
                    raise Refusal(400, f"times must be a positive integer, not '{times}'.", code="times_invalid")
                self.fail_next(mode, int(times))
                return json_answer(200, {"mode": mode, "times": int(times)})
        raise Refusal(404, f"The stand-in has no {method} /{'/'.join(path)}.", code="not_found")


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, port: int, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        super().__init__(("127.0.0.1", port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the client closed the connection
            super().handle()

    def do_GET(self) -> None:
        answer = self._answer()
        if answer is Silence.UNTIL_CLIENT_LEAVES:
            self.rfile.read(1)
        elif isinstance(answer, Answer):
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.media_type)
            self.send_header("Request-Id", new_id("req", 14))
            if answer.is_replayed:
                self.send_header("Idempotent-Replayed", "true")
            if version := self.headers.get("Stripe-Version"):
                self.send_header("Stripe-Version", version)
            if not self.path.startswith("/v1/"):
                self.send_header("Access-Control-Allow-Origin", "*")
                self.send_header("Cache-Control", "no-cache")
                self.send_header("Content-Security-Policy", _POLICY)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

    do_POST = do_DELETE = do_GET

    def date_time_string(self, timestamp: float | None = None) -> str:
        """Give the Date header Stripe's time."""
        return super().date_time_string(timestamp or self.server.stand_in.clock())

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: `StandIn.requests` has the requests."""

    def _answer(self) -> Answer | Silence:
        stand_in, url = self.server.stand_in, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")
        params = dict(parse_qsl(f"{url.query}&{body}", keep_blank_values=True))
        if not url.path.startswith("/v1/"):
            return stand_in.command(self.command, url.path, params)
        request = ApiRequest(self.command, url.path, self.headers.get("Idempotency-Key"), params)
        return stand_in.answer(request, self.headers.get("Authorization"))


def _summary(session: Json) -> Json:
    return {name: session[name] for name in ("id", "status", "payment_status", "expires_at", "metadata")}
