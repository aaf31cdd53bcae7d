"""Run a program in a new terminal that closes on SIGUSR1.

``python in_terminal.py MODE COMMAND...``: with ``leader`` the program is the session
leader, with ``log`` its standard error is the terminal as well; with ``shell`` a shell
is the session leader and runs the program, with ``nohup`` by nohup(1).
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import sys
import termios
import threading
from contextlib import suppress

from trio_supervisor.process.kernel import set_subreaper

SCRIPTS = {"shell": '"$@"; exit $?', "nohup": 'nohup "$@"; exit $?'}


def main() -> None:
    mode, *command = sys.argv[1:]
    set_subreaper(True)
    if mode in SCRIPTS:
        command = ["sh", "-c", SCRIPTS[mode], "sh", *command]
    master, slave = pty.openpty()
    process_id = os.fork()
    if process_id == 0:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        for number in (0, *([2] if mode == "log" else [])):
            os.dup2(slave, number)
        os.execvp(command[0], command)
    os.close(slave)
    signal.signal(signal.SIGUSR1, lambda *_: os.close(master))
    threading.Thread(target=drain, args=(master,), daemon=True).start()
    code = 0
    with suppress(ChildProcessError):  # also processes that outlive the shell
        while True:
            ended, status = os.wait()
            if ended == process_id:
                code = os.waitstatus_to_exitcode(status)
    os._exit(code & 0xFF)


def drain(master: int) -> None:
    """Read and drop what the program prints to its terminal."""
    os.set_blocking(master, False)
    poll = select.poll()
    poll.register(master)
    with suppress(OSError):
        while True:
            poll.poll(100)
            with suppress(BlockingIOError):
                os.read(master, 65536)


if __name__ == "__main__":
    main()
