"""The table of verbs, from which ``--help`` and the reference derive.

To add a verb, add a row to the module of its group, and its handler.
"""

from __future__ import annotations

from typing import Final

from trio_supervisor.cli.verbs import configure, control, diagnose, inspect, run

VERBS: Final = {
    verb.name: verb
    for verb in (
        *run.VERBS,
        *configure.VERBS,
        *inspect.VERBS,
        *control.VERBS,
        *diagnose.VERBS,
    )
}
"""All verbs by name, in the order of ``--help``."""
