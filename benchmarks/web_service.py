"""The application of the benchmark `web`, as a service file."""

from __future__ import annotations

import os

from trio_supervisor import Application
from trio_supervisor.contrib import asgi

application = Application(
    [
        asgi(
            "benchmarks.web_app:app",
            count=2,
            bind=f"tcp://127.0.0.1:{os.environ['BENCHMARKS_PORT']}",
        )
    ]
)
