"""A front end on an origin of its own: a few files, served as a developer's machine or a shop's host would."""

from __future__ import annotations

import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

MEDIA_TYPES = {".html": "text/html; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


class FrontEnd:
    """Serves :attr:`files`, by their paths, on a port of its own while in a ``with`` block.

    :attr:`answers` has headers and bodies by their paths, for what is no file.
    """

    def __init__(self) -> None:
        self.files: dict[str, str] = {}
        self.answers: dict[str, tuple[dict[str, str], bytes]] = {}
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, front_end: FrontEnd) -> None:
        self.front_end = front_end
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path in self.server.front_end.answers:
            return self._send(200, *self.server.front_end.answers[path])
        text = self.server.front_end.files.get(path)
        body = (text or "").encode()
        headers = {"Content-Type": MEDIA_TYPES[Path(path).suffix or ".html"], "Content-Length": str(len(body))}
        return self._send(404 if text is None else 200, headers, body)

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def snippets(document: Path) -> dict[str, str]:
    """Find the files in a document: code that is fenced with a language and a file's name."""
    return dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL))
