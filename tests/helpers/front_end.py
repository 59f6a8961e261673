"""A front end on an origin of its own: a server of a few files in memory."""

from __future__ import annotations

from pytest_httpserver import HTTPServer


class FrontEnd(HTTPServer):
    """Listens on a free port while in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", threaded=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def serve(self, files: dict[str, str]) -> None:
        """Serve these files, by their paths, and no others."""
        self.clear()
        for path, text in files.items():
            media_type = "text/javascript" if path.endswith(".js") else "text/html"
            self.expect_request(path).respond_with_data(text, content_type=f"{media_type}; charset=utf-8")
