"""Divide the cgroup of this process: a leaf for itself, and one for each worker.

Nothing is changed before the first worker with limits. Source: systemd's
CGROUP_DELEGATION.md, and cgroup-v2.rst ("no internal processes").
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Final

import trio
from attrs import define, field

from trio_supervisor.process.cgroups.leaf import Leaf
from trio_supervisor.process.cgroups.limits import CgroupLimits, LimitSetting
from trio_supervisor.process.cgroups.own_group import (
    OWN_LEAF,
    ROOT,
    CgroupUnavailableError,
    OwnGroup,
    access_problem,
    controller_problem,
    find_own_group,
    version_problem,
)
from trio_supervisor.process.cgroups.residents import move_all, others_problem
from trio_supervisor.process.spawn.refused import AttributeRefusedError

logger = logging.getLogger(__name__)

# Names of `_free_leaf`, of workers as `checks.name` permits.
_OF_WORKER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.[0-9]+(-[0-9]+)?")
# For killed processes that are about to leave [s].
_REMOVAL: Final = 2.0
_LOOK: Final = 0.01


@define(eq=False)
class CgroupTree:
    """The cgroups of one controller; made by `open_cgroups`."""

    _root: Path = ROOT
    _own: OwnGroup | None = field(default=None, init=False)
    """What was divided; None: nothing yet."""
    _enabled: set[str] = field(factory=set, init=False)
    """Controllers that this process has enabled for its children."""
    _leaves: dict[Path, Leaf] = field(factory=dict, init=False)
    """Those in use, and those of `_left`."""
    _left: set[Path] = field(factory=set, init=False)
    """Those that were released while processes were still in there."""

    def open_leaf(self, name: str, limits: CgroupLimits) -> Leaf:
        """Make a cgroup with *limits* for a process of the worker *name*.

        Raises:
            AttributeRefusedError: the system refuses one of the limits.
        """
        own = self._divide(limits.settings)
        leaf = self._free_leaf(own.base, name)
        for setting in limits.settings:
            try:
                (leaf.path / setting.file).write_text(setting.text)
            except OSError as exc:
                leaf.remove()
                reason = exc.strerror or str(exc)
                raise _refused(setting, f"{reason} (cgroup {leaf.path})") from None
        self._leaves[leaf.path] = leaf
        return leaf

    def release(self, leaf: Leaf) -> None:
        """Remove *leaf*, or do it later if it has processes still."""
        if leaf.remove():
            self._leaves.pop(leaf.path, None)
            self._left.discard(leaf.path)
        else:
            self._left.add(leaf.path)

    def refusal(self, limits: CgroupLimits) -> AttributeRefusedError | None:
        """Return why *limits* cannot be set, as far as that is known without a try."""
        settings = limits.settings
        if not settings:
            return None
        for setting in settings:
            if problem := version_problem([setting.controller], self._root):
                return _refused(setting, problem)
        try:
            own = self._own or find_own_group(self._root)
        except CgroupUnavailableError as exc:
            return _refused(settings[0], str(exc))
        for setting in settings:
            if setting.controller not in _words_in(own.base / "cgroup.controllers"):
                problem = controller_problem([setting.controller], own.base)
                return _refused(setting, problem)
        if problem := access_problem(own.base, self._root) or others_problem(own.base):
            return _refused(settings[0], problem)
        return None

    async def close(self) -> None:
        """Remove all leaves, and return to the cgroup in which this process began."""
        if (own := self._own) is None:
            await trio.lowlevel.checkpoint()
            return
        with trio.move_on_after(_REMOVAL):
            while not self._remove_leaves(self._leaves):  # noqa: ASYNC110 (the kernel)
                await trio.sleep(_LOOK)
        try:
            _change(own.base, "-", self._enabled)
            if not own.is_in_leaf:
                move_all(own.base / OWN_LEAF, own.base)
                os.rmdir(own.base / OWN_LEAF)
        except OSError as exc:
            logger.debug("cgroup %s is left as it is: %s", own.base, exc)
        self._own, self._enabled = None, set()

    def _divide(self, settings: Iterable[LimitSetting]) -> OwnGroup:
        """Make the children of this process's cgroup able to have *settings*."""
        first, *_ = settings
        try:
            if self._own is None:
                self._own = self._enter_leaf()
            wanted = {setting.controller for setting in settings}
            self._enable(self._own.base, wanted)
        except CgroupUnavailableError as exc:
            raise _refused(first, str(exc)) from None
        except OSError as exc:
            where = "" if self._own is None else f" (cgroup {self._own.base})"
            raise _refused(first, f"{exc.strerror or exc}{where}") from None
        return self._own

    def _enter_leaf(self) -> OwnGroup:
        """Move this process and its children to a leaf; remove what an earlier left."""
        own = find_own_group(self._root)
        if problem := access_problem(own.base, self._root) or others_problem(own.base):
            raise CgroupUnavailableError(problem)
        leaf = own.base / OWN_LEAF
        leaf.mkdir(exist_ok=True)
        move_all(own.base, leaf)
        for each in _stale_leaves(own.base):
            if each.remove():
                logger.debug("removed the cgroup %s of an earlier controller", each)
        return own

    def _enable(self, base: Path, wanted: set[str]) -> None:
        missing = wanted - _words_in(base / "cgroup.subtree_control")
        unknown = missing - _words_in(base / "cgroup.controllers")
        if unknown:
            problem = version_problem(unknown, self._root)
            problem = problem or controller_problem(sorted(unknown), base)
            raise CgroupUnavailableError(problem)
        _change(base, "+", missing)
        self._enabled |= missing

    def _free_leaf(self, base: Path, name: str) -> Leaf:
        """Make the directory *name* in *base*; with a number if that is in use.

        Two processes of one worker may run at a time, for the length of a reload.
        """
        if not _OF_WORKER.fullmatch(name):
            raise ValueError(f"not the name of a worker: {name!r}")
        self._remove_leaves(self._left)
        for number in count(1):
            leaf = Leaf(base / (name if number == 1 else f"{name}-{number}"))
            if leaf.path in self._leaves:
                continue
            # It may be left from an earlier controller: its counters are not ours.
            if leaf.remove():
                leaf.path.mkdir()
                return leaf
        raise AssertionError("count() ends")

    def _remove_leaves(self, paths: Iterable[Path]) -> bool:
        """Remove those of *paths* that are empty; return whether none is left."""
        for path in tuple(paths):
            self.release(self._leaves[path])
        return not self._leaves


def _refused(setting: LimitSetting, reason: str) -> AttributeRefusedError:
    return AttributeRefusedError(setting.option, setting.shown, reason)


def _words_in(path: Path) -> set[str]:
    with suppress(OSError):
        return set(path.read_text().split())
    return set()


def _change(base: Path, sign: str, controllers: Iterable[str]) -> None:
    """Enable or disable *controllers* for the children of *base*."""
    if words := " ".join(f"{sign}{each}" for each in sorted(controllers)):
        (base / "cgroup.subtree_control").write_text(words)


def _stale_leaves(base: Path) -> list[Leaf]:
    """Return the cgroups of workers in *base*, of a controller that was killed."""
    names = sorted(os.listdir(base))
    return [Leaf(base / name) for name in names if _OF_WORKER.fullmatch(name)]


@asynccontextmanager
async def open_cgroups(root: Path = ROOT) -> AsyncIterator[CgroupTree]:
    """Keep the cgroups of one controller within the block; none is left behind it."""
    tree = CgroupTree(root)
    try:
        yield tree
    finally:
        with trio.CancelScope(shield=True):
            await tree.close()
