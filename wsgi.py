"""Where servers find the application: `app`, and `application` for mod_wsgi and Passenger."""

from heroimg.wsgi import app

application = app
