"""Test programs and web hooks that real events of a real application reach."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from tests.kits.serving import open_serving

TOML = """
[[on_event]]
exec = ["sh", "-c", 'echo "$EVENT_TYPE|$EVENT_NAME|$EVENT" >> told']
names = ["bad"]
types = ["exited"]

[[on_event]]
webhook = "http://127.0.0.1:PORT/hooks/secret"
types = ["exited", "stopped"]

[[on_event]]
exec = ["./no-such-program"]
types = ["serving"]

[services.bad]
command = ["sh", "-c", "echo boom >&2; exit 3"]
restart = "never"
success_exit_codes = [0, 3]
"""


class Receiver:
    """A web server that refuses the first request."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, object]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.bodies.append({"path": self.path, **json.loads(body)})
                self.send_response(500 if len(receiver.bodies) == 1 else 204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        thread.join()
        receiver.server.server_close()


def test_program_and_web_hook_are_told() -> None:
    with receiving() as receiver:
        port = str(receiver.server.server_port)
        text = TOML.replace("PORT", port)
        with open_serving(text, target="supervisor.toml") as serving:
            told = serving.directory / "told"
            serving.until(lambda: told.exists() and told.read_text(), "the program")
            kind, name, event = told.read_text().strip().split("|", 2)
            assert (kind, name) == ("exited", "bad.0")
            assert json.loads(event)["last_line"] == "boom"
            serving.until(lambda: len(receiver.bodies) >= 2, "a second attempt")
            serving.process.send_signal(signal.SIGTERM)
            assert serving.wait_exit() == 0
            log = serving.text
    first, second, *_ = receiver.bodies
    assert first == second
    assert first["path"] == "/hooks/secret"
    assert (first["event"], first["name"]) == ("exited", "bad.0")
    assert receiver.bodies[-1]["event"] == "stopped"
    assert "secret" not in log


def test_program_that_cannot_be_started_is_logged() -> None:
    text = TOML.replace("PORT", "9")
    with open_serving(text, target="supervisor.toml") as serving:
        line = serving.wait_line("event hook ./no-such-program failed 5 times: ")
        assert "event serving of controller is not told" in line
