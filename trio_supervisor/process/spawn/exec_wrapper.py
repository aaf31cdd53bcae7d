"""Set up sockets, signal dispositions and attributes, then execute a program.

Run by path, in the new process: ``LISTEN_PID`` of sd_listen_fds(3) is its own number,
and only a process itself can reset its signal dispositions. Not a shell script: a shell
may drop variables whose names it does not support, adds some of its own, and redirects
single-digit descriptors only. It loads as little as possible, since it runs before
every such program.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

# SD_LISTEN_FDS_START of sd-daemon.h.
FIRST = 3
TEMPORARY = ("/tmp", "/var/tmp")
# linux/sched.h, linux/mount.h and linux/prctl.h.
_CLONE_NEWNS = 0x20000
_MS_NOSUID, _MS_NODEV, _MS_REC, _MS_SLAVE = 0x2, 0x4, 0x4000, 0x80000
_PR_SET_NO_NEW_PRIVS = 38


def main(arguments: list[str]) -> None:
    """Renumber the descriptors and execute the program; never return.

    Args:
        arguments: A pipe that receives the errno of a failure; a socket that sends the
            permission to execute the program; the descriptors in order, separated by
            commas; the original LC_CTYPE as ``=VALUE``, or ``-``; the settings: see
            `take_settings`; the directory to enter with them as ``=PATH``, or ``-``;
            and the command.
    """
    report, permission, sources, locale, settings, directory, *command = arguments
    # First moved above the final numbers; exec closes all of these copies.
    numbers = [int(source) for source in sources.split(",") if source]
    first_free = FIRST + len(numbers)
    pipe = fcntl.fcntl(int(report), fcntl.F_DUPFD_CLOEXEC, first_free)
    if not os.read(int(permission), 1):
        os._exit(127)  # the parent could not prepare this process, or has exited
    try:
        moved = [
            fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, first_free) for number in numbers
        ]
        for number in {int(report), int(permission), *numbers}:
            os.close(number)
        for place, source in enumerate(moved, FIRST):
            os.dup2(source, place, inheritable=True)
        if numbers:
            os.environ["LISTEN_PID"] = str(os.getpid())
        _restore_locale(locale)
        _restore_signals()
        if settings:
            # For execvp, which imports it. Another user may not be able to read it.
            import warnings  # noqa: F401
        take_settings(settings)
        _enter(directory)
        os.execvp(command[0], command)
    except SettingError as exc:
        os.write(pipe, f"{exc.errno} {exc.filename}".encode())
        os._exit(127)
    except OSError as exc:
        os.write(pipe, str(exc.errno).encode())
        os._exit(127)


class SettingError(OSError):
    """The system refuses a setting, which is its ``filename``."""


def take_settings(settings: str) -> None:
    """Set what only a process itself can set.

    Args:
        settings: Words such as ``umask=18``, ``no_new_privileges=1``,
            ``user=UID:GID:GID,GID`` (user, group and supplementary groups), and
            ``terminal=1``: make descriptor 1 the controlling terminal of this session;
            ``private_tmp=1``: mount an empty directory at each of `TEMPORARY`.

    Raises:
        SettingError: the system refuses one.
    """
    for word in settings.split():
        name, _, value = word.partition("=")
        try:
            _SETTERS[name](value)
        except OSError as exc:
            raise SettingError(exc.errno, exc.strerror, word) from None


def _become(value: str) -> None:
    user, group, groups = value.split(":")
    # In this order: afterwards it may not set groups any more.
    os.setgroups([int(each) for each in groups.split(",") if each])
    os.setresgid(*3 * [int(group)])
    os.setresuid(*3 * [int(user)])


def _take_terminal(descriptor: str) -> None:
    import termios

    fcntl.ioctl(int(descriptor), termios.TIOCSCTTY, 0)


def _mount_private(_value: str) -> None:
    """Mount empty directories in a mount namespace of this process; unshare(2)."""
    _call("unshare", _CLONE_NEWNS)
    # Mounts of the machine appear here, and not the other way round.
    _call("mount", None, b"/", None, _MS_REC | _MS_SLAVE, None)
    for directory in TEMPORARY:
        flags = _MS_NOSUID | _MS_NODEV
        path = os.fsencode(directory)
        _call("mount", b"tmpfs", path, b"tmpfs", flags, b"mode=1777")


def _call(name: str, *arguments: object) -> None:
    import ctypes  # slow to import, and only needed for some settings

    function = getattr(ctypes.CDLL(None, use_errno=True), name, None)
    if function is None or function(*arguments):
        number = ctypes.get_errno() or errno.ENOSYS
        raise OSError(number, os.strerror(number))


def _enter(directory: str) -> None:
    if directory.startswith("="):
        try:
            os.chdir(directory[1:])
        except OSError as exc:
            raise SettingError(exc.errno, exc.strerror, "directory") from None


def _gain_no_privileges(_value: str) -> None:
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


_SETTERS = {
    "umask": lambda value: os.umask(int(value)),
    "user": _become,
    "terminal": _take_terminal,
    "private_tmp": _mount_private,
    "no_new_privileges": _gain_no_privileges,
}


def _restore_locale(locale: str) -> None:
    """Undo PEP 538: in the C locale, Python sets LC_CTYPE for its children as well."""
    if locale == "-":
        os.environ.pop("LC_CTYPE", None)
    else:
        os.environ["LC_CTYPE"] = locale[1:]


def _restore_signals() -> None:
    import signal

    # Ignored by Python itself, or inherited as ignored.
    for number in signal.valid_signals():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main(sys.argv[1:])
