"""Convert a configuration of pm2 to TOML."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from attrs import define

from trio_supervisor.config.files import read_text
from trio_supervisor.config.javascript import JavaScriptError, read_literal
from trio_supervisor.config.javascript_values import is_number, text_of
from trio_supervisor.config.toml_writer import Section, literal, table_name
from trio_supervisor.errors import SpecError, TargetError

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
# By the extension of the script, as lib/API/interpreter.json of pm2 has it.
_INTERPRETERS: Final[Mapping[str, str]] = {
    ".js": "node",
    ".cjs": "node",
    ".mjs": "node",
    ".ts": "ts-node",
    ".sh": "bash",
    ".py": "python",
    ".rb": "ruby",
    ".php": "php",
    ".pl": "perl",
}
_WITHOUT: Final[Mapping[str, str]] = {
    "watch": "serve --watch reloads when Python code or the configuration changes",
    "ignore_watch": "see watch",
    "watch_delay": "see watch",
    "max_restarts": "a service is retried for ever, with growing delays; for a limit, "
    "use intensity",
    "cron_restart": "for a maximum age, use max_lifetime",
    "cron": "for a maximum age, use max_lifetime",
    "wait_ready": "process.send('ready') is not heard; use readiness = { http = ... }, "
    "or notify = true and READY=1",
    "log_type": "serve --log-format json",
    "namespace": "groups: [groups.NAME] with children",
    "source_map_support": "node --enable-source-maps",
    "pid_file": "`trio-supervisor status --json` has the pids",
    "pid": "`trio-supervisor status --json` has the pids",
    "post_update": "no equivalent",
    "shutdown_with_message": "the program gets stop_signal",
    "instance_var": "see environment",
    "filter_env": "the environment of serve is inherited",
}
_DROPPED: Final = ("merge_logs", "combine_logs", "vizion", "automation", "pmx", "force")
_MOST_MILLISECONDS: Final = 1e12
_TARGETS: Final = ("apps", "deploy")
_WITH_TIMES: Final = ("time", "log_date_format")
_SIZE: Final = re.compile(r"(\d+)\s*([KMG]?)B?", re.IGNORECASE)
_DURATION: Final = re.compile(r"(\d+)(h|m|s)?")


def convert_pm2(path: str) -> str:
    """Return the ecosystem file *path* of pm2, JavaScript or JSON, as TOML.

    Raises:
        TargetError: it cannot be read: see `read_literal`.
        SpecError: a value is malformed.
    """
    text = read_text(os.path.abspath(path), path)
    try:
        document = read_literal(text)
    except JavaScriptError as exc:
        raise TargetError(f"{path}, {exc}") from None
    if isinstance(document, list):
        document = {"apps": document}
    if not isinstance(document, dict):
        raise SpecError(path, "expected an object or a list of applications")
    if "apps" not in document and "script" in document:
        document = {"apps": [document]}
    apps = document.get("apps")
    apps = [apps] if isinstance(apps, dict) else apps
    if not isinstance(apps, list) or not all(isinstance(each, dict) for each in apps):
        raise SpecError(f"{path}: apps", "expected a list of objects")
    head = Section()
    head.note(
        f"Converted from {os.path.basename(path)}; check it: trio-supervisor check"
    )
    if "process.env" in text:
        head.note("process.env was taken as empty; what it has here is inherited")
    parts = [head]
    names: set[str] = set()
    for number, app in enumerate(apps):
        parts += _App(f"apps[{number}]", dict(app), names).sections()
    for key, value in document.items():
        if key not in _TARGETS:
            head.note(f"{key}: no equivalent: {value!r:.60}")
    if "deploy" in document:
        head.note("deploy: no equivalent; see docs/deployment.md for releases")
    return "\n".join(map(str, parts))


@define
class _App:
    _where: str
    _app: dict[str, Any]
    _names: set[str]

    def sections(self) -> list[Section]:
        """Return the table of the service, with comments."""
        name = self._name()
        section = Section(table_name("services", name))
        section.set("command", self._command())
        self._processes(section)
        self._environment(section)
        self._restarts(section)
        self._times(section)
        self._output(section)
        take = self._app.pop
        for ours, theirs in (("directory", "cwd"), ("user", "uid"), ("group", "gid")):
            alias = take("user", None) if theirs == "uid" else None
            if (value := take(theirs, alias)) is not None:
                text = value if isinstance(value, int) else literal(str(value))
                section.set(ours, text)
        self._memory(section)
        if take("treekill", True) is False:
            section.set("kill_mode", "leader")
        for key, value in self._app.items():
            if key in _DROPPED or (value in (False, None) and key in _WITHOUT):
                continue
            shown = json.dumps(value, ensure_ascii=False)
            section.note(f"{key} = {shown:.60}: {_WITHOUT.get(key, 'no equivalent')}")
        return [section]

    def _name(self) -> str:
        script = str(self._app.get("script", "app"))
        given = str(
            self._app.pop("name", os.path.splitext(os.path.basename(script))[0])
        )
        name = _NO_NAME.sub("-", given).strip("-_") or "app"
        number = 2
        base = name
        while name in self._names:
            name, number = f"{base}-{number}", number + 1
        self._names.add(name)
        return name

    def _command(self) -> list[str]:
        take = self._app.pop
        script = take("script", None)
        if not isinstance(script, str) or not script.strip():
            raise SpecError(f"{self._where}.script", "expected the path of a program")
        given = take("interpreter", take("exec_interpreter", None))
        options = self._words("interpreter_args") or self._words("node_args")
        self._app.pop("node_args", None)
        words = [script]
        if " " in script and given is None and not os.path.exists(script):
            words = shlex.split(script)  # "npm start", as pm2 runs it in a shell
        extension = os.path.splitext(script)[1]
        if given is None and len(words) == 1:
            given = _INTERPRETERS.get(extension)
        if given not in (None, "none", ""):
            words = [str(given), *options, *words]
        words += self._words("args")
        return [literal(word) for word in words]

    def _words(self, key: str) -> list[str]:
        value = self._app.pop(key, None)
        if isinstance(value, list):
            return [text_of(each) for each in value if each is not None]
        try:
            return [] if value is None else shlex.split(str(value))
        except ValueError as exc:
            raise SpecError(f"{self._where}.{key}", str(exc).lower()) from None

    def _processes(self, section: Section) -> None:
        instances = self._app.pop("instances", None)
        instances = 1 if instances is None else instances
        mode = str(self._app.pop("exec_mode", "fork"))
        try:
            count = int(instances)
        except (TypeError, ValueError, OverflowError):
            count = 0
        if count < 1:
            note = f"instances = {instances}: one for each CPU has no equivalent"
            section.set("count", "${WEB_CONCURRENCY:-4}", note)
        elif count > 1:
            section.set("count", count)
        if mode.startswith("cluster"):
            section.note(
                f"exec_mode = {mode}: processes do not share a port of their own; give "
                f"each one, such as {{8000+index}}, or sockets (LISTEN_FDS)"
            )

    def _environment(self, section: Section) -> None:
        variables = self._app.pop("env", None) or {}
        if not isinstance(variables, dict):
            raise SpecError(f"{self._where}.env", "expected an object")
        # Without a value, as of process.env: it is inherited.
        known = {key: value for key, value in variables.items() if value is not None}
        found = {key: _text(value) for key, value in known.items()}
        increment = self._app.pop("increment_var", None)
        if increment in found and re.fullmatch(r"\d+", found[increment]):
            found[increment] = f"{{{found[increment]}+index}}"
        variable = self._app.pop("instance_var", "NODE_APP_INSTANCE")
        found[str(variable)] = "{index}"
        section.set("environment", found)
        for key in [each for each in self._app if each.startswith("env_")]:
            value = self._app.pop(key)
            if key == "env_file":
                section.set(key, value)
                continue
            names = ", ".join(value) if isinstance(value, dict) else str(value)
            note = "no equivalent; use another file, or ${VAR:-default}"
            section.note(f"{key} ({names}): {note}")

    def _restarts(self, section: Section) -> None:
        take = self._app.pop
        if take("autorestart", True) is False:
            cron = take("cron_restart", take("cron", None))
            if isinstance(cron, str) and cron:
                section.set("schedule", {"cron": cron}, "it runs at these times only")
            else:
                section.set("restart", "never")
        if codes := take("stop_exit_codes", None):
            section.set("give_up_on", codes if isinstance(codes, list) else [codes])
        backoff: dict[str, float] = {}
        if delay := take("exp_backoff_restart_delay", None):
            backoff["base"] = self._milliseconds("exp_backoff_restart_delay", delay)
        elif delay := take("restart_delay", None):
            seconds = self._milliseconds("restart_delay", delay)
            backoff |= {"base": seconds, "cap": seconds}
        self._app.pop("restart_delay", None)
        if uptime := take("min_uptime", None):
            backoff["stable_after"] = self._milliseconds("min_uptime", uptime)
        if backoff:
            section.set("backoff", backoff, "delays are random up to this length")

    def _times(self, section: Section) -> None:
        if (value := self._app.pop("kill_timeout", None)) is not None:
            seconds = self._milliseconds("kill_timeout", value)
            section.set("stop_timeout", seconds)
        if (value := self._app.pop("listen_timeout", None)) is not None:
            seconds = self._milliseconds("listen_timeout", value)
            section.set("startup_timeout", seconds)
        section.set("stop_signal", "INT", "as pm2 does")

    def _milliseconds(self, key: str, value: Any) -> float:
        """Return *value*, milliseconds or a text such as ``10s``, in seconds."""
        if is_number(value) and 0 <= value < _MOST_MILLISECONDS:
            return float(value) / 1000
        match = _DURATION.fullmatch(str(value))
        if match is None:
            problem = f"expected milliseconds, got {value!r:.40}"
            raise SpecError(f"{self._where}.{key}", problem)
        factor = {"h": 3600.0, "m": 60.0, "s": 1.0, None: 1e-3}[match[2]]
        return int(match[1]) * factor

    def _output(self, section: Section) -> None:
        found = {}
        for key, keys in (
            ("both", ("log_file", "log")),
            ("log_file", ("out_file", "output", "out")),
            ("stderr_log_file", ("error_file", "error", "err_file")),
        ):
            values = [self._app.pop(each, None) for each in keys]
            found[key] = next((v for v in values if isinstance(v, str)), "")
        files = {k: v for k, v in found.items() if v not in ("", "/dev/null", "NULL")}
        both = files.pop("both", None)
        if both is not None and files:
            section.note(f"{both}: output goes to the files of its streams")
        elif both is not None:
            files["log_file"] = both
        for key, file in files.items():
            if key == "log_file" or file != files.get("log_file"):
                section.set(key, literal(file))
        times = [self._app.pop(key) for key in _WITH_TIMES if key in self._app]
        if files and any(times):
            section.set("log_timestamps", True)

    def _memory(self, section: Section) -> None:
        value = self._app.pop("max_memory_restart", None)
        if value is None:
            return
        match = _SIZE.fullmatch(str(value))
        if match is None:
            problem = f"expected a size such as 300M, got {value!r:.40}"
            raise SpecError(f"{self._where}.max_memory_restart", problem)
        size = int(match[1]) * 1024 ** " KMG".index(match[2].upper() or " ")
        section.note(
            f"max_memory_restart = {value}: for all services, [[monitors]] target = "
            f'"trio_supervisor:MemoryMonitor", maximum_size_limit = {size}'
        )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return literal(str(value))
