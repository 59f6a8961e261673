"""The page at `/hero-me`: a front end for heroimg, with Stripe or with the stand-in."""

from __future__ import annotations

from flask import Blueprint, Flask, Response, make_response, redirect, render_template, request, url_for
from werkzeug import Response as Redirect

from demo.currencies import decimals
from heroimg.api.services import services
from heroimg.config import Config

bp = Blueprint(
    "hero_me", __name__, template_folder="page", static_folder="page/static", static_url_path="/hero-me/static"
)

# Stripe.js needs these: https://docs.stripe.com/security/guide#content-security-policy
_STRIPE_FRAMES = "https://js.stripe.com https://*.js.stripe.com https://checkout.stripe.com"
_STRIPE_POLICY = {
    "script-src": _STRIPE_FRAMES,
    "frame-src": f"{_STRIPE_FRAMES} https://hooks.stripe.com",
    "connect-src": "https://api.stripe.com https://checkout.stripe.com",
    "img-src": "https://*.stripe.com",
}


def add_page(app: Flask) -> None:
    """Serve the page at `/hero-me`, and at the path to which customers return."""
    app.register_blueprint(bp)
    if (path := services(app).config.return_path) not in ("/", "/hero-me"):
        app.add_url_rule(path, view_func=page)


@bp.get("/")
def root() -> Redirect:
    query = f"?{request.query_string.decode()}" if request.query_string else ""
    return redirect(url_for("hero_me.page") + query)


@bp.get("/hero-me")
def page() -> Response:
    config = services().config
    stand_in = config.stripe_api_base
    html = render_template(
        "hero-me.html",
        config=config,
        decimals=decimals(config.currency),
        stripe_js=f"{stand_in}/stand-in/stripe.js" if stand_in else "https://js.stripe.com/endive/stripe.js",
    )
    response = make_response(html)
    response.headers["Content-Security-Policy"] = _content_security_policy(config)
    response.headers["Referrer-Policy"] = "strict-origin-when-cross-origin"
    return response


def _content_security_policy(config: Config) -> str:
    """Allow the page's own files, the picture in memory and the checkout. Inline code is forbidden."""
    stand_in = config.stripe_api_base
    checkout = {"script-src": stand_in, "frame-src": stand_in} if stand_in else _STRIPE_POLICY
    own = {"script-src": "'self'", "style-src": "'self'", "connect-src": "'self'", "img-src": "'self' blob:"}
    directives = {name: f"{own.get(name, '')} {checkout.get(name, '')}".strip() for name in own | checkout}
    fixed = {"default-src": "'none'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'"}
    return "; ".join(f"{name} {sources}" for name, sources in (fixed | directives).items())
