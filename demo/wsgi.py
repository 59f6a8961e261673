"""heroimg with the page at `/hero-me`, as `make run` serves it."""

from demo import hero_me
from heroimg.wsgi import app

app.register_blueprint(hero_me.bp)
