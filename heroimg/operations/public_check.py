"""The check of the public side. Its requests pass through all proxies, as customers' requests do."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import urllib3

from heroimg.config import MAX_REQUEST_BYTES, Config
from heroimg.findings import Finding, fault, ok, warning

# This timeout is longer than nginx's for heroimg (proxy_read_timeout in deploy/nginx.conf).
_SECONDS = 100.0

# If heroimg does not answer, most web servers in front answer with one of these statuses, but Apache may use
# another status.
_UNREACHABLE = (502, 504)
# If heroimg does not answer, nginx and Apache with our files in deploy/ answer with this code.
_UNREACHABLE_CODE = "server_unreachable"

# certbot renews a certificate a month before it ends.
_FEW_DAYS = 14

# The check sends this address in X-Forwarded-For, and /readyz counts the addresses that proxies add. No client has this
# address, because it is reserved for documentation (RFC 5737).
MARK = "192.0.2.1"
_SETTING = "HEROIMG_TRUSTED_PROXIES"

_UPLOAD, _RETRIEVE = "/api/temp-image-upload", "/api/temp-image-retrieve"
_SESSION = "/api/checkout/embedded-session"

_Ask = Callable[..., urllib3.BaseHTTPResponse]


def check_public_side(url: str, config: Config) -> Iterator[Finding]:
    """Check TLS, /readyz, the body limit, CORS, the client's address and prefetches.

    :param url: such as https://heroimg.example.com, without a path.
    """
    ask = partial(urllib3.connection_from_url(url, timeout=_SECONDS, retries=False).request, redirect=False)
    try:
        yield _check_certificate(url)
        answer = ask("GET", "/readyz", headers={"X-Forwarded-For": MARK})
        yield from _check_ready(answer)
        if _is_unreachable(answer):
            return
        yield _check_body_limit(ask, config)
        for origin in config.frontend_origins:
            yield from _check_origin(ask, origin)
        yield _check_prefetch(ask)
    except ssl.SSLCertVerificationError as error:
        yield fault(
            "tls",
            f"the certificate is not valid ({error.verify_message}): get one for this name, for example by certbot",
        )
    except (OSError, urllib3.exceptions.HTTPError) as error:
        yield fault(
            "public", f"{url} does not answer ({error}): look at the DNS, the firewall and the web server in front"
        )


def _check_certificate(url: str) -> Finding:
    parts = urlsplit(url)
    if parts.scheme != "https":
        return fault(
            "tls", f"{url} is not https://, so the network can read every picture: set TLS up in the web server"
        )
    host = parts.hostname or ""
    with (
        socket.create_connection((host, parts.port or 443), _SECONDS) as plain,
        ssl.create_default_context().wrap_socket(plain, server_hostname=host) as encrypted,
    ):
        certificate = encrypted.getpeercert() or {}
    days = int(ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) // 86400
    if days < _FEW_DAYS:
        return warning("tls", f"the certificate ends in {days} days: renew it, for example by `certbot renew`")
    return ok("tls", f"the certificate is valid for {days} days more")


def _check_ready(answer: Any) -> Iterator[Finding]:
    content = _content(answer)
    if answer.status != 200 or "status" not in content:
        why = content.get("error") or "the answer is not from heroimg: the web server in front must pass /readyz on"
        if _is_unreachable(answer):
            why = "heroimg does not run, or hangs: `systemctl restart heroimg`, and read its log"
        yield fault("public", f"/readyz answers {answer.status}: {why}")
        return
    yield ok("public", "/readyz answers through the proxies")
    warnings = content.get("warnings", ())
    for sentence in warnings:
        yield fault("address", sentence) if _SETTING in sentence else warning("public", sentence)
    if not any(_SETTING in sentence for sentence in warnings):
        yield ok("address", "the client's address arrives")


def _check_body_limit(ask: _Ask, config: Config) -> Finding:
    size = MAX_REQUEST_BYTES - 2**20 + 1  # more bytes than any picture may have
    answer = ask("POST", _UPLOAD, fields={"image": ("picture.jpg", bytes(size), "image/jpeg")})
    code = _content(answer).get("code")
    if code == "image_too_large":
        return ok("body limit", f"uploads above {config.max_image_bytes} bytes get heroimg's own refusal")
    if code == "too_many_requests":
        return warning(
            "body limit", "cannot be checked just now, because this address made too many requests: try again"
        )
    if code in ("no_room", "store_unavailable"):
        return warning("body limit", "cannot be checked just now, because heroimg cannot keep pictures")
    return fault(
        "body limit",
        f"the web server in front refuses an upload of {size} bytes with {answer.status}, so a customer does not learn "
        "the limit: let it accept 34 MB, in nginx by client_max_body_size 34m",
    )


def _check_origin(ask: _Ask, origin: str) -> Iterator[Finding]:
    """Send what browsers send for pages of this origin.

    The POST is so large that the web server in front refuses it. Pages must be able to read this refusal.
    """
    preflight = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
    answers = {
        "OPTIONS": ask("OPTIONS", _RETRIEVE, headers=preflight),
        "GET": ask("GET", _RETRIEVE, headers={"Origin": origin}),
    }
    too_large = ask("POST", _SESSION, headers={"Origin": origin, "Content-Type": "application/json"}, body=bytes(2**21))
    refused = [name for name, answer in answers.items() if answer.headers.get("Access-Control-Allow-Origin") != origin]
    if refused:
        yield fault(
            "cors",
            f"pages of {origin} cannot read the answer to {' and '.join(refused)}: let the web server in front pass "
            "on Origin and return Access-Control-Allow-Origin; if FRONTEND_URL was changed, reload heroimg",
        )
    elif too_large.headers.get("Access-Control-Allow-Origin") != origin:
        yield warning(
            "cors",
            f"pages of {origin} cannot read the errors of the web server in front: add that origin there, for nginx in "
            "/etc/nginx/heroimg-errors.conf",
        )
    else:
        yield ok("cors", f"pages of {origin} can read all answers")


def _check_prefetch(ask: _Ask) -> Finding:
    answer = ask("GET", f"{_RETRIEVE}?imageId={'0' * 32}", headers={"Sec-Purpose": "prefetch"})
    if _content(answer).get("code") == "prefetch_refused":
        return ok("prefetch", "prefetches are refused")
    return fault(
        "prefetch",
        "a browser's prefetch can use a picture up: let the web server in front pass on the headers Sec-Purpose, "
        "Purpose, X-Moz and X-Purpose",
    )


def _is_unreachable(answer: Any) -> bool:
    return answer.status in _UNREACHABLE or _content(answer).get("code") == _UNREACHABLE_CODE


def _content(answer: Any) -> dict[str, Any]:
    try:
        content = answer.json()
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
