"""Opening the control socket, concurrently and over existing files."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from trio_supervisor.errors import AlreadyServingError, SocketPathError
from trio_supervisor.link.listener import (
    MAX_PATH,
    check_socket_path,
    keep_listener,
)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short path: those of pytest are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="ts") as name:
        yield Path(name)


@pytest.fixture
def path(directory: Path) -> str:
    """Path of the socket."""
    return str(directory / "supervisor.ipc")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    old = os.umask(mask)
    try:
        yield
    finally:
        os.umask(old)


def mode(path: str) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


def left(path: str) -> list[str]:
    """Return the files in the directory of *path*."""
    return sorted(os.listdir(os.path.dirname(path)))


def connect(path: str) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.setblocking(False)
    try:
        connection.connect(path)
    except BaseException:
        connection.close()
        raise
    return connection


def make_stale(path: str, type_: socket.SocketKind = socket.SOCK_STREAM) -> None:
    """Create the files that a killed server leaves."""
    with socket.socket(socket.AF_UNIX, type_) as dead:
        dead.bind(path)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077, 0o777])
def test_socket_mode_is_0600_for_any_umask(path: str, mask: int) -> None:
    """The lock file as well: the next server must be able to open it."""
    with umask(mask), keep_listener(path):
        assert mode(path) == 0o600
        assert mode(f"{path}.lock") == 0o600


def test_admitted_users_can_connect_also_after_restore(path: str) -> None:
    with keep_listener(path) as kept:
        kept.admit_other_users()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
        os.unlink(path)
        kept.restore()
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666


def test_listener_is_nonblocking(path: str) -> None:
    with keep_listener(path) as kept, connect(path):
        accepted, _ = kept.socket.accept()
        accepted.close()
        with pytest.raises(BlockingIOError):
            kept.socket.accept()


def test_listener_removes_its_files(path: str) -> None:
    with keep_listener(path):
        assert left(path) == ["supervisor.ipc", "supervisor.ipc.lock"]
    assert left(path) == []


def test_listener_removes_its_files_after_error(path: str) -> None:
    with pytest.raises(ZeroDivisionError), keep_listener(path):
        raise ZeroDivisionError
    assert left(path) == []
    with keep_listener(path):
        pass


def test_listener_leaks_no_descriptor(path: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with keep_listener(path), pytest.raises(AlreadyServingError), keep_listener(path):
        pass
    assert set(os.listdir("/proc/self/fd")) == before


def test_listener_keeps_files_that_replaced_its_own(path: str) -> None:
    with keep_listener(path):
        os.unlink(path)
        make_stale(path)
    assert left(path) == ["supervisor.ipc"]


def test_listener_close_after_files_were_removed(path: str) -> None:
    with keep_listener(path):
        os.unlink(path)
        os.unlink(f"{path}.lock")
    assert left(path) == []


@pytest.mark.parametrize("stale", ["supervisor.ipc", "supervisor.ipc.lock", "both"])
def test_listener_replaces_stale_files(path: str, stale: str) -> None:
    if stale != "supervisor.ipc.lock":
        make_stale(path)
    if stale != "supervisor.ipc":
        Path(f"{path}.lock").touch(0o600)
    with keep_listener(path), connect(path):
        assert mode(path) == 0o600
    assert left(path) == []


def test_listener_refuses_running_server_without_lock(path: str) -> None:
    """Such as another program's server, or one whose lock file was removed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as living:
        living.bind(path)
        living.listen()
        with pytest.raises(AlreadyServingError, match="--socket"), keep_listener(path):
            pass
        connect(path).close()  # it still serves
    assert left(path) == ["supervisor.ipc"]


def test_listener_refuses_server_with_full_backlog(path: str) -> None:
    """With a full backlog, connect neither succeeds nor fails."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as living:
        living.bind(path)
        living.listen(0)
        with ExitStack() as waiting:
            with suppress(BlockingIOError):
                while True:
                    waiting.enter_context(connect(path))
            with pytest.raises(AlreadyServingError), keep_listener(path):
                pass
    assert left(path) == ["supervisor.ipc"]


def test_listener_refuses_second_until_first_closes(path: str) -> None:
    with keep_listener(path):
        with (
            pytest.raises(AlreadyServingError, match="another controller"),
            keep_listener(path),
        ):
            pass
        connect(path).close()
    with keep_listener(path):
        pass


@pytest.mark.parametrize("kind", ["file", "directory", "fifo", "link", "dangling"])
def test_listener_never_removes_other_files(path: str, kind: str) -> None:
    other = f"{path}.other"
    match kind:
        case "file":
            Path(path).write_text("precious")
        case "directory":
            os.mkdir(path)
        case "fifo":
            os.mkfifo(path)
        case "link":
            Path(other).write_text("precious")
            os.symlink(other, path)
        case "dangling":
            os.symlink(other, path)
    before = left(path)
    with pytest.raises(SocketPathError, match="no socket"), keep_listener(path):
        pass
    assert left(path) == before


def test_listener_never_removes_datagram_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(path)
        with pytest.raises(SocketPathError, match="another type"), keep_listener(path):
            pass
        assert left(path) == ["supervisor.ipc"]


def test_too_long_socket_path_error_has_length(directory: Path) -> None:
    """In bytes: an umlaut has two."""
    room = MAX_PATH - len(str(directory)) - 1
    path = str(directory / ("ü" + "x" * (room - 1)))
    with pytest.raises(SocketPathError, match=f"{MAX_PATH + 1} bytes long"):
        check_socket_path(path)
    with keep_listener(str(directory / ("x" * room))):
        pass


def test_missing_socket_directory_is_named(directory: Path) -> None:
    with pytest.raises(SocketPathError, match=f"does not exist: {directory}/absent"):
        check_socket_path(f"{directory}/absent/supervisor.ipc")


def test_file_in_place_of_socket_directory_is_named(directory: Path) -> None:
    (directory / "file").touch()
    with pytest.raises(SocketPathError, match="does not exist"):
        check_socket_path(f"{directory}/file/supervisor.ipc")


def test_socket_name_without_directory_is_relative(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(directory)
    with keep_listener("s.ipc"):
        assert (directory / "s.ipc").is_socket()


def test_unwritable_socket_directory_is_named(directory: Path) -> None:
    """As user nobody if the test runs as root."""
    program = (
        "import os, sys\n"
        "from trio_supervisor.errors import SocketPathError\n"
        "from trio_supervisor.link.listener import keep_listener\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "try:\n"
        "    with keep_listener(sys.argv[1]): pass\n"
        "except SocketPathError as exc:\n"
        "    print(exc)\n"
    )
    directory.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", program, f"{directory}/s.ipc"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "not writable" in done.stdout
    assert "--socket" in done.stdout
    directory.chmod(0o755)


def test_symlink_as_lock_file_is_refused(path: str) -> None:
    """Another user could have created it to redirect our open."""
    Path(f"{path}.precious").touch()
    os.symlink(f"{path}.precious", f"{path}.lock")
    with pytest.raises(SocketPathError, match="cannot lock"), keep_listener(path):
        pass


def test_killed_process_releases_socket_path(path: str) -> None:
    program = (
        "import sys, time\n"
        "from trio_supervisor.link.listener import keep_listener\n"
        "with keep_listener(sys.argv[1]):\n"
        "    print(flush=True)\n"
        "    time.sleep(3600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.read(1)
        with pytest.raises(AlreadyServingError), keep_listener(path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert left(path) == ["supervisor.ipc", "supervisor.ipc.lock"]
    with keep_listener(path):
        pass
    assert left(path) == []


def test_concurrent_listeners_exactly_one_serves(path: str) -> None:
    makers = 8
    barrier, tried = threading.Barrier(makers), threading.Barrier(makers)
    make_stale(path)

    def make() -> bool:
        barrier.wait()
        try:
            with keep_listener(path):
                tried.wait()
                return True
        except AlreadyServingError:
            tried.wait()
            return False

    with ThreadPoolExecutor(makers) as pool:
        served = [pool.submit(make) for _ in range(makers)]
        assert sum(future.result() for future in served) == 1
    assert left(path) == []


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads switch after a few lines, not after 5 ms."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("hasty_threads")
def test_repeated_listeners_never_two_serve(path: str) -> None:
    """A lock file that its holder is about to remove does not count."""
    serving = threading.Lock()

    def come_and_go() -> int:
        served = 0
        for _ in range(1000):
            try:
                with keep_listener(path):
                    assert serving.acquire(blocking=False)
                    serving.release()
                    served += 1
            except AlreadyServingError:
                continue
        return served

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(come_and_go) for _ in range(4)]
        assert sum(future.result() for future in futures) > 0
    assert left(path) == []


def test_restore_keeps_existing_files(path: str) -> None:
    with keep_listener(path) as listener:
        assert listener.restore() == ()


@pytest.mark.parametrize("is_directory", [False, True])
def test_restore_recreates_removed_files(path: str, is_directory: bool) -> None:
    """The socket keeps its descriptor number, and the lock is held again."""
    with keep_listener(path) as listener:
        number = listener.socket.fileno()
        for name in left(path):
            os.unlink(os.path.join(os.path.dirname(path), name))
        if is_directory:
            os.rmdir(os.path.dirname(path))
        assert listener.restore() == (f"{path}.lock", path)
        assert listener.socket.fileno() == number
        assert mode(path) == 0o600
        assert not listener.socket.getblocking()
        connect(path).close()
        with pytest.raises(AlreadyServingError), keep_listener(path):
            pass
        assert listener.restore() == ()
    assert left(path) == []


def test_restore_refuses_replaced_socket_file(path: str) -> None:
    with keep_listener(path) as listener:
        os.unlink(path)
        Path(path).write_text("mine")
        with pytest.raises(FileExistsError):
            listener.restore()
    assert Path(path).read_text() == "mine"


def test_restore_refuses_lock_of_other_controller(path: str) -> None:
    with keep_listener(path) as listener:
        for name in left(path):
            os.unlink(os.path.join(os.path.dirname(path), name))
        with keep_listener(path):
            with pytest.raises(BlockingIOError):
                listener.restore()
            connect(path).close()
