"""Entries of forked children for tests. Imported by a fork server."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import ssl
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trio_supervisor.process.spawn.fork_server_protocol import Preloaded


def preload(argument: object) -> Preloaded:
    """Load nothing; return the argument as the list of problems."""
    problems = [str(item) for item in argument] if isinstance(argument, list) else []
    return Preloaded(problems, None)


def end_twice(argument: object) -> Preloaded:
    """Send this server SIGTERM when it is about to exit."""
    server = sys.modules["__main__"]
    end = vars(server)["_end"]

    def interrupted(handlers: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        end(handlers)

    vars(server)["_end"] = interrupted
    return Preloaded([], None)


def warm_up() -> None:
    """Do nothing."""


def tell(boot: dict[str, object], descriptors: Sequence[int]) -> None:
    """Write the state of this child, then do what *boot* says."""
    (output,) = descriptors
    told = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "group": os.getpgrp(),
        "nice": os.nice(0),
        "environment": dict(os.environ),
        "open": sorted(int(name) for name in os.listdir("/proc/self/fd")),
        "mask": len(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "random": random.random(),
        "secret": secrets.token_hex(8),
        "openssl": ssl.RAND_bytes(8).hex(),
        "title": Path("/proc/self/cmdline").read_text().rstrip("\0"),
        "boot": boot,
    }
    os.write(output, json.dumps(told).encode() + b"\n")
    match boot.get("then"):
        case "exit":
            sys.exit(int(str(boot["code"])))
        case "fail":
            raise ValueError("as asked")
        case "sleep":
            time.sleep(3600)
