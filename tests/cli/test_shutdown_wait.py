"""`shutdown` while the supervisor is being replaced, with a server of ours."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.kits.serving import short_directory
from trio_supervisor.cli.main import main


@contextmanager
def open_replaced(*, comes_back: bool) -> Iterator[tuple[Path, list[str]]]:
    """Run a server that closes the connection at the first ``shutdown``.

    Args:
        comes_back: Whether it answers the second one; otherwise it removes its socket.
    """
    calls: list[str] = []
    with short_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        path = directory / "s.ipc"
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while path.exists():
                connection, _ = listener.accept()
                with connection, connection.makefile("rb") as file:
                    for line in file:
                        call = json.loads(line)
                        calls.append(call["do"])
                        is_shutdown = call["do"] == "shutdown"
                        is_first = calls.count("shutdown") == 1
                        if is_shutdown and not (is_first and comes_back):
                            path.unlink()
                        if is_shutdown and is_first:
                            break
                        answer = {"id": call["id"], "finished": True}
                        if is_shutdown:
                            answer["ends_process"] = False
                        connection.sendall(json.dumps(answer).encode() + b"\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield path, calls
        finally:
            thread.join()


def test_it_calls_again_when_the_supervisor_was_replaced_first(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As right after a reload: the first call was lost before anybody acted on it."""
    with open_replaced(comes_back=True) as (path, calls):
        main(["shutdown", "--socket", str(path), "--timeout", "60"])
    assert calls.count("shutdown") == 2
    assert capsys.readouterr().out == "everything stopped\n"


def test_a_supervisor_that_exits_first_is_no_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open_replaced(comes_back=False) as (path, calls):
        main(["shutdown", "--socket", str(path), "--timeout", "60"])
    assert calls.count("shutdown") == 1
    assert capsys.readouterr().out == "everything stopped\n"
