"""Test the unit and the Dockerfile that are printed for an application."""

from __future__ import annotations

import sys

import pytest

from tests.kits.places import ROOT
from trio_supervisor.application import Application, Command, Listen
from trio_supervisor.cli.deploy import UnitSettings, dockerfile_text, unit_text

DEPLOYMENT = ROOT / "examples" / "deployment"

APPLICATION = Application(
    [
        Command("db", ["db"], stop_timeout=30, startup_timeout=20),
        Command(
            "web",
            ["web"],
            stop_timeout=5,
            depends_on={"db": "ready"},
            log_file="logs/web.log",
            sockets={"http": Listen("tcp://:8000"), "any": Listen("tcp://:0")},
        ),
    ]
)
SETTINGS = UnitSettings(
    name="shop",
    command=["/opt/my shop/bin/python", "-m", "trio_supervisor", "serve", "/a%b.toml"],
    directory="/opt/my shop",
    user=None,
)


def test_unit_has_times_and_paths_of_the_application() -> None:
    lines = unit_text(APPLICATION, SETTINGS).splitlines()
    for line in (
        "# /etc/systemd/system/shop.service",
        'ExecStart="/opt/my shop/bin/python" -m trio_supervisor serve /a%%b.toml',
        "WorkingDirectory=/opt/my shop",
        "TimeoutStopSec=45",
        "TimeoutStartSec=90",
        "DynamicUser=yes",
        "CapabilityBoundingSet=",
        "ProtectHome=yes",
        'ReadWritePaths="/opt/my shop/logs"',
    ):
        assert line in lines


def test_unit_in_home_or_with_other_users_is_less_strict() -> None:
    application = Application([Command("a", ["a"], user="nobody")], stop_timeout=3)
    settings = UnitSettings(name="a", command=["a"], directory="/home/x", user=None)
    text = unit_text(application, settings)
    assert "\nUser=root\n" in text
    assert "\nCapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_KILL" in text
    assert "\nProtectHome=read-only\n" in text
    assert "\nTimeoutStopSec=13\n" in text
    settings = UnitSettings(name="a", command=["a"], directory="/srv", user="shop")
    assert "\nUser=shop\n" in unit_text(APPLICATION, settings)


def test_unit_with_limits_delegates_its_cgroup() -> None:
    limited = Application([Command("a", ["a"], memory_max="1 GiB")])
    text = unit_text(limited, SETTINGS)
    assert "\nDelegate=yes\n" in text
    assert "\nProtectControlGroups=no\n" in text
    text = unit_text(APPLICATION, SETTINGS)
    assert "Delegate=" not in text
    assert "\nProtectControlGroups=yes\n" in text


def test_unit_has_every_other_line_of_the_example() -> None:
    example = (DEPLOYMENT / "trio_supervisor.service").read_text().splitlines()
    ours = unit_text(APPLICATION, SETTINGS).replace("shop", "trio_supervisor")
    differs = ("#", "ExecStart", "TimeoutStopSec", "TimeoutStartSec", "Description")
    lines = ours.splitlines()
    for line in example:
        assert line in lines or line.startswith(differs), line


@pytest.mark.parametrize("install", ["", "COPY requirements.txt .\n"])
def test_dockerfile_serves_the_target(install: str) -> None:
    text = dockerfile_text(APPLICATION, "conf/my app.toml", install=install)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"FROM python:{version}-slim AS build\n" in text
    assert 'CMD ["serve", "conf/my app.toml", "--http", ":8080"' in text
    assert "\nEXPOSE 8000 8080\n" in text
    assert "    PYTHONUNBUFFERED=1 \\\n" in text
    assert install in text
