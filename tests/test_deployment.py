"""Test the files of examples/deployment with the tools that read them."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kits.places import ROOT

DEPLOYMENT = ROOT / "examples" / "deployment"
UNIT = "trio_supervisor.service"
SOCKET = "trio_supervisor.socket"
LIMIT = 60
# systemd 253 added Type=notify-reload, as docs/deployment.md says.
_NEW_TYPE = 253

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd here"
)


def _analyze(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", *words], capture_output=True, text=True, timeout=LIMIT
    )


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Write both units with an existing interpreter, for the installed systemd."""
    unit = (DEPLOYMENT / UNIT).read_text()
    unit = unit.replace("/opt/application/venv/bin/python", sys.executable)
    found = re.search(r"systemd (\d+)", _analyze("--version").stdout)
    if found is None or int(found[1]) < _NEW_TYPE:
        unit = unit.replace("Type=notify-reload", "Type=notify")
    (tmp_path / UNIT).write_text(unit)
    shutil.copy(DEPLOYMENT / SOCKET, tmp_path)
    return tmp_path


@needs_systemd
def test_systemd_analyze_finds_no_mistake_in_units(units: Path) -> None:
    """It exits with 0 for most mistakes and only prints them."""
    done = _analyze("verify", "--man=no", str(units / UNIT), str(units / SOCKET))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_analyze_finds_planted_mistake(units: Path) -> None:
    """Otherwise the previous test would prove nothing."""
    path = units / UNIT
    path.write_text(path.read_text().replace("KillMode=mixed", "KillMode=mixd"))
    assert "mixd" in _analyze("verify", "--man=no", str(path)).stderr


@needs_systemd
def test_systemd_analyze_rates_unit_safe(units: Path) -> None:
    """The exposure is at most 2.0 of 10; the rest is the network and users."""
    words = ["security", "--offline=true", "--threshold=20", str(units / UNIT)]
    done = _analyze(*words)
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip("this systemd cannot judge a file")
    assert done.returncode == 0, done.stdout


def _documents() -> list[dict[str, Any]]:
    yaml = pytest.importorskip("yaml")
    return list(yaml.safe_load_all((DEPLOYMENT / "kubernetes.yaml").read_text()))


KINDS = [
    ("Deployment", "shop-web"),
    ("Service", "shop-web"),
    ("PodDisruptionBudget", "shop-web"),
    ("HorizontalPodAutoscaler", "shop-web"),
    ("Deployment", "shop-jobs"),
]


def test_manifest_has_documented_objects() -> None:
    found = [(it["kind"], it["metadata"]["name"]) for it in _documents()]
    assert found == KINDS


@pytest.mark.parametrize("index", range(len(KINDS)))
def test_manifest_is_valid_by_schema(index: int) -> None:
    """By the published schema of Kubernetes, unknown fields are mistakes."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    document = _documents()[index]
    version = kubernetes_validate.latest_version()
    kubernetes_validate.validate(document, version, strict=True)
    document["spec"]["nosuchfield"] = 1
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(document, version, strict=True)


DEPLOYMENTS = ["shop-web", "shop-jobs"]
PROBES = {
    "startupProbe": ("startup", "/startupz"),
    "readinessProbe": ("readiness", "/readyz"),
    "livenessProbe": ("liveness", "/livez"),
}


def _deployment(name: str) -> dict[str, Any]:
    [found] = [
        document["spec"]
        for document in _documents()
        if (document["kind"], document["metadata"]["name"]) == ("Deployment", name)
    ]
    return dict(found)


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_comply_with_restricted_standard(name: str) -> None:
    """Only /tmp is writable, beside the "restricted" Pod Security Standard."""
    pod = _deployment(name)["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert all(volume.keys() == {"name", "emptyDir"} for volume in pod["volumes"])
    [container] = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_pods_match_selectors(name: str) -> None:
    spec = _deployment(name)
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels
    others = [_deployment(other) for other in DEPLOYMENTS if other != name]
    assert all(other["selector"]["matchLabels"] != labels for other in others)


@pytest.mark.parametrize("field", PROBES)
def test_each_probe_checks_its_kind(field: str) -> None:
    """It uses HTTP if there is a port, otherwise the command."""
    kind, path = PROBES[field]
    [web] = _deployment("shop-web")["template"]["spec"]["containers"]
    assert web[field]["httpGet"] == {"path": path, "port": "health"}
    ports = {port["name"]: port["containerPort"] for port in web["ports"]}
    assert f":{ports['health']}" == web["args"][web["args"].index("--http") + 1]
    [jobs] = _deployment("shop-jobs")["template"]["spec"]["containers"]
    command = ["python", "-m", "trio_supervisor", "probe", kind]
    assert jobs[field]["exec"] == {"command": command}


def test_entrypoint_runs_controller_directly() -> None:
    """In the string form a shell would be process 1 and not pass SIGTERM on."""
    lines = (DEPLOYMENT / "Dockerfile").read_text().splitlines()
    assert 'ENTRYPOINT ["python", "-m", "trio_supervisor"]' in lines
    [user] = [line for line in lines if line.startswith("USER ")]
    assert re.fullmatch(r"USER [1-9]\d*:[1-9]\d*", user)


# Process 1, a read-only root, a user without a name, and no home directory.
_CONTAINER = """
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mount -o remount,bind,ro /
test ! -w /
cd "$2"
exec unshare --user --map-user=54321 --map-group=54321 env -i PATH="$PATH" \
    TMPDIR="$1" TRIO_SUPERVISOR_SOCKET="$1/supervisor.ipc" \
    PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH="$2" \
    "$3" -m trio_supervisor serve examples/getting_started/service.py
"""
_UNSHARE = (
    *("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child"),
    *("--mount", "--mount-proc"),
)


@pytest.fixture
def container() -> Iterator[subprocess.Popen[str]]:
    """Run a controller in an environment like that of a container."""
    words = [*_UNSHARE, "sh", "-c", _CONTAINER, "sh"]
    with tempfile.TemporaryDirectory(prefix="ts") as writable:
        probe = [*words[: len(_UNSHARE)], "mount", "-t", "tmpfs", "tmpfs", writable]
        tried = shutil.which("unshare") and subprocess.run(
            probe, capture_output=True, timeout=LIMIT
        )
        if not tried or tried.returncode:
            pytest.skip("no namespaces here")
        with subprocess.Popen(
            [*words, writable, str(ROOT), sys.executable],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def test_controller_in_container_starts_and_stops(
    container: subprocess.Popen[str],
) -> None:
    """It becomes ready and stops in order when process 1 gets SIGTERM."""
    assert container.stderr
    said = []
    for line in container.stderr:
        said.append(line)
        if "all 4 workers ready" in line:
            [inside] = _children(container.pid)
            os.kill(inside, signal.SIGTERM)
    assert container.wait(LIMIT) == 0, "".join(said)
    assert "(pid 1)" in said[0]
    assert "everything stopped" in said[-1]


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]
