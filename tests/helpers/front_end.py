"""A front end on an origin of its own: a server of a few files in memory."""

from __future__ import annotations

import mimetypes

from pytest_httpserver import HTTPServer

from demo.stripe_stand_in import StandIn
from tests.helpers.api import Api
from tests.helpers.serving import DrivenClock
from tests.helpers.shop import Shop


class FrontEnd(HTTPServer):
    """Listens on a free port while in a ``with`` block."""

    def __init__(self) -> None:
        super().__init__("127.0.0.1", threaded=True)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def serve(self, files: dict[str, str | bytes], headers: dict[str, str] | None = None) -> None:
        """Serve these files, by their paths, and no others.

        :param headers: sent with every file.
        """
        self.clear()
        for path, content in {"/favicon.ico": b"", **files}.items():
            media_type = mimetypes.guess_type(path)[0] or "text/html"
            self.expect_request(path).respond_with_data(
                content, headers=headers, content_type=f"{media_type}; charset=utf-8"
            )


class ShopElsewhere(Shop):
    """A shop whose front end is on another origin than heroimg."""

    def __init__(self, api: Api, stand_in: StandIn, clock: DrivenClock, front_end: FrontEnd) -> None:
        super().__init__(api, stand_in, clock)
        self.front_end = front_end

    def fill_in(self, code: str) -> str:
        """Replace the documentation's example address and key with this shop's."""
        return code.replace("https://pictures.example.com", self.api.server.url).replace(
            "pk_test_...", "pk_test_standin"
        )
