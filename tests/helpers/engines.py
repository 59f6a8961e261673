"""Chromium, Firefox and WebKitGTK, driven by the same few WebDriver commands: https://www.w3.org/TR/webdriver2/

The drivers of Chromium and WebKit speak HTTP. Firefox contains a driver, Marionette, which takes the same commands over
TCP. Debian 12 lacks geckodriver, which would translate them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

from tests.helpers.needed_programs import require
from tests.helpers.serving import LONG, free_port, wait_for

ENGINES = ("chromium", "firefox", "webkit")

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_MINI_BROWSER = Path("/usr/lib/x86_64-linux-gnu/webkit2gtk-4.1/MiniBrowser")
_HTTP_DRIVERS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "chromium": (
        ["chromedriver"],
        {
            "goog:chromeOptions": {
                "binary": "/usr/bin/chromium",
                "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"],
            }
        },
    ),
    "webkit": (
        ["WebKitWebDriver"],
        {"webkitgtk:browserOptions": {"binary": str(_MINI_BROWSER), "args": ["--automation"]}},
    ),
}

# Prevents questions to the user, and requests to Mozilla's servers.
_FIREFOX_PREFERENCES = {
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "remote.prefs.recommended": True,
    "services.settings.server": "data:,#remote-settings-dummy/v1",
}


class Engine:
    """A running browser with one window in front."""

    def __init__(self, name: str) -> None:
        self.name = name

    def command(self, name: str, method: str, path: str, body: dict[str, Any]) -> Any:
        """Run a WebDriver command: Marionette uses its name, the others use the method and the path."""
        raise NotImplementedError

    def go(self, url: str) -> None:
        self.command("Navigate", "POST", "/url", {"url": url})
        # WebKit may return before the scripts of the page have run.
        self.wait("document.readyState === 'complete'", "the page to load")

    def back(self) -> None:
        self.command("Back", "POST", "/back", {})

    def run(self, script: str, *arguments: Any) -> Any:
        """Run the body of an async function with `args`, and return its result.

        In Firefox it sees the page, but not the page's variables.
        """
        wrapped = (
            "const args = [...arguments], done = args.pop();"
            f"(async () => {{ {script} }})().then((value) => done([value]), (error) => done([null, String(error)]));"
        )
        answer = self.command("ExecuteAsyncScript", "POST", "/execute/async", {"script": wrapped, "args": arguments})
        assert answer, "the script ended with its document"
        value, *error = answer
        assert not error, error[0]
        return value

    def call(self, script: str, *arguments: Any) -> Any:
        """Like `run`, but as one of the scripts of the page, which must allow eval(). Values pass as JSON."""
        code = (
            f"(async () => {{ const args = {json.dumps(arguments)};"
            f"return JSON.stringify((await (async () => {{ {script} }})()) ?? null); }})()"
        )
        return json.loads(self.run("return (window.wrappedJSObject ?? window).eval(args[0]);", code))

    def find(self, selector: str) -> str:
        """Wait for an element that can be seen or is a file input, and return its id."""
        seen = (
            "const e = document.querySelector(args[0]); return Boolean(e && (e.type === 'file' || e.checkVisibility()))"
        )

        def is_seen() -> bool:
            with suppress(AssertionError):  # Firefox aborts a script when a frame loads its document
                return bool(self.run(seen, selector))
            return False

        wait_for(is_seen, f"{selector} in {self.name}")
        using = {"using": "css selector", "value": selector}
        element = self.command("FindElement", "POST", "/element", using)
        element = element.get("value", element)
        return str(element[_ELEMENT])

    def click(self, selector: str) -> None:
        """Click by script: WebKit's own click misses a button that moves while the page grows."""
        self.find(selector)
        self.run("document.querySelector(args[0]).click()", selector)

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in a file input."""
        element = self.find(selector)
        body = {"id": element, "text": str(path)}
        self.command("ElementSendKeys", "POST", f"/element/{element}/value", body)

    def enter_frame(self, selector: str) -> None:
        element = self.find(selector)
        self.command("SwitchToFrame", "POST", "/frame", {"id": {_ELEMENT: element}, "element": element})

    def leave_frame(self) -> None:
        self.command("SwitchToFrame", "POST", "/frame", {"id": None})

    def new_window(self) -> str:
        """Open another window of the same person, and return its handle."""
        opened = self.command("NewWindow", "POST", "/window/new", {"type": "tab"})
        return str(opened["handle"])

    def window(self) -> str:
        handle = self.command("GetWindowHandle", "GET", "/window", {})
        return str(handle)

    def switch_to(self, handle: str) -> None:
        self.command("SwitchToWindow", "POST", "/window", {"handle": handle})

    def close_window(self) -> None:
        self.command("CloseWindow", "DELETE", "/window", {})

    def wait(self, script: str, what: str) -> None:
        """Wait until an expression is true in the page."""
        wait_for(lambda: self.run(f"return {script}"), f"{what} in {self.name}")


class _HttpEngine(Engine):
    def __init__(self, name: str, url: str, capabilities: dict[str, Any]) -> None:
        super().__init__(name)
        self._url = url
        body = {"capabilities": {"alwaysMatch": {**capabilities, "timeouts": {"script": int(LONG * 1000)}}}}
        session = self.command("NewSession", "POST", "", body)["sessionId"]
        self._url = f"{url}/{session}"

    def command(self, name: str, method: str, path: str, body: dict[str, Any]) -> Any:
        answer = requests.request(method, self._url + path, json=body if method == "POST" else None, timeout=LONG)
        assert answer.ok, f"{name} in {self.name}: {answer.text}"
        return answer.json()["value"]


class _Firefox(Engine):
    """https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html"""

    def __init__(self, connection: socket.socket) -> None:
        super().__init__("firefox")
        self._stream = connection.makefile("rwb")
        self._read()  # Firefox sends a greeting first
        self._count = 0
        self.command("NewSession", "", "", {"timeouts": {"script": int(LONG * 1000)}})

    def command(self, name: str, method: str, path: str, body: dict[str, Any]) -> Any:
        del method, path
        self._count += 1
        message = json.dumps([0, self._count, f"WebDriver:{name}", body]).encode()
        self._stream.write(b"%d:%s" % (len(message), message))
        self._stream.flush()
        _, _, error, result = self._read()
        assert error is None, f"{name} in firefox: {error}"
        return result["value"] if isinstance(result, dict) and set(result) == {"value"} else result

    def _read(self) -> Any:
        length = b""
        while (byte := self._stream.read(1)) != b":":
            assert byte, "Firefox has ended"
            length += byte
        return json.loads(self._stream.read(int(length)))


@contextmanager
def running(name: str) -> Iterator[Engine]:
    """Run a browser while in the block.

    Skips the test if a program is missing.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
        yield _start_firefox(stack, folder) if name == "firefox" else _start_with_driver(stack, name, folder)


def _start_firefox(stack: ExitStack, folder: Path) -> Engine:
    require("firefox-esr")
    port = free_port()
    preferences = {**_FIREFOX_PREFERENCES, "marionette.port": port}
    lines = [f"user_pref({json.dumps(key)}, {json.dumps(value)});" for key, value in preferences.items()]
    (folder / "user.js").write_text("\n".join(lines))
    command = ["firefox-esr", "--headless", "--marionette", "--no-remote", "--profile", str(folder)]
    _started(stack, command, {"HOME": str(folder)})
    connections = list[socket.socket]()

    def connect() -> bool:
        try:
            connections.append(stack.enter_context(socket.create_connection(("127.0.0.1", port), LONG)))
        except ConnectionRefusedError:
            return False
        return True

    wait_for(connect, "Firefox to listen")
    return _Firefox(connections[0])


def _start_with_driver(stack: ExitStack, name: str, folder: Path) -> Engine:
    command, capabilities = _HTTP_DRIVERS[name]
    require(command[0])
    environ = {"HOME": str(folder), **(_screen(stack) if name == "webkit" else {})}
    port = free_port()
    _started(stack, [*command, f"--port={port}"], environ)
    url = f"http://127.0.0.1:{port}/session"

    def is_listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(is_listening, f"{command[0]} to listen")
    engine = _HttpEngine(name, url, capabilities)
    stack.callback(lambda: engine.command("DeleteSession", "DELETE", "", {}))
    return engine


def _screen(stack: ExitStack) -> dict[str, str]:
    """Start an X server in memory: WebKitGTK's MiniBrowser needs a display."""
    require("Xvfb")
    reader, writer = os.pipe()
    command = ["Xvfb", "-displayfd", str(writer), "-screen", "0", "1280x900x24", "-nolisten", "tcp"]
    _started(stack, command, {}, pass_fds=(writer,))
    os.close(writer)
    with os.fdopen(reader) as display:
        return {"DISPLAY": f":{display.readline().strip()}"}


def _started(stack: ExitStack, command: list[str], environ: dict[str, str], pass_fds: tuple[int, ...] = ()) -> None:
    process = subprocess.Popen(
        command,
        env={**os.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=pass_fds,
    )

    def stop() -> None:
        process.terminate()
        process.wait(LONG)

    stack.callback(stop)
