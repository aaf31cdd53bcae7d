"""Groups of services that are restarted together. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

from attrs import define, field

from trio_supervisor.application import checks
from trio_supervisor.application.command import Command
from trio_supervisor.application.fields import (
    Checked,
    checked_later,
    documented,
    option,
)
from trio_supervisor.application.service import Service
from trio_supervisor.errors import SpecError
from trio_supervisor.policy.strategy import STRATEGIES, Strategy

AnyService: TypeAlias = Service | Command

# Functions that walk through groups are recursive.
_MAX_DEPTH: Final = 32


def children_of(
    value: Sequence[Service | Command | Group], field: str = ""
) -> tuple[Service | Command | Group, ...]:
    """Return the children in the list *value* if a group can contain each of them."""
    found = checks.items(value, field)
    for index, child in enumerate(found):
        if not isinstance(child, Service | Command | Group):
            problem = f"expected a Service or a Command, got {checks.shown(child)}"
            raise SpecError(f"{field}[{index}]", problem)
        if isinstance(child, Group) and child.depth >= _MAX_DEPTH:
            problem = f"groups nested deeper than {_MAX_DEPTH} levels"
            raise SpecError(f"{field}[{index}]", problem)
    return found


@documented
@define(
    eq=False,
    repr=False,
    slots=False,
    on_setattr=[],
    field_transformer=checked_later,
)
class Group(Checked):
    """Services that are restarted together, like the children of an OTP supervisor.

    Example::

        Group([database, web], strategy="rest_for_one", intensity=3, name="shop")

    Raises:
        SpecError: the value of an option is not valid; the message names the option.
    """

    children: tuple[Service | Command | Group, ...] = field(
        converter=children_of,
        metadata=option(
            f"Services, commands and further groups, at most {_MAX_DEPTH} levels deep."
        ),
    )
    strategy: Strategy = field(
        default="one_for_one",
        kw_only=True,
        metadata=option(
            "What is restarted together with a worker that crashed: nothing "
            '(`"one_for_one"`), the whole group (`"one_for_all"`), or all children '
            'after its service (`"rest_for_one"`). With `"rest_for_one"` each child '
            "also waits for all earlier ones to be ready, unless its `depends_on` says "
            "otherwise.",
            choices=STRATEGIES,
        ),
    )
    intensity: int | None = field(
        default=None,
        kw_only=True,
        converter=checks.integer_or_none,
        metadata=option(
            "Restart limit: maximum number of crashes in the group within `period`. "
            "With one more, or with a worker past its own `intensity`, the group "
            "fails: that counts as one crash in the enclosing group, which restarts "
            "the whole failed group, and others with it as its own strategy says. "
            "`None` sets no limit.",
            least=0,
        ),
    )
    period: float = field(
        default=60.0,
        kw_only=True,
        converter=checks.seconds,
        metadata=option(
            "Length of the sliding window in which crashes are counted for "
            "`intensity`.",
            unit="s",
            least=1e-3,
        ),
    )
    name: str | None = field(
        default=None,
        kw_only=True,
        converter=checks.name_or_none,
        metadata=option(
            "Name for logs; `None`: the group's place in the application, such as "
            "`services[1]`."
        ),
    )
    depth: int = field(init=False)
    """How many levels of groups it has, including itself."""

    def __attrs_post_init__(self) -> None:
        """Check the options, and count the levels."""
        super().__attrs_post_init__()
        inner = (child.depth for child in self.children if isinstance(child, Group))
        self.depth = 1 + max(inner, default=0)

    def __repr__(self) -> str:
        name = "" if self.name is None else f", name={self.name!r}"
        return f"Group({list(self.children)!r}, strategy={self.strategy!r}{name})"


Child: TypeAlias = Service | Command | Group
