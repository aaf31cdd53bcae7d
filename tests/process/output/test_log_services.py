"""Test sending lines to log services that come, go and are slow."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import trio

from tests.kits.log_services import fields_of, open_log_socket, receive
from tests.kits.output import block, run_python
from trio_supervisor.process.output.hub import open_output_hub
from trio_supervisor.process.output.log_services import LogServices
from trio_supervisor.process.output.pump import Sink

HELLO = "import sys; print('<3>hello'); print('oops', file=sys.stderr)"


def put(sink: Sink, data: bytes) -> None:
    for item in sink.render(block(data)):
        sink.destination.put(item)


async def test_lines_of_a_process_go_to_journald(tmp_path: Path) -> None:
    """And not to the output of this process; `logs` still has them."""
    path = tmp_path / "journal"
    with open_log_socket(path) as service:
        async with open_output_hub() as hub:
            output = hub.open("web.0", log_to=f"journald:{path}")
            assert await run_python(HELLO, output) == 0
            assert output.readings == []
            await hub.flush()
            found = [fields_of(receive(service)) for _ in range(2)]
            assert {e["message"] for e in hub.tail(None, 9)} == {"<3>hello", "oops"}
    shown = {entry["MESSAGE"]: entry for entry in found}
    assert shown["hello"]["PRIORITY"] == "3"
    assert shown["hello"]["TRIO_SUPERVISOR_STREAM"] == "stdout"
    assert shown["oops"]["TRIO_SUPERVISOR_STREAM"] == "stderr"
    assert shown["oops"]["TRIO_SUPERVISOR_WORKER"] == "web.0"


async def test_file_of_standard_error_beside_syslog(tmp_path: Path) -> None:
    path, file = tmp_path / "log", tmp_path / "err"
    with open_log_socket(path) as service:
        async with open_output_hub() as hub:
            log_to = f"syslog:{path}"
            await run_python(HELLO, hub.open("a", log_to=log_to, stderr=str(file)))
            await hub.flush()
            assert receive(service).endswith(b": hello")
        service.setblocking(False)
        with pytest.raises(BlockingIOError):
            receive(service)
    assert file.read_text() == "oops\n"


async def test_lines_are_kept_until_service_listens(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, services = tmp_path / "journal", LogServices()
    sink = services.open(f"journald:{path}", "web.0")
    put(sink, b"one\ntwo\n")
    await sink.destination.flush()  # returns since it fails
    assert f"cannot write to journald ({path}): No such file" in caplog.text
    with open_log_socket(path) as service, trio.fail_after(60):
        await sink.destination.flush()  # tries again now
        found = [fields_of(receive(service))["MESSAGE"] for _ in range(2)]
    assert found == ["one", "two"]
    assert caplog.messages[-1] == f"writing to journald ({path}) again"
    assert [record.levelno for record in caplog.records] == [
        logging.ERROR,
        logging.WARNING,
    ]
    services.close()


async def test_lines_that_a_slow_service_misses_are_counted(tmp_path: Path) -> None:
    """The sender does not wait for it, and the service learns how many it missed."""
    path, services, total = tmp_path / "journal", LogServices(), 20_000
    with open_log_socket(path) as service:
        sink = services.open(f"journald:{path}", "web.0")
        for number in range(0, total, 100):
            put(sink, b"".join(b"%d\n" % (number + n) for n in range(100)))
        lost = sink.destination.lost
        assert 0 < lost < total
        flushed = trio.Event()
        found = list[dict[str, str]]()

        async def flush() -> None:
            await sink.destination.flush()
            flushed.set()

        def take() -> None:
            while not found or found[-1]["MESSAGE"] != str(total - 1):
                found.append(fields_of(receive(service)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(flush)
            await trio.to_thread.run_sync(take)
    assert flushed.is_set()
    texts = [entry["MESSAGE"] for entry in found]
    notices = [text for text in texts if text.endswith(" dropped")]
    assert sum(int(text.split()[0]) for text in notices) == lost
    numbers = [int(text) for text in texts if text not in notices]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == total - lost
    services.close()


def test_service_is_open_until_last_child_releases_it(tmp_path: Path) -> None:
    services = LogServices()
    sink = services.open(f"syslog:{tmp_path}/log", "web.0")
    assert services.open(f"syslog:{tmp_path}/log", "web.1") is sink
    assert services.open("syslog:udp://127.0.0.1:9", "web.1") is not sink
    services.release("web.1")
    assert services.destinations == [sink.destination]
    services.release("web.0")
    assert services.destinations == []
