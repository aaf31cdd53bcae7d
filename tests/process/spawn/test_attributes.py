"""Test that a process gets its attributes, or the error names the option."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from trio_supervisor.application import Command
from trio_supervisor.process.cgroups.leaf import Leaf
from trio_supervisor.process.groups import IS_LINUX
from trio_supervisor.process.spawn.attributes import (
    NO_ATTRIBUTES,
    ProcessAttributes,
    available_cpus,
    is_raised,
    shown_cpus,
)
from trio_supervisor.process.spawn.exec_wrapper import SettingError, take_settings
from trio_supervisor.process.spawn.refused import AttributeRefusedError

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="Linux only")


@pytest.fixture
def process_id() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def attributes(**options: Any) -> ProcessAttributes:
    return ProcessAttributes.of(Command("redis", ["redis-server"], **options))


def test_process_without_attributes_needs_nothing() -> None:
    assert (NO_ATTRIBUTES.prepare, NO_ATTRIBUTES.own()) == (None, "")
    assert attributes() == NO_ATTRIBUTES


def test_attributes_are_set_from_outside(process_id: int) -> None:
    found = attributes(
        nice=7,
        ionice="best-effort:6",
        cpu_affinity=[min(available_cpus())],
        oom_score_adj=500,
        limits={"core": 0, "nofile": [100, 200]},
    )
    assert found.prepare is not None
    found.prepare(process_id)
    assert os.getpriority(os.PRIO_PROCESS, process_id) == 7
    assert os.sched_getaffinity(process_id) == {min(available_cpus())}
    with open(f"/proc/{process_id}/oom_score_adj") as file:
        assert file.read() == "500\n"
    assert resource.prlimit(process_id, resource.RLIMIT_CORE) == (0, 0)
    assert resource.prlimit(process_id, resource.RLIMIT_NOFILE) == (100, 200)


def test_cgroup_is_entered_before_anything_else(tmp_path: Path) -> None:
    """Also by a process of another user, which may not do so itself."""
    (tmp_path / "cgroup.procs").write_text("")
    found = evolve(attributes(), cgroup=Leaf(tmp_path))
    assert found.set_for_other_user(os.getpid()) is None
    assert (tmp_path / "cgroup.procs").read_text() == str(os.getpid())
    assert found.prepare is not None
    (tmp_path / "cgroup.procs").unlink()
    (tmp_path / "cgroup.procs").mkdir()
    with pytest.raises(AttributeRefusedError, match="Is a directory") as caught:
        evolve(found, limits={"core": (0, 0)}).set_from_outside(os.getpid())
    assert caught.value.option == "cgroup"


def test_process_sets_umask_and_privileges_itself() -> None:
    found = attributes(umask="027", no_new_privileges=True)
    assert found.prepare is None
    assert found.own() == "umask=23 no_new_privileges=1"
    code = (
        "import os, sys; from trio_supervisor.process.spawn import exec_wrapper as w;"
        "w.take_settings(sys.argv[1]); print(os.umask(0));"
        "print([l for l in open('/proc/self/status') if 'NoNewPrivs' in l])"
    )
    told = subprocess.check_output([sys.executable, "-c", code, found.own()], text=True)
    assert told.splitlines() == ["23", r"['NoNewPrivs:\t1\n']"]


def test_refused_setting_is_the_file_name_of_its_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_mask: int) -> int:
        raise PermissionError(1, "no")

    monkeypatch.setattr(os, "umask", refuse)
    with pytest.raises(SettingError) as caught:
        take_settings("umask=18")
    assert (caught.value.errno, caught.value.filename) == (1, "umask=18")


def test_refused_attribute_names_option_value_and_reason(process_id: int) -> None:
    with pytest.raises(AttributeRefusedError) as caught:
        attributes(cpu_affinity=[8191]).set_from_outside(process_id)
    available = shown_cpus(available_cpus())
    assert caught.value.option == "cpu_affinity"
    assert str(caught.value) == (
        f"cannot set cpu_affinity=[8191]: Invalid argument (available: {available})"
    )


def test_refused_limit_names_the_limit_of_the_controller(process_id: int) -> None:
    """fs.nr_open binds root as well."""
    too_many = 2**40
    with pytest.raises(AttributeRefusedError) as caught:
        attributes(limits={"nofile": too_many}).set_from_outside(process_id)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert caught.value.option == "limits['nofile']"
    assert f"={too_many}: Operation not permitted (the contr" in str(caught.value)
    assert f"hard limit is {hard}; more needs CAP_SYS_RESOURCE" in str(caught.value)


def test_what_is_refused_from_outside_is_left_to_the_process(
    process_id: int,
) -> None:
    found = attributes(nice=7, oom_score_adj=5, limits={"nofile": 2**40})
    rest = found.set_for_other_user(process_id)
    assert rest is not None
    assert pickle.loads(rest) == attributes(limits={"nofile": 2**40})
    assert os.getpriority(os.PRIO_PROCESS, process_id) == 7
    assert attributes(nice=7).set_for_other_user(process_id) is None


def test_process_that_has_exited_is_no_error() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    attributes(nice=7, oom_score_adj=5).set_from_outside(process.pid)
    attributes(oom_score_adj=5).set_from_outside(process.pid)
    attributes(ionice="idle").set_from_outside(process.pid)


def test_is_raised_compares_with_the_hard_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert not is_raised("nofile", hard)
    assert is_raised("nofile", hard + 1)
    assert is_raised("nofile", "unlimited")


def test_available_cpus_leaves_those_of_the_thread_unchanged() -> None:
    before = os.sched_getaffinity(0)
    assert before <= available_cpus()
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize(
    ("cpus", "text"),
    [(set(), ""), ({3}, "3"), ({0, 1}, "0-1"), ({0, 1, 2, 5, 7, 8}, "0-2,5,7-8")],
)
def test_shown_cpus_joins_neighbours(cpus: set[int], text: str) -> None:
    assert shown_cpus(cpus) == text
