"""Test what is filled in for each worker, and what is left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.application import (
    Application,
    Command,
    Probe,
    Service,
    application_from_plain,
    application_to_plain,
)
from trio_supervisor.application.templates import (
    common_environment,
    escaped,
    fill,
    filled,
    is_template,
)
from trio_supervisor.errors import SpecError


async def work(worker: object) -> None:
    """Be a target."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{8000+index}", "8003"),
        ("{ 8000 + index * 10 }", "8030"),
        ("{(index+1)*2}", "8"),
        ("{index//2}{index%2}", "11"),
        ("{-index}", "-3"),
        ("{name} {service}-{index}", "web.3 web-3"),
        ("{{index}}", "{index}"),
        ("{{{index}}}", "{{index}}"),
    ],
)
def test_fill_replaces_expressions(text: str, expected: str) -> None:
    assert is_template(text)
    assert fill(text, "web", 3) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"a": {"b": 1}}',
        "{print $1}",
        "${PORT}",
        "[0-9]{3}",
        "{1,2}",
        "{{.Names}}",
        "{{index}",
        "a{b,c}d",
    ],
)
def test_fill_leaves_other_braces_alone(text: str) -> None:
    assert not is_template(text)
    assert fill(text, "web", 0) == text


@given(st.text(alphabet="{}a1 index+$", max_size=12))
def test_escaped_text_fills_in_as_itself(text: str) -> None:
    assert fill(escaped(text), "web", 0) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{indx}", r"unknown name 'indx' in \{indx\} \(did you mean 'index'\?\)"),
        ("{name+1}", r"cannot compute \{name\+1\}; expected name, service, index"),
        ("{index/2}", r"cannot compute"),
        ("{1 // index}", r"cannot compute"),
        ("{index index}", r"cannot compute"),
        ("{index**9}", r"cannot compute"),
        ("{print}", r"write \{\{print\}\}"),
    ],
)
def test_fill_of_wrong_expression_raises(text: str, problem: str) -> None:
    with pytest.raises(SpecError, match=problem):
        fill(text, "web", 0)


def test_command_with_wrong_expression_names_the_option() -> None:
    with pytest.raises(SpecError, match=r"^environment\['PORT'\]: unknown name 'idx'"):
        Command("web", ["x"], environment={"PORT": "{idx}"}, expand=True)
    with pytest.raises(SpecError, match=r"^arguments\[1\]: unknown name 'idx'"):
        Command("web", ["x", "{idx}"], expand=True)


def test_filled_service_has_the_values_of_its_worker() -> None:
    command = Command(
        "web",
        ["serve", "--port={8000+index}"],
        environment={"NAME": "{name}"},
        log_file="{service}-{index}.log",
        expand=True,
    )
    second = filled(command, 1)
    assert second.arguments == ("serve", "--port=8001")
    assert second.environment == {"NAME": "web.1"}
    assert second.log_file == "web-1.log"
    assert command.arguments == ("serve", "--port={8000+index}")


def test_filled_command_has_the_probes_of_its_worker() -> None:
    command = Command(
        "web",
        ["serve"],
        startup=Probe.tcp("127.0.0.1:{8000+index}"),
        readiness=Probe.http("http://127.0.0.1:{8000+index}/{name}", interval=1),
        liveness=Probe.command(["check", "{index}"]),
        expand=True,
    )
    assert str(command.readiness) == "http://127.0.0.1:{8000+index}/{name}"
    second = filled(command, 1)
    assert second.startup == Probe.tcp("127.0.0.1:8001")
    assert second.readiness == Probe.http("http://127.0.0.1:8001/web.1", interval=1)
    assert second.liveness == Probe.command(["check", "1"])
    plain = application_to_plain(Application([command]))
    assert application_to_plain(application_from_plain(plain)) == plain


def test_wrong_probe_of_worker_names_the_option() -> None:
    with pytest.raises(SpecError, match=r"^url: unknown name 'idx'"):
        Probe.http("http://h:{idx}/")
    with pytest.raises(SpecError, match=r"^address: expected HOST:PORT"):
        Probe.tcp("{index}")
    probe = Probe.tcp("h:{8000+index}")
    with pytest.raises(SpecError, match=r"^readiness: h:.* needs expand=True$"):
        Command("web", ["x"], readiness=probe)
    probe = Probe.command(["x", "{idx}"])
    with pytest.raises(SpecError, match=r"^liveness.arguments\[1\]: unknown name"):
        Command("web", ["x"], liveness=probe, expand=True)


def test_service_without_expand_keeps_its_braces() -> None:
    command = Command("web", ["echo", "{index}"])
    assert filled(command, 1) is command


def test_common_environment_is_what_all_workers_have() -> None:
    environment = {"PORT": "{8000+index}", "MODE": "{service}"}
    service = Service("web", work, environment=environment, expand=True)
    assert common_environment(service) == {"MODE": "web"}
