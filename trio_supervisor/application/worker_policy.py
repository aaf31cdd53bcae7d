"""Let the application decide what happens to its workers. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from attrs import frozen

from trio_supervisor.application import checks
from trio_supervisor.errors import SpecError

ExitDecision: TypeAlias = Literal["restart", "leave", "give_up"]
HealthDecision: TypeAlias = Literal["restart", "keep"]
LeakDecision: TypeAlias = Literal["report", "sample", "restart"]


@frozen(kw_only=True)
class PolicyWorker:
    """A worker, as a `Policy` sees it."""

    name: str
    service: str
    process_id: int | None
    """None: its process could not be started."""
    incarnation: int
    crashes: int
    """Crashes in a row since the last stable run."""


@frozen(kw_only=True)
class WorkerExit:
    """How a process of a worker ended that was not asked to."""

    returncode: int | None
    """Exit code, or -n if signal n killed it; None: it was not started."""
    reason: str
    """The same in words, such as ``exit code 3``."""
    is_failure: bool
    last_line: str
    """The line of its output that most likely states the cause; may be empty."""
    decision: ExitDecision
    """What happens if the policy does not decide."""


class Policy:
    """Decides what happens to workers, where the application wants otherwise.

    Its methods run in the supervisor process, which must be able to import its class.
    Override those that you need; what they return is carried out by the controller with
    all of its promises: backoff, order, stop signals. None leaves the decision to the
    options of the service. So does a method that raises, that takes longer than a
    second, or that cannot be asked, because the supervisor is being restarted.

    Example::

        class NightlyPolicy(Policy):
            async def worker_exited(self, worker, ending):
                if worker.service == "importer" and ending.returncode == 75:
                    return "leave"  # no new data today
    """

    async def worker_started(self, worker: PolicyWorker) -> None:
        """Called when a process of *worker* was started. Decides nothing."""

    async def worker_exited(
        self, worker: PolicyWorker, ending: WorkerExit
    ) -> ExitDecision | None:
        """Decide what follows an exit that was not asked for.

        Returns:
            ``"restart"``: with the service's backoff, also where its options say
            otherwise. ``"leave"``: not restarted. ``"give_up"``: as when a restart
            limit is reached, which ends the group or the application.
        """
        return None

    async def health_check_failed(
        self, worker: PolicyWorker, problem: str
    ) -> HealthDecision | None:
        """Decide about a worker that gives no heartbeat, or fails its liveness probe.

        Returns:
            ``"restart"``, or ``"keep"``: asked again if it is not healthy one
            ``health_check_timeout`` later.
        """
        return None

    async def startup_failed(
        self, worker: PolicyWorker, problem: str
    ) -> HealthDecision | None:
        """Decide about a worker that is not ready within its ``startup_timeout``.

        Returns:
            ``"restart"``, or ``"keep"``: it may take as long again.
        """
        return None

    async def leak_detected(
        self, worker: PolicyWorker, leak: str
    ) -> LeakDecision | None:
        """Decide about a worker that leaks, as `MemoryMonitor` has found.

        Args:
            leak: What was found, in words.

        Returns:
            One of the values of the monitor's ``on_leak``, in place of that.
        """
        return None


HOOKS: Final[Mapping[str, tuple[str, ...]]] = {
    "worker_started": (),
    "worker_exited": ("restart", "leave", "give_up"),
    "health_check_failed": ("restart", "keep"),
    "startup_failed": ("restart", "keep"),
    "leak_detected": ("report", "sample", "restart"),
}
"""What each method of a `Policy` may return, apart from None."""


@frozen
class PolicyName:
    """The name of a policy, which is in the supervisor process."""

    text: str
    """``module:QualifiedName`` of its class."""
    hooks: tuple[str, ...]
    """Methods that it overrides."""

    def __str__(self) -> str:
        return self.text


def hooks_of(policy: Policy | PolicyName | None) -> tuple[str, ...]:
    """Return the methods that *policy* overrides."""
    if policy is None:
        return ()
    if isinstance(policy, PolicyName):
        return policy.hooks
    return tuple(
        hook
        for hook in HOOKS
        if getattr(type(policy), hook) is not getattr(Policy, hook)
    )


def policy_name(policy: Policy | PolicyName) -> PolicyName:
    """Return the name of *policy*."""
    if isinstance(policy, PolicyName):
        return policy
    kind = type(policy)
    return PolicyName(f"{kind.__module__}:{kind.__qualname__}", hooks_of(policy))


def policy_or_none(
    value: Policy | PolicyName | None, field: str = ""
) -> Policy | PolicyName | None:
    """Return *value* if it is None, a `Policy` or the name of one."""
    if value is not None and not isinstance(value, Policy | PolicyName):
        what = "the class itself" if isinstance(value, type) else checks.shown(value)
        raise SpecError(field, f"expected an object of a Policy class, got {what}")
    return value


def policy_from_plain(value: Any) -> PolicyName | None:
    """Return the policy that *value*, JSON, names.

    Raises:
        SpecError: *value* names none.
    """
    if value is None:
        return None
    fields = checks.dictionary(value, "policy")
    hooks = checks.items(fields.get("hooks", ()), "policy.hooks")
    if unknown := [hook for hook in hooks if hook not in HOOKS]:
        raise SpecError("policy.hooks", f"unknown: {checks.shown(unknown[0])}")
    return PolicyName(str(fields.get("text")), tuple(hooks))
