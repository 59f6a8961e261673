"""`make run`: serve heroimg on http://localhost:3000, with a stand-in for Stripe unless STRIPE_SECRET_KEY is set."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

from dotenv import find_dotenv, load_dotenv

from demo.stripe_stand_in import StandIn

_STAND_IN_PORT = 12111


def main() -> int:
    """Serve until interrupted, with gunicorn's arguments where there are any; return gunicorn's exit status."""
    load_dotenv(find_dotenv(usecwd=True))
    if os.environ.get("STRIPE_SECRET_KEY"):
        print("Payments go to Stripe: STRIPE_SECRET_KEY is set.", flush=True)
        return _serve({})
    url = "http://localhost:3000/api/checkout/webhook"
    with StandIn(port=_STAND_IN_PORT, webhook_url=url) as stand_in:
        print(f"STRIPE_SECRET_KEY is not set: {stand_in.url} stands in for Stripe, and no money moves.", flush=True)
        return _serve(
            {
                "STRIPE_SECRET_KEY": "sk_test_standin",
                "STRIPE_WEBHOOK_SECRET": "whsec_standin",
                "STRIPE_API_BASE": stand_in.url,
            }
        )


def _serve(settings: dict[str, str]) -> int:
    command = [sys.executable, "-m", "gunicorn", *sys.argv[1:]]
    with subprocess.Popen(command, env=os.environ | settings) as gunicorn:
        # An interrupt from the terminal reaches gunicorn by itself; a polite end does not.
        signal.signal(signal.SIGTERM, lambda *_: gunicorn.terminate())
        while True:
            with suppress(KeyboardInterrupt):
                return gunicorn.wait()


if __name__ == "__main__":
    sys.exit(main())
