"""Verbs that write and check what an application declares."""

from __future__ import annotations

from typing import Final

from trio_supervisor.cli.exit_codes import meanings
from trio_supervisor.cli.verbs.shared import IMPORT_TIMEOUT, JSON, SOCKET, TARGET
from trio_supervisor.cli.verbs.verb import Example, Verb, argument

_WRITE_CODES: Final = meanings(0, 1, 2, 130)
_IMPORT_CODES: Final = {
    **meanings(0, 1, 2, 10, 130),
    10: "the file cannot be read or converted; the message names the place",
}
_TARGET_CODES: Final = meanings(0, 1, 2, 10, 14, 130)

VERBS: Final = (
    Verb(
        name="check",
        group="configure",
        help="check an application without starting it",
        description="Import the application in a process of its own, and check its "
        "declaration and what its services need: programs on PATH, directories, log "
        "files, limits, free ports. Nothing is started.",
        arguments=(TARGET, SOCKET, IMPORT_TIMEOUT, JSON),
        examples=(
            Example("check", "check service.py, supervisor.toml, ... found here"),
            Example("check conf/supervisor.toml --json", "print all mistakes as JSON"),
        ),
        exit_codes={
            **meanings(0, 1, 2, 10, 12, 14, 130),
            0: "no mistake was found",
            10: "there are mistakes; each is named with its place",
        },
        handler="check:run_check",
    ),
    Verb(
        name="init",
        group="configure",
        help="write a starter: service.py or supervisor.toml",
        description="Write a commented starter for a new application. An existing "
        "file is never overwritten.",
        arguments=(
            argument(
                "directory",
                nargs="?",
                metavar="DIRECTORY",
                help="where to write it",
                shown_default="the current one",
            ),
            argument(
                "--toml",
                action="store_true",
                help="write supervisor.toml and its JSON schema",
            ),
        ),
        examples=(
            Example("init", "write service.py"),
            Example("init shop --toml", "write shop/supervisor.toml"),
        ),
        exit_codes=_WRITE_CODES,
        handler="init:run_init",
    ),
    Verb(
        name="schema",
        group="configure",
        help="print the JSON schema of supervisor.toml",
        description="Print the JSON schema of supervisor.toml, for editors.",
        arguments=(),
        examples=(
            Example("schema", "print it; redirect it to a file beside supervisor.toml"),
        ),
        exit_codes=_WRITE_CODES,
        handler="init:run_schema",
    ),
    Verb(
        name="unit",
        group="configure",
        help="print a systemd unit that serves an application",
        description="Print a systemd unit with the time limits that the application "
        "needs. docs/deployment.md explains each line.",
        arguments=(
            TARGET,
            argument(
                "--name",
                metavar="NAME",
                help="name of the unit and its directories",
                shown_default="the application's, else that of its directory",
            ),
            argument(
                "--user",
                metavar="USER",
                help="user that the controller runs as",
                shown_default="one that systemd makes",
            ),
            IMPORT_TIMEOUT,
        ),
        examples=(
            Example("unit", "print it, for /etc/systemd/system/NAME.service"),
            Example("unit supervisor.toml --user shop", "run as an existing user"),
        ),
        exit_codes=_TARGET_CODES,
        handler="deploy:run_unit",
    ),
    Verb(
        name="dockerfile",
        group="configure",
        help="print a Dockerfile that serves an application",
        description="Print a Dockerfile for the application in the current directory, "
        "with its requirements.txt or pyproject.toml.",
        arguments=(TARGET, IMPORT_TIMEOUT),
        examples=(Example("dockerfile", "print it; redirect it to Dockerfile"),),
        exit_codes=_TARGET_CODES,
        handler="deploy:run_dockerfile",
    ),
    Verb(
        name="import-supervisord",
        group="configure",
        help="print supervisord.conf as supervisor.toml",
        description="Print a supervisord configuration, and the files that it "
        "includes, as supervisor.toml. What has no equivalent becomes a comment that "
        "says what to use instead.",
        arguments=(
            argument("file", metavar="FILE", help="supervisord.conf, or a part of it"),
        ),
        examples=(
            Example(
                "import-supervisord /etc/supervisor/supervisord.conf",
                "print it; redirect it to supervisor.toml",
            ),
        ),
        exit_codes=_IMPORT_CODES,
        handler="convert:run_import_supervisord",
    ),
    Verb(
        name="import-pm2",
        group="configure",
        help="print a pm2 ecosystem file as supervisor.toml",
        description="Print an ecosystem file of pm2 as supervisor.toml: JSON, or "
        "JavaScript that exports a plain literal. What has no equivalent becomes a "
        "comment that says what to use instead.",
        arguments=(
            argument("file", metavar="FILE", help="ecosystem.config.js or a JSON file"),
        ),
        examples=(
            Example(
                "import-pm2 ecosystem.config.js",
                "print it; redirect it to supervisor.toml",
            ),
        ),
        exit_codes=_IMPORT_CODES,
        handler="convert:run_import_pm2",
    ),
    Verb(
        name="completion",
        group="configure",
        help="print a completion script for a shell",
        description="Print a script that completes verbs, options, and the names of "
        "workers and services that run. `names` prints these names alone.",
        arguments=(
            argument(
                "shell",
                choices=("bash", "zsh", "fish", "names"),
                help="the shell",
            ),
        ),
        examples=(
            Example("completion bash", "print it; use it by `source <(...)`"),
            Example("completion fish", "print it; use it by `... | source`"),
        ),
        exit_codes=meanings(0, 1, 2, 130),
        handler="completion:run_completion",
    ),
)
