"""Define an application with a process of each kind for embedded controllers."""

from __future__ import annotations

from tests.kits.embedded_targets import work, work_sync
from trio_supervisor import Application, Command, Service

application = Application(
    services=[
        Service("web", work, stop_timeout=5),
        # This service has its own fork server.
        Service("apart", work, stop_timeout=5, environment={"APART": "yes"}),
        Service("jobs", work_sync, backend="sync", start_method="exec"),
        Command("nap", ["sleep", "1000"], stop_timeout=5),
    ]
)
