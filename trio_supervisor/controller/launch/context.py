"""What all children of one controller have in common."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from attrs import field, frozen

from trio_supervisor.application import (
    AnyService,
    Command,
)
from trio_supervisor.controller.child.child_spec import ChildPlan
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.trace_sampling import TraceSampling
from trio_supervisor.process.cgroups.leaf import Leaf
from trio_supervisor.process.cgroups.limits import CgroupLimits
from trio_supervisor.process.cgroups.tree import CgroupTree
from trio_supervisor.process.child import Process
from trio_supervisor.process.cleanup.guardian_client import Output
from trio_supervisor.process.identity import Identity
from trio_supervisor.process.input import open_input
from trio_supervisor.process.inspection.black_box import BlackBox
from trio_supervisor.process.notify.channel import Channel, open_channel
from trio_supervisor.process.output.hub import ChildOutput, OutputHub
from trio_supervisor.process.output.rotation import RotationPlan
from trio_supervisor.process.shared_counts import SharedCounts
from trio_supervisor.process.spawn.environment import (
    child_environment,
)


@frozen(kw_only=True)
class LaunchContext:
    """Made once, and passed to everything that starts a child."""

    socket_path: str
    listener: socket.socket
    directory: str
    """Ours alone, for what needs a file; it may be removed while we run."""
    base: str | None = None
    """Directory that relative paths start from, even if it is removed later; None: it
    was removed before we began."""
    lifeline: int
    marker: str
    log_format: str
    owns_process: bool = False
    """Whether this process has no children but ours."""
    sampling: TraceSampling | None = None
    """Which calls the supervisor records as spans; None: no call."""
    title: str
    """Of the application, for the titles of its processes."""
    hub: OutputHub | None = None
    """What drains the children's output; None: they write into ours."""
    is_captured: bool = False
    """Whether all children's output goes there, and not only what goes to files."""
    outputs: dict[int, ChildOutput] = field(factory=dict)
    """By process id."""
    boxes: dict[int, BlackBox] = field(factory=dict)
    """By process id."""
    counts: dict[int, SharedCounts] = field(factory=dict)
    """Of processes that count metrics, by process id, until they are known to run."""
    channels: dict[int, Channel] = field(factory=dict)
    """By process id, until its child listens there."""
    cgroups: CgroupTree = field(factory=CgroupTree)
    leaves: dict[int, Leaf] = field(factory=dict)
    """Cgroups of processes with limits, by process id."""
    environment: Mapping[str, str] = field(factory=lambda: dict(os.environ))
    admit_other_users: Callable[[], None] = lambda: None
    """Called before a process of another user is started that connects to the socket:
    its file has to let it."""

    def child_environment(self, additions: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of a child."""
        common = child_environment(self.environment, self.socket_path, self.marker)
        return {**common, **additions}

    @contextmanager
    def open_input(self, service: AnyService) -> Iterator[int | None]:
        """Open the standard input of a process within the block; None: the default.

        Raises:
            OSError: the service's file cannot be read.
        """
        if service.stdin is None:
            yield None
            return
        path = os.path.join(self.base or "", service.stdin)
        try:
            descriptor = open_input(path)
        except OSError as exc:
            raise OSError(f"stdin: cannot read {path}: {exc.strerror}") from exc
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def open_output(self, service: AnyService, name: str) -> ChildOutput | None:
        """Return where the next process of *name* is to write; None: into ours.

        Raises:
            OSError: the service's file cannot be written, or too many are open.
        """
        has_terminal = isinstance(service, Command) and service.tty
        is_needed = self.is_captured or service.has_own_log or has_terminal
        if self.hub is None or not is_needed:
            return None
        base = self.base or ""
        out = service.log_file and os.path.join(base, service.log_file)
        error = service.stderr_log_file and os.path.join(base, service.stderr_log_file)
        try:
            return self.hub.open(
                name,
                stdout=out,
                stderr=error or out,
                log_to=service.log_to,
                has_terminal=has_terminal,
                file_form="timed" if service.log_timestamps else "raw",
                rotation=_rotation_of(service),
            )
        except SpecError as exc:
            if isinstance(exc.__cause__, OSError):
                raise OSError(exc.__cause__.errno, str(exc)) from exc
            raise OSError(str(exc)) from exc

    def make_leaf(
        self, service: AnyService, name: str, stack: ExitStack
    ) -> Leaf | None:
        """Make a cgroup for a process of *name*; *stack* removes it again.

        None: *service* declares no limits.

        Raises:
            AttributeRefusedError: the system refuses one of them.
        """
        limits = CgroupLimits.of(service)
        if not limits.settings:
            return None
        leaf = self.cgroups.open_leaf(name, limits)
        stack.callback(self.cgroups.release, leaf)
        return leaf

    def guarded_outputs(self, process_id: int) -> list[Output]:
        """Return the pipes of a process, for the guardian."""
        if (output := self.outputs.get(process_id)) is None:
            return []
        return [
            Output(descriptor, output.name, stream, path, form)
            for stream, descriptor, path, form in output.readings
        ]

    def open_channel(
        self, *, is_ours: bool, identity: Identity | None = None
    ) -> Channel:
        """Return over what the next process is heard.

        Args:
            is_ours: Whether it runs this package.
            identity: Its user; None: that of this process.

        Raises:
            OSError: too many descriptors are open.
        """
        user = None if identity is None else identity.user
        return open_channel(self.directory, is_ours=is_ours, user=user)

    def listen(self, process: Process, channel: Channel) -> None:
        """Have *process*, which was started with *channel*, heard there."""
        channel.keep()
        self.channels[process.pid] = channel

    def started(
        self,
        output: ChildOutput | None,
        process: Process,
        plan: ChildPlan,
        number: int,
        leaf: Leaf | None = None,
    ) -> None:
        """Say that *process*, incarnation *number*, writes into *output*.

        Args:
            leaf: Its cgroup; None: that of the controller.
        """
        if leaf is not None:
            self.leaves[process.pid] = leaf
        if output is not None:
            output.started(process.pid, generation=plan.generation, incarnation=number)
            self.outputs[process.pid] = output


def _rotation_of(service: AnyService) -> RotationPlan:
    return RotationPlan(
        service.log_max_size,
        service.log_max_age,
        service.log_keep,
        service.log_compress,
    )
