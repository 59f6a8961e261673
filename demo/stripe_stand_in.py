"""A stand-in for Stripe on this machine: Stripe's own SDK talks to it, and it refuses what Stripe refuses.

    with StandIn() as stand_in:
        client = stripe.StripeClient("sk_test_standin", base_addresses={"api": stand_in.url})

Under ``/v1`` it is Stripe's API, as far as an embedded one-time checkout goes: create, retrieve and expire a session.
Under ``/stand-in`` it is told what the customer, the bank and the network do::

    curl -X POST $URL/stand-in/sessions/cs_test_.../pay     pay-later, settle, decline, expire
    curl -X POST $URL/stand-in/fail -d mode=429 -d times=2  the modes are in stripe_answers.FAILURES
    curl $URL/stand-in/sessions

and a browser finds there what Stripe.js and Stripe's checkout would be: ``stripe_frame/``.

Everything is kept in memory only. Imports go one way: stripe_stand_in -> stripe_api -> checkout_sessions, webhooks ->
session_parameters -> stripe_answers.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from demo.session_parameters import Parameters
from demo.stripe_answers import Answer, ApiRequest, Json, Refusal, Silence, json_answer
from demo.stripe_api import CHANGES, StripeApi

_FRAME = Path(__file__).parent / "stripe_frame"
_FRAME_FILES = {
    "stripe.js": "text/javascript; charset=utf-8",
    "checkout.html": "text/html; charset=utf-8",
    "checkout.js": "text/javascript; charset=utf-8",
    "checkout.css": "text/css; charset=utf-8",
}


class StandIn(StripeApi):
    """The server: bound from the start, serving inside a ``with`` block.

    :param port: 0 takes a free one; see :attr:`url`.

    The other parameters, and all that can be done to sessions and to the network, are :class:`StripeApi`'s.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        secret_key: str = "sk_test_standin",
        webhook_secret: str = "whsec_standin",
        webhook_url: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(secret_key, webhook_secret, webhook_url, clock)
        self._server = _Server(port, self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._server.shutdown()
        self._server.hang_up()
        self._server.server_close()
        self._thread.join()

    def obey(self, method: str, path: str, params: Parameters) -> Answer:
        """Answer a person, or a page of whatever origin, that plays the customer."""
        try:
            answer = _frame_file(path) if method == "GET" else None
            answer = answer or json_answer(200, self._obey(method, path, params))
        except Refusal as refusal:
            answer = json_answer(refusal.status, {"error": refusal.message, "code": refusal.code})
        return answer.with_header("Access-Control-Allow-Origin", "*")

    def _obey(self, method: str, path: str, params: Parameters) -> Json:
        match method, path.split("/")[1:]:
            case "GET", ["stand-in", "sessions"]:
                return {"sessions": [_summary(session) for session in self.sessions.values()]}
            case "GET", ["stand-in", "sessions", session_id]:
                return self.page(session_id)
            case "POST", ["stand-in", "sessions", session_id, change] if change in CHANGES:
                return self.change(session_id, change)
            case "POST", ["stand-in", "fail"]:
                times = _times(params.get("times", "1"))
                self.fail_next(params.get("mode", ""), times)
                return {"mode": params["mode"], "times": times}
        raise Refusal(404, f"The stand-in has no {method} {path}.", code="not_found")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.stripe_stand_in",
        description="Stands in for Stripe, with the key sk_test_standin and the webhook secret whsec_standin.",
    )
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--webhook-url", help="where events are posted to")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends as Ctrl-C does, which a shell's "&" ignores
    with (
        contextlib.suppress(KeyboardInterrupt),
        StandIn(port=arguments.port, webhook_url=arguments.webhook_url) as stand_in,
    ):
        print(stand_in.url, flush=True)
        threading.Event().wait()


class _Server(ThreadingHTTPServer):
    """A thread a connection, all of which end when it closes."""

    daemon_threads = False  # server_close() joins only those that are not
    request_queue_size = 128

    def __init__(self, port: int, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def hang_up(self) -> None:
        """End every connection, so that whoever reads from one stops waiting."""
        for connection in self._connections.copy():
            with contextlib.suppress(OSError):  # closed meanwhile
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # clients give up; some are made to
            super().handle()

    def do_GET(self) -> None:
        answer = self._answer()
        if answer is Silence.UNTIL_CLIENT_LEAVES:
            self.rfile.read(1)  # returns when either side ends the connection
        elif isinstance(answer, Answer):
            self._send(answer)

    do_POST = do_DELETE = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: what was asked is in StandIn.requests."""

    def _answer(self) -> Answer | Silence:
        url = urlsplit(self.path)
        params = dict(parse_qsl(f"{url.query}&{self._body()}", keep_blank_values=True))
        if not url.path.startswith("/v1/"):
            return self.server.stand_in.obey(self.command, url.path, params)
        request = ApiRequest(self.command, url.path, self.headers.get("Idempotency-Key"), params)
        return self.server.stand_in.answer(request, self.headers.get("Authorization"))

    def _body(self) -> str:
        return self.rfile.read(int(self.headers.get("Content-Length", 0))).decode(errors="replace")

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)


def _frame_file(path: str) -> Answer | None:
    """A file of the checkout in the browser, which a page of any origin may show; None for any other path."""
    for name, media_type in _FRAME_FILES.items():
        if path == f"/stand-in/{name}":
            policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'"
            headers = {"Content-Type": media_type, "Cache-Control": "no-cache", "Content-Security-Policy": policy}
            return Answer(200, (_FRAME / name).read_bytes(), headers)
    return None


def _summary(session: Json) -> Json:
    return {name: session[name] for name in ("id", "status", "payment_status", "expires_at", "metadata")}


def _times(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise Refusal(400, f"times must be a positive integer, not '{text}'.", code="times_invalid")
    return int(text)


if __name__ == "__main__":
    main()
