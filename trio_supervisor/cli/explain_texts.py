"""What `explain` says beyond the declarations: usual causes, and what to do.

The keys are codes that `explain_topics` derives from the declarations; a test sees that
each code has a text, and each text a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Advice(NamedTuple):
    """The part of a page that is written by hand. Sentences, in plain text."""

    causes: tuple[str, ...]
    remedy: tuple[str, ...]
    meaning: str = ""
    """Where the declaration has no text that says what it means."""


EXITS: Final[Mapping[str, Advice]] = {
    "exit-0": Advice((), ("Nothing.",)),
    "exit-1": Advice(
        (
            "A call was refused, or failed.",
            "`doctor` found a problem.",
            "Of `serve`: a process of another user could not be stopped.",
        ),
        ("Read the message: it is the supervisor's or the worker's.",),
    ),
    "exit-2": Advice(
        (
            "An option is misspelled, or a value is missing.",
            "Of `doctor`: no problem was found, but not all could be examined.",
        ),
        ("Run the verb with --help.",),
    ),
    "exit-129": Advice(
        ("The terminal was closed during the import of the application.",),
        ("Start `serve` under a service manager, or with nohup.",),
    ),
    "exit-130": Advice(("Ctrl-C was pressed.",), ("Nothing.",)),
    "exit-143": Advice(
        ("A service manager stopped `serve` during the import of the application.",),
        ("If the import is slow, raise TimeoutStartSec= of the systemd unit.",),
    ),
}
"""Exit codes that no error class leads to; those of errors have the errors' texts."""

ERRORS: Final[Mapping[str, Advice]] = {
    "Supervisor": Advice(
        ("This is the base of all errors: another code says more.",),
        ("Read the message, and look up the name of the error in it.",),
    ),
    "Spec": Advice(
        (
            "An option has a value of the wrong type, or outside its limits.",
            "Two options exclude each other, or one needs another.",
            "A name in depends_on is unknown, or services depend on each other in a "
            "cycle.",
            "A program, a directory, a file or a log service does not exist.",
        ),
        (
            "Correct the option that the message begins with, such as "
            "services[1].count; `explain` knows each option by its name.",
            "`check` lists all mistakes without a start.",
            "Another start does not help: let the service manager not restart after "
            "exit code 10.",
        ),
    ),
    "Target": Advice(
        (
            "The service file, or a module that it imports, raises an exception.",
            "The file has no variable `application`.",
            "The import waits or loops, and exceeds --import-timeout.",
        ),
        (
            "Correct the line that the message names.",
            "Name another variable as `service.py:app`.",
            "Move code that connects or waits from the top level of the file into the "
            "target function.",
        ),
    ),
    "SocketPath": Advice(
        (
            "The path is longer than a Unix socket permits (about 100 bytes).",
            "Its directory does not exist, or is not writable.",
            "There is a file at the path that is not a socket.",
        ),
        (
            "Name another path with --socket or TRIO_SUPERVISOR_SOCKET, such as one "
            "below /run.",
        ),
    ),
    "AlreadyServing": Advice(
        ("`serve` runs already, for this application or for another one.",),
        (
            "`status` shows the other controller; `shutdown` stops it.",
            "To run both, use another --socket.",
        ),
    ),
    "RestartLimit": Advice(
        (
            "The worker crashes again and again, and its service, group or "
            "application sets an `intensity`.",
        ),
        (
            "`logs NAME` and `post-mortem NAME` show how it ended: correct that.",
            "Remove `intensity` to have it restarted for ever, or put the service "
            "into a group of its own, so that the others keep running.",
        ),
    ),
    "SignificantService": Advice(
        ("A service with significant=True exited for good with a failure.",),
        (
            "`logs NAME` and `post-mortem NAME` show why.",
            "Remove `significant` if the others should keep running.",
        ),
    ),
    "Listen": Advice(
        (
            "Another process listens on the port; the message names it if it can.",
            "A port below 1024 needs a privilege.",
            "The address is of no interface of this machine.",
        ),
        (
            "Stop the other process, or choose another port.",
            "For a port below 1024, pass the socket from systemd, or grant "
            "CAP_NET_BIND_SERVICE.",
        ),
    ),
    "Reload": Advice(
        (
            "The new code cannot be imported, or its declaration has a mistake.",
            "A new worker exited, or was not ready within startup_timeout.",
            "A new worker needs a port or a lock that an old one still has.",
            "Its canary did worse than the old workers (rolled back: …).",
        ),
        (
            "Nothing has to be undone: the previous generation keeps running.",
            "`logs NAME` shows what the new worker printed.",
            "Set overlap=False for a service that cannot run twice at once.",
        ),
    ),
    "Platform": Advice(
        (
            "A limit such as RLIMIT_NOFILE is too low for the number of workers.",
            "SIGCHLD is ignored in the program that embeds a controller.",
            "A library that an option needs is not installed.",
            "The option needs Linux.",
        ),
        ("Do what the message says: it names the limit or the library.",),
    ),
    "Protocol": Advice(
        ("This is the base of errors of the protocol: another code says more.",),
        ("Read the message.",),
    ),
    "LocalProtocol": Advice(
        ("A bug in trio_supervisor.",),
        ("Please report it, with the message and the traceback.",),
    ),
    "RemoteProtocol": Advice(
        (
            "The other side has another version of trio_supervisor.",
            "Another program listens at the socket.",
        ),
        (
            "Compare the versions: `trio-supervisor --version`.",
            "Restart `serve` after an upgrade.",
        ),
    ),
    "LimitExceeded": Advice(
        (
            "A client sent too long a message, too many calls at once, or was silent "
            "in the middle of a message.",
        ),
        ("Send less at a time; the message names the limit.",),
    ),
    "NoSupervisor": Advice(
        (
            "`serve` does not run.",
            "It listens elsewhere: its socket is beside the service file, and a verb "
            "looks in the current directory.",
            "Its socket may be used only by its own user, and by root.",
        ),
        (
            "Set --socket or TRIO_SUPERVISOR_SOCKET to the path in the first line of "
            "its log.",
            "Run the verb as the user of `serve`.",
        ),
    ),
    "ConnectionLost": Advice(
        (
            "The supervisor was restarted, or everything was shut down.",
            "The connection was idle or too slow, and was closed.",
        ),
        (
            "Look with `status` and `events` whether the call had its effect, then "
            "repeat it.",
        ),
    ),
    "CallFailed": Advice(
        ("The message begins with the name of the error: look that up.",),
        ("Correct what the message names, and repeat the call.",),
    ),
    "DeadlineExceeded": Advice(
        (
            "New workers are not ready yet, or old ones have not stopped.",
            "The controller, the supervisor or the worker is stopped (SIGSTOP) or "
            "gets no CPU.",
        ),
        (
            "`status` shows what it waits for; the request is carried out "
            "nevertheless.",
            "Give it longer with --timeout.",
        ),
    ),
    "BadRequest": Advice(
        ("An argument is not valid; the message names it.",),
        ("Run the verb with --help, or look at the reference of operations.",),
    ),
    "UnknownOperation": Advice(
        (
            "The supervisor or the worker has an older version of trio_supervisor.",
            "The worker does not offer the operation.",
        ),
        ("Restart `serve` after an upgrade.",),
    ),
    "NoSuchWorker": Advice(
        (
            "The name is misspelled.",
            "The service was scaled down, or removed by a reload.",
        ),
        ("`status` lists all workers.",),
    ),
    "NotConnected": Advice(
        (
            "The worker is starting, stopping or in backoff.",
            "It is a `Command`, which has no connection.",
            "It executed another program.",
        ),
        (
            "Wait until the column CONNECTED of `status` says yes.",
            "`doctor` examines a process without a connection from outside.",
        ),
    ),
    "NotPermitted": Advice(
        (
            "The caller runs as another user than `serve`.",
            "The caller is a worker, or was started by one, without that right.",
        ),
        (
            "Run the verb as the user of `serve`, or as root.",
            "Permit a service the operation with `may`.",
        ),
    ),
    "SignalNotPermitted": Advice(
        ("A worker started a program as another user, for example with sudo.",),
        ("Stop the process that the message names, as its user or as root.",),
    ),
    "Unavailable": Advice(
        (
            "The supervisor is starting, or a shutdown is in progress.",
            "Output of workers is not captured, in a program that embeds a controller.",
        ),
        ("Try again after some seconds.",),
    ),
    "OperationFailed": Advice(
        ("An operation of the application raised an exception.",),
        ("`logs NAME` has the traceback.",),
    ),
    "Busy": Advice(
        ("A reload, or another examination of the worker, is in progress.",),
        ("Wait for it, or abort it with `reload --abort`.",),
    ),
    "LowMemory": Advice(
        ("The machine, or the cgroup, has too little free memory for a copy.",),
        ("Try it while the worker is smaller, or give it more memory.",),
    ),
    "Exhausted": Advice(
        ("The worker has reached its limit of descriptors, memory or processes.",),
        (
            "`doctor NAME` says what it has accumulated.",
            "Restart the worker, and raise the limit with `limits`.",
        ),
    ),
    "Snapshot": Advice(
        (
            "The process could not be forked, for lack of memory or processes.",
            "The snapshot took longer than permitted, and was killed.",
        ),
        ("Try again; the worker itself is not affected.",),
    ),
    "HeapFile": Advice(
        (
            "The file exists already, or its directory is not writable.",
            "The file is no heap dump, or was cut.",
        ),
        ("Name another file; the message says why.",),
    ),
    "ForeignServer": Advice(
        ("Another program, or another implementation, serves at the socket.",),
        ("Use only the calls that it offers, or another --socket.",),
    ),
}
"""Errors, by their name without ``Error``."""

CAUSES: Final[Mapping[str, Advice]] = {
    "exit": Advice(
        (
            "An exception left the target; the last line of output names it.",
            "The kernel killed it for lack of memory.",
            "An operator or another program sent a signal.",
        ),
        ("`logs NAME` and `post-mortem NAME` show how it ended.",),
        "The process exited on its own, or was killed by another process.",
    ),
    "spawn": Advice(
        (
            "The program does not exist, or may not be executed.",
            "The working directory, the user or an attribute is refused.",
        ),
        ("Correct what the log names; `check` tries it without a start.",),
        "The process could not be started.",
    ),
    "no_code": Advice(
        ("The fork server of a generation exited, and files have changed since.",),
        ("`reload`, so that workers run the code that the files have now.",),
        "No process has the code of this generation any more.",
    ),
    "shortage": Advice(
        ("The controller has no descriptors, processes or memory left.",),
        (
            "Raise the limit that the log names: ulimit, LimitNOFILE=, TasksMax=.",
            "It is tried again, and not counted as a crash.",
        ),
        "The process could not be started for lack of resources of the controller.",
    ),
    "startup_timeout": Advice(
        (
            "`worker.ready()` is not awaited, or something before it waits.",
            "A `Command` with notify=True does not send READY=1.",
            "A startup or readiness probe never succeeds.",
        ),
        (
            "The stack dump in the log shows where it waited.",
            "Raise startup_timeout if the start takes that long.",
        ),
        "The worker was not ready within startup_timeout, and is replaced.",
    ),
    "unhealthy": Advice(
        (
            "A call blocks the event loop: requests.get, time.sleep, a computation.",
            "A sync worker no longer calls worker.healthy().",
            "A liveness probe fails, or the process is stopped (SIGSTOP).",
        ),
        (
            "The stack dump in the log names the call: await an async version of it, "
            "or run it in a thread.",
            "`slow-tasks NAME` shows shorter stalls.",
        ),
        "No heartbeat came within health_check_timeout, and the worker is replaced.",
    ),
    "restart": Advice(
        ("An operator, or a worker that may, called `restart`.",),
        ("`events` shows when.",),
        "A restart was requested.",
    ),
    "stop": Advice(
        ("An operator called `stop`, or everything is shut down.",),
        ("`start NAME` starts it again.",),
        "A stop was requested; the worker is not restarted.",
    ),
    "scale": Advice(
        ("`scale`, or autoscaling, lowered the number of workers.",),
        ("`scale SERVICE=N` raises it again.",),
        "The service was scaled down; the worker is not restarted.",
    ),
    "reload": Advice(
        ("A reload replaced the generation of the worker.",),
        ("Nothing: a worker of the new generation has taken over.",),
        "A new generation replaced the worker.",
    ),
    "idle": Advice(
        ("No connection was open for idle_timeout (on_demand).",),
        ("Nothing: the next client starts it.",),
        "The worker was not needed, and starts again on demand.",
    ),
    "lifetime": Advice(
        ("The worker reached max_lifetime.",),
        ("Nothing; raise or remove max_lifetime to replace workers less often.",),
        "The worker was replaced because of its age.",
    ),
    "monitor": Advice(
        ("A figure, such as memory, exceeds the limit of a monitor.",),
        (
            "`doctor NAME` and `memory-sample NAME` say what grows.",
            "Raise the limit if a healthy worker needs that much.",
        ),
        "A monitor requested a restart.",
    ),
    "worker": Advice(
        ("The worker called `worker.request_restart()`.",),
        ("Nothing; the log has the reason that it gave.",),
        "The worker requested its own restart.",
    ),
    "group": Advice(
        ("Another worker of its group crashed, and the strategy restarts both.",),
        ("Look at the worker that crashed: `events` names it.",),
        "The worker is restarted together with its group.",
    ),
}
"""Causes of exits and restarts, by their value in events."""

FINDINGS: Final[Mapping[str, Advice]] = {
    "ended": Advice(
        ("It crashed, or was restarted or stopped on request.",),
        (
            "`post-mortem NAME` shows how it ended.",
            "`doctor NAME` examines the process that runs now.",
        ),
        "The process exited while it was examined.",
    ),
    "down": Advice(
        ("The worker was stopped, is in a crash loop, or waits for another service.",),
        ("`status` says why; `start NAME` starts it.",),
        "The worker has no process.",
    ),
    "stopped": Advice(
        ("SIGSTOP, a debugger, Ctrl-Z or a frozen container.",),
        ("`kill -CONT PID` lets it go on.",),
        "The process is stopped by a signal; none of its code runs.",
    ),
    "deadlock": Advice(
        ("Two threads take the same locks in different order.",),
        (
            "Always take locks in the same order, or take one lock for both.",
            "Restart the worker: a deadlock does not resolve itself.",
        ),
        "Threads wait for each other's locks for ever.",
    ),
    "stuck": Advice(
        (
            "A blocking call in the event loop: a lock, a socket, a file system.",
            "C code holds the GIL.",
        ),
        ("Await an async version of the call, or run it in a thread.",),
        "The main thread waits in one call, and the event loop does not run.",
    ),
    "spinning": Advice(
        ("An endless loop, or one without an await.", "A regular expression."),
        ("Bound the loop, or move the computation into a process or thread.",),
        "The main thread computes, and the event loop does not run.",
    ),
    "garbage": Advice(
        ("Code creates very many objects, or calls gc.collect() often.",),
        (
            "`garbage-profile NAME` shows all pauses.",
            "Call gc.freeze() after the start, or raise gc.set_threshold().",
        ),
        "Garbage collection takes much of the time.",
    ),
    "lag": Advice(
        ("A call blocks the event loop for a short time, again and again.",),
        (
            "`slow-tasks NAME` shows the calls: await an async version, or run them "
            "in a thread.",
        ),
        "The event loop was blocked for a while; all tasks waited.",
    ),
    "tasks": Advice(
        ("Tasks wait for what never happens, or are started faster than they end.",),
        ("Give each wait a deadline, and limit the number of tasks.",),
        "The number of tasks grows.",
    ),
    "threads": Advice(
        ("A thread for each request, without a limit.",),
        ("Use a pool of bounded size.",),
        "The number of threads grows.",
    ),
    "descriptors": Advice(
        (
            "Files or sockets are not closed.",
            "Connections that the peer has closed are kept.",
        ),
        (
            "Open them in a `with` block; `descriptors NAME` lists them.",
            "Raise RLIMIT_NOFILE if it needs that many.",
        ),
        "The worker accumulates file descriptors, or is near its limit.",
    ),
    "leak": Advice(
        ("A cache without a limit, or a list that only grows.",),
        (
            "Bound its size, or remove entries you no longer need.",
            "`memory-sample NAME --duration 30` shows which objects are retained.",
        ),
        "Memory grows without being freed.",
    ),
    "memory": Advice(
        ("The worker, or its machine or cgroup, will soon have no free memory.",),
        (
            "Set a limit with MemoryMonitor, so that the worker is replaced in time.",
            "`doctor NAME --duration 30` finds what grows.",
        ),
        "Free memory runs out soon.",
    ),
}
"""Findings of `doctor`, by their kind."""
