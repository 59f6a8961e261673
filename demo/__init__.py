"""heroimg to try out: what stands in for Stripe where there is no account."""
