"""Decide with a policy of your own what follows an exit.

The importer ends with code 75 (EX_TEMPFAIL) while there is no new data: then it is not
restarted. After any other failure it is, as its options say.
"""

from typing import Literal

from trio_supervisor import (
    Application,
    Command,
    Policy,
    PolicyWorker,
    WorkerExit,
)

NO_NEW_DATA = 75


class ImporterPolicy(Policy):
    """Leaves the importer alone when there is nothing to import."""

    async def worker_exited(
        self, worker: PolicyWorker, ending: WorkerExit
    ) -> Literal["leave"] | None:
        """Decide about the importer; the options decide about all others."""
        if worker.service == "importer" and ending.returncode == NO_NEW_DATA:
            return "leave"
        return None


application = Application(
    name="custom_policy",
    services=[
        Command("web", ["sleep", "1000"]),
        Command("importer", ["sh", "-c", f"echo no new data; exit {NO_NEW_DATA}"]),
    ],
    policy=ImporterPolicy(),
)
