"""heroimg without an account at Stripe. Nothing here is imported by heroimg, and nothing here imports it."""
