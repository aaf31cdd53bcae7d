"""A directory tree that looks like cgroup v2, as far as the package reads it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

_rmdir = os.rmdir
_FILES = {
    "cgroup.procs": "",
    "cgroup.subtree_control": "",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cgroup.controllers": "cpu memory pids\n",
}


class FakeCgroups:
    """The cgroup ``/app.service`` of this process, on a machine in *root*."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.mount = root / "sys/fs/cgroup"
        self.base = self.make("app.service")
        (root / "proc/self").mkdir(parents=True)
        self.say(cgroup="0::/app.service\n")
        self.say(
            mountinfo="22 1 0:20 / /proc rw - proc proc rw\n"
            "30 22 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup rw\n"
        )

    def say(self, **files: str) -> None:
        """Change files in /proc/self."""
        for name, text in files.items():
            (self.root / "proc/self" / name).write_text(text)

    def make(self, name: str) -> Path:
        """Make a cgroup; the kernel does that in mkdir(2)."""
        directory = self.mount / name
        directory.mkdir(parents=True)
        for file, text in _FILES.items():
            (directory / file).write_text(text)
        return directory


def remove(path: Path, **options: Any) -> None:
    """Remove a cgroup as rmdir(2) does there: its files do not count."""
    if options or "cgroup" not in str(path):
        _rmdir(path, **options)
        return
    if not path.exists():
        raise FileNotFoundError(path)
    events = path / "cgroup.events"
    if events.exists() and "populated 1" in events.read_text():
        raise OSError(16, "Device or resource busy")
    for file in path.iterdir():
        file.unlink()
    _rmdir(path)


@pytest.fixture
def cgroups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCgroups:
    monkeypatch.setattr(os, "rmdir", remove)
    return FakeCgroups(tmp_path)
