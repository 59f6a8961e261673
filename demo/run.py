"""`make run`: serve heroimg on http://localhost:3000, with a stand-in for Stripe unless STRIPE_SECRET_KEY is set."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys

from demo.stripe_stand_in import StandIn
from heroimg.config import ConfigError
from heroimg.env_file import read_env_file

# What the page sells, unless the settings name a product. The default product is a board, which the page does not have.
PRODUCT = {
    "HEROIMG_PRODUCT_NAME": "Hero Me: your picture",
    "HEROIMG_PRODUCT_DESCRIPTION": "You get your picture back after the payment.",
}


def main() -> int:
    """Serve until interrupted; return gunicorn's exit status."""
    parser = argparse.ArgumentParser(prog="python -m demo.run")
    parser.add_argument("--port", type=int, default=3000)
    parser.add_argument("--stand-in-port", type=int, default=12111)
    ports = parser.parse_args()
    try:
        os.environ.update(read_env_file() | os.environ)
    except ConfigError as error:
        sys.exit(str(error))
    if os.environ.get("STRIPE_SECRET_KEY", "").strip():
        if not os.environ.get("STRIPE_PUBLISHABLE_KEY", "").strip():
            sys.exit("The page needs both keys: set STRIPE_PUBLISHABLE_KEY to pk_test_..., or unset STRIPE_SECRET_KEY")
        print("STRIPE_SECRET_KEY is set: payments go to Stripe.", flush=True)
        return _serve(ports.port, {})
    with _stand_in(ports.stand_in_port, ports.port) as stand_in:
        print(f"STRIPE_SECRET_KEY is not set: {stand_in.url} stands in for Stripe, and no money moves.", flush=True)
        settings = {
            "STRIPE_SECRET_KEY": "sk_test_standin",
            "STRIPE_PUBLISHABLE_KEY": "pk_test_standin",
            "STRIPE_WEBHOOK_SECRET": "whsec_standin",
            "STRIPE_API_BASE": stand_in.url,
        }
        return _serve(ports.port, settings)


def _stand_in(port: int, our_port: int) -> StandIn:
    try:
        return StandIn(port=port, webhook_url=f"http://localhost:{our_port}/api/checkout/webhook")
    except OSError as error:
        sys.exit(
            f"The stand-in for Stripe cannot listen on port {port} ({error.strerror}): "
            f"use --stand-in-port, or make run STAND_IN_PORT={port + 1}"
        )


def _serve(port: int, settings: dict[str, str]) -> int:
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", "python:heroimg.gunicorn_conf"]
    command = [*gunicorn, "--bind", f"127.0.0.1:{port}", "demo.wsgi:app"]
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            sys.exit(f"Port {port} is taken: use --port, or make run PORT={port + 1}")
    front_end = os.environ.get("FRONTEND_URL") or f"http://localhost:{port}"
    print(f"Open http://localhost:{port}/hero-me", flush=True)
    if front_end != f"http://localhost:{port}":
        print(f"Customers return from the checkout to {front_end}, as FRONTEND_URL says.", flush=True)
    with subprocess.Popen(command, env=PRODUCT | os.environ | settings | {"FRONTEND_URL": front_end}) as server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.terminate())
        return server.wait()


if __name__ == "__main__":
    sys.exit(main())
