"""Every error this package raises, in one tree, each with the exit code it leads to.

On the wire an error is named by its class without ``Error``: `NoSuchWorkerError` is
``{"class": "NoSuchWorker", "message": ...}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class SupervisorError(Exception):
    """Base of all errors raised by this package."""

    exit_code: ClassVar[int] = 1
    """What a command that ends in this error exits with; docs/cli.md has the table."""

    @property
    def wire_name(self) -> str:
        """The name of this error on the wire."""
        return type(self).__name__.removesuffix("Error")


class SpecError(SupervisorError):
    """A declaration (application, service, monitor) has a mistake in it.

    The message starts with the path of the field, as ``services[1].count``.
    """

    exit_code = 10

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem
        self.errors: tuple[SpecError, ...] = (self,)
        """The mistakes that this error lists; this one alone, unless made by `of`."""

    @classmethod
    def of(cls, errors: Sequence[SpecError]) -> SpecError:
        """Return one error that lists all of *errors*, at least one."""
        if len(errors) == 1:
            return errors[0]
        lines = "".join(f"\n  {error}" for error in errors)
        found = cls("", f"{len(errors)} problems:{lines}")
        found.errors = tuple(errors)
        return found


class TargetError(SupervisorError):
    """A target, as ``service.py:application``, cannot be imported or holds none."""

    exit_code = 10


class SocketPathError(SupervisorError):
    """The path of the socket cannot be used: too long, not a socket, no directory."""

    exit_code = 12


class AlreadyServingError(SupervisorError):
    """Another controller serves on this socket."""

    exit_code = 11


class RestartLimitError(SupervisorError):
    """A worker ended more than ``intensity`` times within ``period`` seconds."""

    exit_code = 13


class SignificantServiceError(SupervisorError):
    """A significant service ended as it should not, and the application with it."""

    exit_code = 15


class ListenError(SupervisorError):
    """A listening socket cannot be bound, or a declared one cannot be kept."""

    exit_code = 16


class ReloadError(SupervisorError):
    """A reload came to nothing, and all is as it was; the message says why."""


class PlatformError(SupervisorError):
    """This process or this system cannot supervise: the message says why."""

    exit_code = 14


class ProtocolError(SupervisorError):
    """The wire protocol was violated. Never raised itself: see its children."""


class LocalProtocolError(ProtocolError):
    """This side asked for something the protocol forbids: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol forbids. The connection is dead."""


class LimitExceededError(RemoteProtocolError):
    """The peer went past a limit of the protocol: length, depth, calls, bytes, time."""


class NoSupervisorError(SupervisorError):
    """Nobody accepts connections at the socket."""

    exit_code = 3


class ConnectionLostError(SupervisorError):
    """The connection ended before the answer came: the outcome is unknown."""


class CallFailedError(SupervisorError):
    """The peer ran the call and answered with a failure.

    Attributes:
        error_class: The name of the error on the wire, as ``NoSuchWorker``.
        message: What the peer said.
    """

    def __init__(self, error_class: str, message: str) -> None:
        super().__init__(f"{error_class}: {message}" if error_class else message)
        self.error_class = error_class
        self.message = message

    @property
    def wire_name(self) -> str:
        """The peer's own name for it, so that a forwarded failure keeps its name."""
        return self.error_class or super().wire_name


class DeadlineExceededError(SupervisorError):
    """The answer did not come in time."""

    exit_code = 4


class BadRequestError(SupervisorError):
    """A call whose arguments do not fit; the message names the field."""


class UnknownOperationError(SupervisorError):
    """Nobody here answers the operation of that name."""


class NoSuchWorkerError(SupervisorError):
    """No worker or service has that name, or no connection that id."""


class NotConnectedError(SupervisorError):
    """The worker exists and has no connection to the supervisor at the moment."""


class NotPermittedError(SupervisorError):
    """The peer's credentials do not allow this."""


class SignalNotPermittedError(SupervisorError):
    """A process could not be ended: it belongs to another user, and goes on."""


class UnavailableError(SupervisorError):
    """What is needed to answer is not there yet, or not any more: try again."""


class OperationFailedError(SupervisorError):
    """The operation raised something that is not of this package."""


class BusyError(SupervisorError):
    """Another one is under way that this one would disturb: wait for it to end."""


class LowMemoryError(SupervisorError):
    """There is not enough free memory to do this safely."""


class ExhaustedError(SupervisorError):
    """A worker cannot be looked at: it is out of descriptors, memory or processes."""


class SnapshotError(SupervisorError):
    """The forked snapshot could not be made, or did not come to its end."""


class HeapFileError(SupervisorError):
    """A heap dump cannot be written, or read: the message says where and why."""
