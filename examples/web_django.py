"""Serve a Django project, by ASGI and by WSGI. Needs ``pip install django uvicorn
a2wsgi``; run it by

trio-supervisor serve examples/web_django.py

A real project names its own modules: ``asgi("mysite.asgi:application")`` and
``wsgi("mysite.wsgi:application")``.
"""

import os

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from trio_supervisor import Application
from trio_supervisor.contrib import asgi, wsgi

settings.configure(ROOT_URLCONF=__name__, SECRET_KEY="example", ALLOWED_HOSTS=["*"])


def home(_request: HttpRequest) -> HttpResponse:
    """Answer with the id of this process."""
    return HttpResponse(f"hello from Django, pid {os.getpid()}\n")


urlpatterns = [path("", home)]
asgi_app = get_asgi_application()
wsgi_app = get_wsgi_application()

port = int(os.environ.get("PORT", 8000))
application = Application(
    services=[
        asgi(f"{__name__}:asgi_app", name="asgi", bind=f"tcp://127.0.0.1:{port}"),
        wsgi(
            f"{__name__}:wsgi_app",
            name="wsgi",
            bind=f"tcp://127.0.0.1:{port and port + 1}",
        ),
    ]
)
