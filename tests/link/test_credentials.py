"""Credentials of a peer, from the kernel."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trio_supervisor.link.credentials import Credentials, peer_credentials

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="SO_PEERCRED")


@needs_linux
def test_peer_credentials_of_socketpair() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert peer_credentials(ours) == Credentials(
            process_id=os.getpid(), user_id=os.geteuid(), group_id=os.getegid()
        )


@needs_linux
def test_peer_credentials_of_other_process(tmp_path: Path) -> None:
    """Even if it has not sent anything yet."""
    path = str(tmp_path / "s")
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)\n"
    )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(path)
        listener.listen()
        with subprocess.Popen([sys.executable, "-c", program, path]) as process:
            accepted, _ = listener.accept()
            with accepted:
                assert peer_credentials(accepted).process_id == process.pid
            process.wait()


def test_peer_credentials_of_closed_connection_raises() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    ours.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        peer_credentials(ours)


@pytest.mark.parametrize(
    ("user_id", "is_trusted"),
    [(0, True), (os.geteuid(), True), (os.geteuid() + 1, False), (65534, False)],
)
def test_is_trusted_for_this_user_and_root(user_id: int, is_trusted: bool) -> None:
    credentials = Credentials(process_id=1, user_id=user_id, group_id=0)
    assert credentials.is_trusted == is_trusted
