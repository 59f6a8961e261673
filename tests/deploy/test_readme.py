"""The README is true: `make run` serves, and the commands in the README print the output that it shows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from demo.run import PRODUCT
from tests.helpers import pictures
from tests.helpers.api import Api
from tests.helpers.needed_programs import needs
from tests.helpers.serving import LONG, ROOT, Server, free_port, wait_for

README = (ROOT / "README.md").read_text()


@pytest.fixture
def served(tmp_path: Path) -> tuple[Server, int]:
    """Return a server for the program of `make run`, and a free port."""
    return Server(tmp_path, {"PYTHONWARNINGS": "default"}), free_port()


def journey() -> tuple[list[str], list[str]]:
    """Return the commands of the README's journey, and the lines that they print."""
    (block,) = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    lines = block.splitlines()
    return [line[2:] for line in lines if line.startswith("$ ")], [line for line in lines if not line.startswith("$ ")]


def shape(line: str) -> str:
    """Replace the parts that differ from run to run."""
    line = re.sub(r"cs_test_[A-Za-z0-9]+(_secret_[A-Za-z0-9]+)?", "cs_test_", line)
    return re.sub(r"\b[0-9a-f]{32}\b", "0", line)


@needs("curl")
def test_the_journey_in_the_readme_prints_what_the_readme_says(served: tuple[Server, int], tmp_path: Path) -> None:
    server, stand_in_port = served
    port = free_port()
    run = (sys.executable, "-m", "demo.run", "--port", str(port), "--stand-in-port", str(stand_in_port))
    server.start(*run)
    try:
        wait_for(lambda: server.log().count("ready: ") >= 2, "both workers")
        assert f"http://127.0.0.1:{stand_in_port} stands in for Stripe, and no money moves" in server.log()
        commands, printed = journey()
        script = "\n".join(commands).replace("localhost:3000", f"localhost:{port}").replace("/tmp/", f"{tmp_path}/")
        script = script.replace("localhost:12111", f"localhost:{stand_in_port}").replace(
            ".venv/bin/python", sys.executable
        )
        ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True)
        expected = [shape(line) for line in printed]
        printed = shape(ran.stdout.replace(f"localhost:{port}", "localhost:3000")).splitlines()
        assert printed == expected
        assert "ERROR" not in server.log()
    finally:
        server.stop()


def test_run_sells_what_its_page_hands_back(served: tuple[Server, int]) -> None:
    server, stand_in_port = served
    run = (sys.executable, "-m", "demo.run", "--port", str(free_port()), "--stand-in-port", str(stand_in_port))
    server.start(*run)
    try:
        api = Api(server)
        session = api.session_of(api.keep(pictures.jpeg()))
        page = requests.get(f"http://127.0.0.1:{stand_in_port}/stand-in/sessions/{session}", timeout=LONG)
        assert PRODUCT["HEROIMG_PRODUCT_NAME"] in page.text
    finally:
        server.stop()


def test_with_keys_run_says_that_payments_go_to_stripe_and_the_page_loads_stripes_own_script(
    served: tuple[Server, int],
) -> None:
    server, _ = served
    server.environ["STRIPE_SECRET_KEY"] = "sk_test_of_a_real_account"
    server.environ["STRIPE_PUBLISHABLE_KEY"] = "pk_test_of_the_same"
    server.start(sys.executable, "-m", "demo.run", "--port", str(free_port()))
    try:
        wait_for(lambda: server.log().count("ready: ") >= 2, "both workers")
        assert "payments go to Stripe" in server.log()
        assert "checkout with Stripe, test mode" in server.log()
        page = requests.get(f"{server.url}/hero-me", timeout=LONG)
        assert 'data-stripe-js="https://js.stripe.com/endive/stripe.js"' in page.text
        assert 'data-publishable-key="pk_test_of_the_same"' in page.text
        assert "no money moves" not in page.text
        policy = dict(part.split(" ", 1) for part in page.headers["Content-Security-Policy"].split("; "))
        frames = "https://js.stripe.com https://*.js.stripe.com https://checkout.stripe.com"
        assert policy["script-src"] == f"'self' {frames}"
        assert policy["frame-src"] == f"{frames} https://hooks.stripe.com"
        assert policy["connect-src"] == "'self' https://api.stripe.com https://checkout.stripe.com"
        assert policy["img-src"] == "'self' blob: https://*.stripe.com"
    finally:
        server.stop()


def test_with_one_of_two_keys_run_says_what_is_missing(served: tuple[Server, int]) -> None:
    server, _ = served
    server.environ["STRIPE_SECRET_KEY"] = "sk_test_of_a_real_account"
    command = [sys.executable, "-m", "demo.run", "--port", str(free_port())]
    ran = subprocess.run(command, cwd=server.folder, env=server.environ, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr == (
        "The page needs both keys: set STRIPE_PUBLISHABLE_KEY to pk_test_..., or unset STRIPE_SECRET_KEY\n"
    )
