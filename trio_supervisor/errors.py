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
    """A worker exited more than ``intensity`` times within ``period`` seconds."""

    exit_code = 13


class SignificantServiceError(SupervisorError):
    """A significant service failed, which shut the application down."""

    exit_code = 15


class ListenError(SupervisorError):
    """A listening socket cannot be bound, or a declared one cannot be kept."""

    exit_code = 16


class ReloadError(SupervisorError):
    """A reload failed; the previous generation keeps running.

    The message says why.
    """


class PlatformError(SupervisorError):
    """This process or system cannot run a controller; the message says why."""

    exit_code = 14


class ProtocolError(SupervisorError):
    """The wire protocol was violated. Never raised itself: see its subclasses."""


class LocalProtocolError(ProtocolError):
    """This side tried to send what the protocol forbids: a bug here."""


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids. The connection is closed."""


class LimitExceededError(RemoteProtocolError):
    """The peer exceeded a limit of the protocol: length, depth, calls, bytes, time."""


class NoSupervisorError(SupervisorError):
    """No process accepts connections at the socket."""

    exit_code = 3


class ConnectionLostError(SupervisorError):
    """The connection was lost before the answer; the outcome is unknown."""


class CallFailedError(SupervisorError):
    """The peer ran the call and answered with a failure.

    Attributes:
        error_class: The name of the error on the wire, as ``NoSuchWorker``.
        message: The peer's message.
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
    """There was no answer before the deadline."""

    exit_code = 4


class BadRequestError(SupervisorError):
    """The arguments of a call are invalid; the message names the field."""


class UnknownOperationError(SupervisorError):
    """There is no operation of that name."""


class NoSuchWorkerError(SupervisorError):
    """No worker or service has that name, or no connection that id."""


class NotConnectedError(SupervisorError):
    """The worker has no connection to the supervisor at the moment."""


class NotPermittedError(SupervisorError):
    """The peer's credentials do not allow this."""


class SignalNotPermittedError(SupervisorError):
    """A process could not be stopped: it runs as another user, and keeps running."""


class UnavailableError(SupervisorError):
    """What is needed for an answer is not available at the moment; try again."""


class OperationFailedError(SupervisorError):
    """The operation raised an exception that this package does not define."""


class BusyError(SupervisorError):
    """A call in progress does not permit this one; try again when it has finished."""


class LowMemoryError(SupervisorError):
    """There is not enough free memory to do this safely."""


class ExhaustedError(SupervisorError):
    """A worker cannot be inspected: it is out of descriptors, memory or processes."""


class SnapshotError(SupervisorError):
    """The forked snapshot could not be made, or did not finish."""


class HeapFileError(SupervisorError):
    """A heap dump cannot be written or read; the message names the file and why."""
