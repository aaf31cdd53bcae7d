"""Services that share a fate. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from trio_supervisor.application import checks
from trio_supervisor.application.command import Command
from trio_supervisor.application.service import Service
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.strategy import STRATEGIES, Strategy

AnyService: TypeAlias = Service | Command

# Whoever walks through groups does so by recursion.
_MAX_DEPTH: Final = 32


class Group:
    """Services that share a fate, as below one supervisor of OTP.

    Args:
        children: Services, commands and further groups, 32 levels deep at most.
        strategy: What is restarted with a worker that crashed: ``"one_for_one"``
            nothing, ``"one_for_all"`` all of the group, ``"rest_for_one"`` all children
            after its service. In a group of the last kind each child also waits for
            all earlier ones to be ready, where it does not say otherwise itself.
        intensity: Restart limit: at most so many crashes in the group within *period*.
            One more, or a worker past its own intensity, and the group fails: that
            counts as one crash in the group around it, which restarts all of it, and
            others with it as its own strategy says. None for no limit.
        period: Length of that window [s].
        name: For logs; None: the place in the application.

    Raises:
        SpecError: an argument does not fit; the message names it.
    """

    def __init__(
        self,
        children: Sequence[Service | Command | Group],
        *,
        strategy: Strategy = "one_for_one",
        intensity: int | None = None,
        period: float = 60.0,
        name: str | None = None,
    ) -> None:
        self.children = children_of("children", children)
        self.strategy: Strategy = checks.one_of("strategy", strategy, STRATEGIES)
        self.intensity = checks.integer_or_none("intensity", intensity, least=0)
        self.period = checks.seconds("period", period, least=1e-3)
        self.name = None if name is None else checks.name("name", name)
        inner = (child.depth for child in self.children if isinstance(child, Group))
        self.depth: int = 1 + max(inner, default=0)
        """How many levels of groups it has, itself counted."""

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"Group({list(self.children)!r}, strategy={self.strategy!r}{name})"


Child: TypeAlias = Service | Command | Group


def children_of(field: str, children: object) -> tuple[Child, ...]:
    """Return *children* if all of them can stand in a group."""
    found = checks.items(field, children)
    for index, child in enumerate(found):
        if not isinstance(child, Service | Command | Group):
            problem = f"expected a Service or a Command, got {checks.shown(child)}"
            raise SpecError(f"{field}[{index}]", problem)
        if isinstance(child, Group) and child.depth >= _MAX_DEPTH:
            problem = f"groups nested deeper than {_MAX_DEPTH} levels"
            raise SpecError(f"{field}[{index}]", problem)
    return found
