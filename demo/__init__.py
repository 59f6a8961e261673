"""heroimg in use: a page, and a stand-in for Stripe. heroimg imports nothing from here."""
