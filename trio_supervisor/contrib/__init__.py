"""Ready-made services: web applications.

`asgi` and `wsgi` declare a service that serves an application, each in one line::

    from trio_supervisor import Application
    from trio_supervisor.contrib import asgi

    application = Application(services=[asgi("shop.web:app", count=4)])

The server itself is an optional dependency: ``pip install "trio_supervisor[asgi]"``.
"""

from __future__ import annotations

from trio_supervisor.contrib.web_services import asgi, wsgi

__all__ = ["asgi", "wsgi"]
