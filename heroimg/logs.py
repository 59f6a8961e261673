"""Logs without secrets: they contain no key, and no whole id that gives access to a picture."""

from __future__ import annotations

import logging
import re
from contextvars import ContextVar

# Image ids; the ids and secrets of Stripe's sessions, keys and webhooks; our parameters in a request line.
_SECRET = re.compile(
    r"(?P<shown>\b[0-9a-f]{6})[0-9a-f]{26}\b"
    r"|(?P<stripe>\b(?:cs|sk|rk)_(?:test|live)_\w{4}|\bwhsec_)[\w+/=]+"
    r"|(?P<parameter>\b(?:imageId|claim|session_id)=)[^\s&\"']+"
)

_logged_keys = set[object]()


# The id of the request that this thread answers. Every log line has it. It is empty outside a request.
request_id: ContextVar[str] = ContextVar("request_id", default="")


def short(secret: str) -> str:
    """Shorten an id for the log. Its beginning identifies it in other lines, but gives no access to the picture."""
    return secret[: 12 if secret.startswith("cs_") else 6] + "..."


def error_once(log: logging.Logger, message: str, *args: object, key: object) -> None:
    """Log an error, unless this process has already logged an error with the same key."""
    if key not in _logged_keys:
        _logged_keys.add(key)
        log.error(message, *args)


class Redact(logging.Filter):
    """Shortens ids and secrets in every record: request lines, paths in error messages, tracebacks.

    It also sets `record.request` to the id of the current request. Records become ASCII, because uWSGI
    without a locale raises an error for other characters.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        record.request = f" [{request_id.get()}]" if request_id.get() else ""
        text = record.getMessage()
        if not text.isascii() or _SECRET.search(text):
            record.msg, record.args = redacted(text), None
        if record.exc_info:  # a traceback names files, and their names are ids
            record.exc_text = redacted(logging.Formatter().formatException(record.exc_info))
        return True


def redacted(text: str) -> str:
    """Shorten every id and secret in a text, and escape what is not ASCII."""
    shortened = _SECRET.sub(lambda match: (match["shown"] or match["stripe"] or match["parameter"]) + "...", text)
    return shortened.encode("ascii", "backslashreplace").decode()


def configure_logging() -> None:
    """Log to standard error from INFO up, with every record filtered.

    gunicorn's loggers do not pass records on to the root's handler, and Werkzeug's may have a handler of its own. So
    these loggers get the filter too.
    """
    # force: Passenger has configured logging already, from WARNING up.
    line = "%(asctime)s %(levelname)s %(name)s%(request)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=line, force=True)
    for logger in map(logging.getLogger, ("werkzeug", "gunicorn.error", "gunicorn.access")):
        logger.addFilter(Redact())
    for handler in logging.getLogger().handlers:
        handler.addFilter(Redact())
    # At INFO, Stripe's library logs session ids, and APScheduler logs every run. At DEBUG, Stripe's library logs client
    # secrets.
    for name in ("stripe", "apscheduler"):
        logging.getLogger(name).setLevel(logging.WARNING)
