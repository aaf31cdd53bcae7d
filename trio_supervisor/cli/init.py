"""Write a commented starter for a new application."""

from __future__ import annotations

import os
from argparse import Namespace
from importlib.resources import files
from typing import Final

from trio_supervisor.cli.output import print_line
from trio_supervisor.cli.verbs.verb import PROGRAM
from trio_supervisor.errors import SupervisorError

SCHEMA: Final = "supervisor.schema.json"

PYTHON: Final = '''\
"""What this application runs; served by `trio-supervisor serve`."""

import trio

from trio_supervisor import Application, Command, Service, Worker


async def work(worker: Worker) -> None:
    """Run in each process of the service, until it is cancelled."""
    await worker.ready()
    while True:
        await trio.sleep(1)


application = Application(
    services=[
        # A Python function, in two processes. A worker that exits is restarted.
        Service("worker", work, count=2),
        # Any other program; {index} is 0, 1 ... in each of its processes.
        Command(
            "ticker",
            ["sh", "-c", "while echo tick $NAME; do sleep 60; done"],
            environment={"NAME": "{name}"},
            expand=True,
            # It is started once all workers are ready.
            depends_on={"worker": "ready"},
        ),
    ],
    # stop_timeout=25,  # maximum duration of a shutdown [s]
)
'''

TOML: Final = f"""\
#:schema ./{SCHEMA}
# What this application runs; served by `trio-supervisor serve`.
# `trio-supervisor check` finds mistakes; {SCHEMA} lists all keys, for editors.

# stop_timeout = 25        # maximum duration of a shutdown [s]
# include = ["conf.d/*.toml"]
# env_file = ".env"        # NAME=value lines

[env]
GREETING = "hello"         # for all services

[services.ticker]
# No shell is used unless you name one. A program that exits is restarted.
command = ["sh", "-c", "while echo $GREETING from $NAME; do sleep 60; done"]
count = 2                  # processes; {{index}} is 0, 1 ... in each of them
environment = {{ NAME = "{{name}}", PORT = "{{8000+index}}" }}
# directory = "."          # relative to this file
# log_file = "{{name}}.log"
# restart = "on-failure"   # or "always" (the default), "never"
# nice = 5

# [services.web]
# command = ["gunicorn", "--bind=127.0.0.1:${{PORT:-8000}}", "shop:app"]
# readiness = {{ http = "http://127.0.0.1:${{PORT:-8000}}/" }}
# depends_on = {{ ticker = "ready" }}
# environment = {{ DB_PASSWORD = {{ file = "/run/secrets/db" }} }}

# [services.jobs]          # a Python function
# target = "package.module:function"
# backend = "sync"
"""


def run_init(arguments: Namespace) -> None:
    """Write the starter; an existing file is never overwritten."""
    directory = arguments.directory or "."
    texts = {"service.py": PYTHON}
    if arguments.toml:
        schema = files("trio_supervisor.config").joinpath(SCHEMA)
        texts = {"supervisor.toml": TOML, SCHEMA: schema.read_text(encoding="utf-8")}
    paths = {
        os.path.normpath(os.path.join(directory, name)): text
        for name, text in texts.items()
    }
    try:
        os.makedirs(directory, exist_ok=True)
        for path in paths:
            if os.path.lexists(path) and not path.endswith(SCHEMA):
                raise SupervisorError(f"{path} exists already; nothing was written")
        for path, text in paths.items():
            _write(path, text)
    except OSError as exc:
        where = exc.filename or directory
        raise SupervisorError(f"{where}: {exc.strerror}") from None
    where = "" if directory == "." else f"cd {directory}; "
    print_line(f"next: {where}{PROGRAM} check; {PROGRAM} serve")


def _write(path: str, text: str) -> None:
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print_line(f"{path}: exists already, left as it is")
        return
    print_line(f"{path}: written")


def run_schema(arguments: Namespace) -> None:
    """Print the JSON schema of supervisor.toml."""
    schema = files("trio_supervisor.config").joinpath(SCHEMA)
    print(schema.read_text(encoding="utf-8"), end="")
