"""Test files of output that `serve` rotates itself."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from tests.kits.serving import open_serving

TOML = """
[services.chatty]
command = ["sh", "-c", '''
    n=0; while [ $n -lt 2000 ]; do n=$((n+1)); echo line $n; done
    echo oops >&2; exec sleep 1000''']
log_file = "log/chatty.log"
log_max_size = "2 kB"
log_keep = 1000
stderr_log_file = "log/chatty.err"
log_timestamps = true
"""


def lines_of(path: Path) -> list[str]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return text.decode().splitlines()


def old_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("chatty.log.*"), key=number_of, reverse=True)


def number_of(path: Path) -> int:
    return int(path.name.removeprefix("chatty.log.").partition(".")[0])


def test_log_is_rotated_and_no_line_is_lost() -> None:
    files = {"log/.keep": ""}
    with open_serving(TOML, target="supervisor.toml", files=files) as serving:
        log = serving.directory / "log"
        err, out = log / "chatty.err", log / "chatty.log"
        serving.until(lambda: "oops" in err.read_text(), "the last line")
        serving.until(lambda: "line 2000\n" in out.read_text(), "the end of it")
        serving.until(
            lambda: all(path.suffix == ".gz" for path in old_files(log)), "compression"
        )
        assert "line 2000" in serving.cli("logs", "chatty", "--tail", "3").stdout
        found = old_files(log)
        lines = [line for path in (*found, out) for line in lines_of(path)]
    assert found
    assert [line.partition(" ")[2] for line in lines] == [
        f"line {number}" for number in range(1, 2001)
    ]
    assert all(re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ", x) for x in lines)
