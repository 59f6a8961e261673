"""heroimg with the page at `/hero-me`, as `make run` serves it."""

from demo.hero_me import add_page
from heroimg.wsgi import app

add_page(app)
