"""`python -m demo.stripe_stand_in`: serve until interrupted."""

import argparse
import contextlib
import signal
import threading

from demo.stripe_stand_in import StandIn


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.stripe_stand_in",
        description="Stands in for Stripe, with the key sk_test_standin and the webhook secret whsec_standin.",
    )
    parser.add_argument("--port", type=int, default=12111)
    parser.add_argument("--webhook-url", help="where to post webhook events")
    given = parser.parse_args()
    # A shell starts background jobs with SIGINT ignored, so SIGTERM must end it as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt), StandIn(port=given.port, webhook_url=given.webhook_url) as stand_in:
        print(stand_in.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
