"""Serve a Flask application. Needs ``pip install flask uvicorn a2wsgi``; run it by

trio-supervisor serve examples/web_flask.py
"""

import os

from flask import Flask

from trio_supervisor import Application
from trio_supervisor.contrib import wsgi

app = Flask(__name__)


@app.get("/")
def home() -> str:
    """Answer with the id of this process."""
    return f"hello from Flask, pid {os.getpid()}\n"


application = Application(
    services=[
        wsgi(
            f"{__name__}:app",
            count=2,
            threads=8,
            bind=f"tcp://127.0.0.1:{os.environ.get('PORT', 8000)}",
        )
    ]
)
