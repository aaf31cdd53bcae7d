"""A policy of the application decides about real workers."""

from __future__ import annotations

from tests.kits.serving import open_serving

SERVICE = """
import os
import trio
from trio_supervisor import Application, Command, Policy, Service

def say(*words):
    # In one piece: other processes write to the same stream.
    os.write(2, (" ".join(map(str, words)) + "\\n").encode())

class OwnPolicy(Policy):
    async def worker_started(self, worker):
        say("policy: started", worker.name, worker.incarnation)

    async def worker_exited(self, worker, ending):
        how = ending.reason, ending.last_line
        say("policy: exited", worker.name, *how)
        match worker.service:
            case "left":
                return "leave"
            case "again":
                return "restart"
            case "broken":
                raise ValueError("a mistake in the policy")
            case "stuck":
                await trio.sleep_forever()

    async def startup_failed(self, worker, problem):
        say("policy: startup", worker.name, problem)
        if not os.path.exists("enough"):
            return "keep"

    async def health_check_failed(self, worker, problem):
        say("policy: health", worker.name, problem)
        if not os.path.exists("enough"):
            return "keep"

async def hang(worker):
    await worker.ready()
    os.write(1, b"hanging\\n")
    while not os.path.exists("enough"):
        __import__("time").sleep(0.05)
    __import__("time").sleep(1000)

END = ["sh", "-c", "while ! test -e go; do sleep 0.05; done; echo bye; exit 3"]
application = Application(
    [
        Command("left", END, backoff=None),
        Command("broken", END),
        Command("stuck", END),
        Command("again", ["sh", "-c", "exit 0"], restart="never"),
        Command("slow", ["sleep", "1000"], notify=True, startup_timeout=1),
        Service("hang", hang, health_check_timeout=1, stop_timeout=0.5),
    ],
    policy=OwnPolicy(),
)
"""


def test_policy_decides_and_its_failures_decide_nothing() -> None:
    with open_serving(SERVICE, is_ready=False) as serving:
        serving.wait_line("policy: started left.0 1")
        (serving.directory / "go").touch()

        serving.wait_line("policy: exited left.0 exit code 3 bye")
        serving.wait_line("exited with code 3 (pid ")
        serving.until(lambda: "not restarting (policy)" in serving.text, "the verdict")
        serving.wait_worker("left.0", state="failed")
        # Restarted although restart="never", with its backoff.
        serving.until(lambda: serving.worker("again.0")["restarts"] > 3, "restarts")
        serving.wait_line("worker_exited(broken.0) failed; it decides nothing")
        serving.until(lambda: serving.worker("broken.0")["restarts"] > 0, "a restart")
        serving.wait_line("worker_exited(stuck.0) took longer than 1 s")
        serving.until(lambda: serving.worker("stuck.0")["restarts"] > 0, "a restart")

        serving.wait_line("policy: startup slow.0 not ready after 1 s")
        serving.wait_line("policy: health hang.0 no heartbeat for 1 s")
        kept = serving.pids("slow", "hang")
        mark = serving.mark()
        serving.wait_line("policy: startup slow.0", since=mark)
        serving.wait_line("policy: health hang.0", since=mark)
        assert serving.pids("slow", "hang") == kept

        (serving.directory / "enough").touch()
        serving.wait_worker("slow.0", incarnation=2)
        serving.wait_worker("hang.0", incarnation=2)


def test_policy_of_a_file_of_toml() -> None:
    files = {
        "own.py": SERVICE.partition("async def hang")[0],
    }
    toml = """
policy = "own:OwnPolicy"
[services.left]
command = ["sh", "-c", "exit 3"]
"""
    with open_serving(
        toml, target="supervisor.toml", files=files, is_ready=False
    ) as serving:
        serving.wait_line("not restarting (policy)")
        serving.wait_worker("left.0", state="failed")


def test_without_a_supervisor_the_options_decide() -> None:
    with open_serving(SERVICE, is_ready=False) as serving:
        serving.wait_line("policy: started left.0 1")
        serving.wait_worker("hang.0")
        serving.kill("supervisor")
        (serving.directory / "go").touch()
        # Another supervisor is there within the time in which it can be asked.
        serving.wait_line("policy: exited left.0 exit code 3")
        serving.wait_worker("left.0", state="failed")
