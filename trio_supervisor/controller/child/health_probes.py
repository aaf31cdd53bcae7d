"""Probe the health of a command by HTTP, a TCP connection or another command."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final, TypeAlias

import trio
from attrs import define, field

from trio_supervisor.application import Command, Probe
from trio_supervisor.controller.child.child import Child
from trio_supervisor.controller.child.child_spec import Prober
from trio_supervisor.controller.child.exit_messages import Fault
from trio_supervisor.policy.probing import ProbeCounter, ProbeHealth, quick_pauses
from trio_supervisor.policy.restart import Cause
from trio_supervisor.process.child import Process
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.repeated_failures import RepeatedFailures
from trio_supervisor.process.shortage import shortage_of, text_of
from trio_supervisor.process.sockets.port_conflict import conflicting_listener
from trio_supervisor.process.spawn.attributes import ProcessAttributes
from trio_supervisor.process.spawn.environment import PROCESS_VARIABLE
from trio_supervisor.process.spawn.helper import open_helper
from trio_supervisor.process.threads import run_in_thread
from trio_supervisor.tasks import open_nursery

logger = logging.getLogger(__name__)

# Only the status line of a response is read: HTTP/1.1 200 OK.
_STATUS_LINE: Final = 1024
# Interval of checking how much of a timeout is left [s].
_SOONEST: Final = 0.05


def make_prober(command: Command, environment: Mapping[str, str]) -> Prober | None:
    """Return the prober of *command*; None: it declares no probes."""
    probes = (command.startup, command.readiness, command.liveness)
    if not any(probes):
        return None
    return _Prober(command, environment)


Place: TypeAlias = tuple[str, int]
"""Address and port on this machine."""


@define(eq=False)
class _Target:
    """Process to probe."""

    child: Child
    process: Process
    must_own: bool
    """Whether the process or one of its descendants must send the response."""
    place: Place | None = None
    """Local address of the last response; None: another machine or unknown."""
    stranger: str = ""
    """Description of the foreign process that responded last."""
    trouble: RepeatedFailures = field(init=False)
    """Failures to send a probe."""

    def __attrs_post_init__(self) -> None:
        self.trouble = RepeatedFailures(logger, f"{self.child.name}: probes run")

    def extra_time(self) -> float:
        """Return by how much the probe timeout is extended [s]."""
        now = trio.current_time()
        return self.child.load_control.extra_time(self.process.pid, now, 0.0)


@define(eq=False)
class _Prober:
    """Prober as in Kubernetes: startup first, then readiness and liveness."""

    _command: Command
    _environment: Mapping[str, str]
    _attributes: ProcessAttributes = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._attributes = ProcessAttributes.of(self._command)

    async def __call__(self, child: Child, process: Process) -> None:
        command = self._command
        target = _Target(child, process, must_own=True)
        if command.startup is not None:
            await self._until_started(target, command.startup)
        async with open_nursery() as nursery:
            if command.readiness is None:
                child.set_probe_readiness(True)
            else:
                nursery.start_soon(self._watch_readiness, target, command.readiness)
            if command.liveness is not None:
                # A port held by another process is no reason to stop this one.
                asked = _Target(child, process, must_own=False)
                nursery.start_soon(self._watch_liveness, asked, command.liveness)

    async def _until_started(self, target: _Target, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes)
        await trio.sleep(probe.delay)
        # Often at first, so that a quick start is noticed at once. Failures count only
        # once an interval: a slow start has as much time as without that.
        pauses, count_at = quick_pauses(probe.interval), trio.current_time()
        while True:
            is_good = await self._ask(target, probe)
            health: ProbeHealth | None = None
            now = trio.current_time()
            if is_good or (is_good is False and now >= count_at):
                health = counter.add(is_good)
                count_at = now + probe.interval
            if health is ProbeHealth.UNHEALTHY:
                if await self._is_spared(target, probe):
                    return
                fault = _fault_of(probe, "startup")
                target.child.fail_probe(Cause.STARTUP_TIMEOUT, fault)
                await trio.sleep_forever()
            if health is ProbeHealth.HEALTHY:
                return
            pause = next(pauses)
            await trio.sleep(min(pause, count_at - now) if count_at > now else pause)

    async def _watch_readiness(self, target: _Target, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes)
        await trio.sleep(probe.delay)
        while True:
            health = await self._count(target, probe, counter)
            if health is not None:
                target.child.set_probe_readiness(health is ProbeHealth.HEALTHY)
            await trio.sleep(probe.interval)

    async def _watch_liveness(self, target: _Target, probe: Probe) -> None:
        counter = ProbeCounter(probe.failures, probe.successes, ProbeHealth.HEALTHY)
        target.child.pass_liveness_probe()
        await trio.sleep(probe.delay)
        while True:
            is_alive = await self._ask(target, probe)
            if is_alive:
                target.child.pass_liveness_probe()
            if is_alive is None:
                pass  # the probe could not be sent
            elif counter.add(is_alive) is ProbeHealth.UNHEALTHY:
                if not await self._is_spared(target, probe):
                    fault = _fault_of(probe, "liveness")
                    target.child.fail_probe(Cause.UNHEALTHY, fault)
                    await trio.sleep_forever()
                target.child.pass_liveness_probe()
                counter = ProbeCounter(
                    probe.failures, probe.successes, ProbeHealth.HEALTHY
                )
            await trio.sleep(probe.interval)

    async def _count(
        self, target: _Target, probe: Probe, counter: ProbeCounter
    ) -> ProbeHealth | None:
        """Probe once; a probe that could not be sent does not count."""
        is_good = await self._ask(target, probe)
        return None if is_good is None else counter.add(is_good)

    async def _is_spared(self, target: _Target, probe: Probe) -> bool:
        """Probe again while stops are suspended; return whether it responded."""
        while (wait := target.extra_time()) > 0:
            await trio.sleep(wait)
            if await self._ask(target, probe):
                return True
        return False

    async def _ask(self, target: _Target, probe: Probe) -> bool | None:
        """Return whether the probe succeeded within its timeout.

        None: it could not be sent, because this process lacks file descriptors,
        processes or memory; this is logged once.
        """
        try:
            is_good = await self._ask_now(target, probe)
        except (OSError, RuntimeError, MemoryError, BaseExceptionGroup) as exc:
            if (short := shortage_of(exc)) is None:
                raise
            target.trouble.failed(
                f"{target.child.name}: cannot run probe {probe}: {text_of(short)}; not "
                f"counted as a failure"
            )
            return None
        target.trouble.worked()
        return is_good

    async def _ask_now(self, target: _Target, probe: Probe) -> bool:
        """Probe it.

        Only the time in which both the process and this one could run counts against
        the timeout.
        """
        is_good = False
        left = target.child.load_control.measure(target.process.pid)

        async def ask(scope: trio.CancelScope) -> None:
            nonlocal is_good
            is_good = await self._answer(target, probe)
            scope.cancel()

        async with open_nursery() as nursery:
            nursery.start_soon(ask, nursery.cancel_scope)
            await trio.sleep(probe.timeout)
            while (more := left(probe.timeout)) > 0:  # noqa: ASYNC110 (time alone)
                await trio.sleep(max(more, _SOONEST))
            nursery.cancel_scope.cancel()
        return is_good and not await self._is_strangers(target, probe)

    async def _is_strangers(self, target: _Target, probe: Probe) -> bool:
        """Return whether a foreign process responded; log which one, once."""
        stranger = ""
        is_anyones = probe.answered_by == "anyone" or not target.must_own
        if target.place is not None and not is_anyones:
            child = target.child
            mark = f"{PROCESS_VARIABLE}={child.plan.mark(child.incarnation)}"
            pid = target.process.pid
            stranger = await run_in_thread(
                conflicting_listener, *target.place, pid, mark
            )
        if stranger != target.stranger:
            target.stranger = stranger
            target.child.set_status(
                stranger and f"probe {probe} is answered by {stranger}"
            )
            if stranger:
                logger.warning(
                    "%s: probe %s is answered by %s, not by this worker "
                    "(answered_by); not ready",
                    target.child.name,
                    probe,
                    stranger,
                )
        return bool(stranger)

    async def _answer(self, target: _Target, probe: Probe) -> bool:
        target.place = None
        match probe.kind:
            case "command":
                return await _run(target, probe, self._environment, self._attributes)
            case "tcp":
                return await _connect(target, probe.host, probe.port)
            case "http":
                return await _get(target, probe.host, probe.port, probe.path)


def _fault_of(probe: Probe, option: str) -> Fault:
    times = "once" if probe.failures == 1 else f"{probe.failures} times in a row"
    return Fault(f"{option} probe {probe} failed {times}", f"{option}.failures")


async def _run(
    target: _Target,
    probe: Probe,
    environment: Mapping[str, str],
    attributes: ProcessAttributes,
) -> bool:
    try:
        async with open_helper(
            probe.arguments, environment=environment, attributes=attributes
        ) as process:
            return await process.wait() == 0
    except OSError as exc:
        _raise_shortage(exc)
        logger.warning("%s: cannot run probe %s: %s", target.child.name, probe, exc)
        return False


def _raise_shortage(exc: OSError) -> None:
    """Raise if *exc* is a local shortage; return if it is a probe result."""
    if (short := shortage_of(exc)) is not None:
        raise short from exc


async def _connect(target: _Target, host: str, port: int) -> bool:
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as exc:
        _raise_shortage(exc)
        return False
    target.place = _place(stream)
    await trio.aclose_forcefully(stream)
    return True


async def _get(target: _Target, host: str, port: int, path: str) -> bool:
    """Return whether the response status is 200 to 399, as in Kubernetes."""
    try:
        stream = await trio.open_tcp_stream(host, port)
    except OSError as exc:
        _raise_shortage(exc)
        return False
    target.place = _place(stream)
    name = f"[{host}]" if ":" in host else host
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nUser-Agent: trio_supervisor\r\n"
        f"Accept: */*\r\nConnection: close\r\n\r\n"
    )
    async with stream:
        try:
            await stream.send_all(request.encode("ascii"))
            head = await _read_line(stream)
        except trio.BrokenResourceError:
            return False
    match head.split(b" ", 2):
        case [version, status, *_] if version.startswith(b"HTTP/"):
            return len(status) == 3 and status[:1] in (b"2", b"3")
    return False


def _place(stream: trio.SocketStream) -> Place | None:
    """Return the local peer of *stream*; None: another machine or unknown."""
    if not IS_LINUX:
        return None
    try:
        host, port = stream.socket.getpeername()[:2]
        is_here = stream.socket.getsockname()[0] == host
    except OSError:  # closed immediately
        return None
    is_here |= ip_address(host.partition("%")[0]).is_loopback
    return (host, port) if is_here else None


async def _read_line(stream: trio.abc.ReceiveStream) -> bytes:
    line = b""
    while b"\n" not in line and len(line) < _STATUS_LINE:
        data = await stream.receive_some(_STATUS_LINE)
        if not data:
            break
        line += data
    return line.partition(b"\n")[0]
