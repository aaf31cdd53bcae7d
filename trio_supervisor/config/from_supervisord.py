"""Convert a configuration of supervisord to TOML. Pure but for `read_sections`."""

from __future__ import annotations

import configparser
import glob
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from attrs import define, field

from trio_supervisor.application.process_checks import Octal
from trio_supervisor.config.files import read_text
from trio_supervisor.config.supervisord_values import Expander, boolean, pairs_of
from trio_supervisor.config.toml_writer import Section, table_name
from trio_supervisor.errors import SpecError, TargetError

_SEPARATE: Final = "fcgi-program"
_KINDS: Final = ("program", _SEPARATE)
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
_ELSEWHERE: Final = (
    ("unix_http_server", "the supervisor's socket is `serve --socket`"),
    ("inet_http_server", "for health checks, use `serve --http`"),
    ("supervisorctl", "use the verbs of trio-supervisor, such as status and restart"),
    ("rpcinterface", "clients use the supervisor's socket: docs/protocol.md"),
    ("eventlistener", "follow `trio-supervisor events -f --json`, or write a monitor"),
    ("supervisord", "options of `serve`, or of the service manager that runs it"),
    ("ctlplugin", "no equivalent"),
)
_WITHOUT: Final[Mapping[str, str]] = {
    "priority": "services start in parallel; for an order, use depends_on",
    "startretries": "a service is retried for ever, with growing delays; for a limit, "
    "use intensity",
    "stdout_syslog": 'log_to = "syslog" sends output there, instead of to a file',
    "stderr_syslog": 'log_to = "syslog" sends output there, instead of to a file',
    "process_name": "processes are called NAME.0, NAME.1 ...",
}
_SIZE: Final = re.compile(r"([0-9]+) *([KMG]?)B?", re.IGNORECASE)
_DEFAULT_SIZE: Final = "50MB"
_NO_FILE: Final = ("none", "auto", "/dev/null", "/dev/stdout", "/dev/stderr", "syslog")

Sections = dict[str, dict[str, str]]


def convert_supervisord(path: str) -> str:
    """Return the supervisord configuration *path*, and what it includes, as TOML.

    Raises:
        TargetError: a file cannot be read, or is malformed.
        SpecError: a value is malformed.
    """
    sections = read_sections(path)
    conversion = _Conversion(os.path.dirname(os.path.abspath(path)), sections)
    return conversion.text(os.path.basename(path))


def read_sections(path: str, *, is_main: bool = True) -> Sections:
    """Return the sections of *path* and of the files that it includes.

    Raises:
        TargetError: a file cannot be read, or is malformed.
    """
    parser = configparser.RawConfigParser(
        strict=False,
        delimiters=("=", ":"),
        inline_comment_prefixes=(" ;", "\t;"),
        interpolation=None,
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    text = "\n".join(
        re.sub(r"\s+;.*$", "", line)
        for line in read_text(os.path.abspath(path), path).splitlines()
    )
    try:
        parser.read_string(text)
    except configparser.Error as exc:
        line = getattr(exc, "lineno", None) or next(
            (number for number, _ in getattr(exc, "errors", ())), 1
        )
        what = str(exc).splitlines()[0].partition(":")[0]
        raise TargetError(f"{path}, line {line}: {what}") from None
    found = {name: dict(parser.items(name)) for name in parser.sections()}
    included = found.pop("include", {}) if is_main else {}
    here = os.path.dirname(os.path.abspath(path))
    for pattern in included.get("files", "").split():
        full = os.path.join(here, pattern.replace("%(here)s", here))
        for each in sorted(glob.glob(full)):
            found |= read_sections(each, is_main=False)
    return found


@define
class _Conversion:
    _here: str
    _sections: Sections
    _names: dict[str, str] = field(factory=dict)
    """Names of services, by those of programs."""

    def text(self, source: str) -> str:
        parts = [Section()]
        parts[0].note(f"Converted from {source}; check it: trio-supervisor check")
        parts.append(self._global())
        for name, options in self._ordered():
            kind, _, own = name.partition(":")
            parts.append(self._program(kind, own.strip(), options))
        for name, options in self._sections.items():
            kind, _, own = name.partition(":")
            if kind == "group":
                parts.append(self._group(own.strip(), options))
            elif kind not in (*_KINDS, "supervisord"):
                parts.append(_commented(name, options, _reason(kind)))
        return "\n".join(str(part) for part in parts if str(part).strip())

    def _ordered(self) -> list[tuple[str, dict[str, str]]]:
        """Return the sections of programs in the order of their priority."""
        found = [
            (name, options)
            for name, options in self._sections.items()
            if name.partition(":")[0] in _KINDS
        ]
        return sorted(found, key=lambda each: _priority(each[1]))

    def _global(self) -> Section:
        options = dict(self._sections.get("supervisord", {}))
        environment = options.pop("environment", None)
        section = _commented("supervisord", options, _reason("supervisord"))
        if environment is None:
            return section if options else Section()
        variables = Section("env")
        expander = Expander({"here": self._here})
        for key, value in _pairs("supervisord", environment).items():
            variables.set(key, expander.text(value))
        if options:
            for line in str(section).splitlines():
                variables.note(line.removeprefix("# "))
        return variables

    def _group_of(self, program: str) -> str:
        for name, options in self._sections.items():
            if name.startswith("group:") and program in _programs(options):
                return name.partition(":")[2].strip()
        return program

    def _program(self, kind: str, name: str, options: dict[str, str]) -> Section:
        service = _NO_NAME.sub("-", name).strip("-") or "service"
        self._names[name] = service
        section = Section(table_name("services", service))
        if service != name:
            section.note(f"[{kind}:{name}]: a name has letters, digits, '-' and '_'")
        program = _Program(
            f"{kind}:{name}",
            dict(options),
            section,
            Expander(
                {
                    "program_name": name,
                    "group_name": self._group_of(name),
                    "here": self._here,
                },
                _number(f"{kind}:{name}", options, "numprocs_start", 0),
            ),
        )
        program.write(is_fcgi=kind == _SEPARATE)
        return section

    def _group(self, name: str, options: dict[str, str]) -> Section:
        section = Section(table_name("groups", _NO_NAME.sub("-", name)))
        programs = _programs(options)
        section.set("children", [self._names.get(each, each) for each in programs])
        missing = [each for each in programs if each not in self._names]
        if missing:
            section.note(f"unknown programs: {', '.join(missing)}")
        for key, value in options.items():
            if key != "programs":
                section.note(f"{key} = {value}: {_WITHOUT.get(key, 'no equivalent')}")
        return section


@define
class _Program:
    _where: str
    _options: dict[str, str]
    _section: Section
    _expander: Expander

    def write(self, *, is_fcgi: bool) -> None:
        """Write the table of the service."""
        section, take = self._section, self._options.pop
        self._command(is_fcgi)
        for key, write in _WRITERS.items():
            if key in self._options:
                try:
                    write(self, take(key))
                except ValueError as exc:
                    raise SpecError(f"[{self._where}] {key}", str(exc)) from None
        self._restart()
        if is_fcgi:
            self._socket()
        self._output()
        for note in dict.fromkeys(self._expander.notes):
            section.note(note)
        for key, value in self._options.items():
            section.note(f"{key} = {value}: {_WITHOUT.get(key, 'no equivalent')}")

    def _command(self, is_fcgi: bool) -> None:
        if "command" not in self._options:
            raise SpecError(f"[{self._where}]", "has no command")
        try:
            words = self._expander.words(self._options.pop("command"))
        except ValueError as exc:
            problem = str(exc).lower()
            raise SpecError(f"[{self._where}] command", problem) from None
        if is_fcgi:
            words = ["sh", "-c", 'exec "$0" "$@" <&3', *words]
            note = "the socket is descriptor 3 here; FastCGI expects it as 0"
            self._section.set("command", words, note)
            return
        self._section.set("command", words)

    def _count(self, value: str) -> None:
        count = int(value)
        if count != 1:
            self._section.set("count", count)

    def _restart(self) -> None:
        options = self._options
        value = options.pop("autorestart", "unexpected").lower()
        codes = options.pop("exitcodes", "0")
        if value == "unexpected":
            self._section.set("restart", "on-failure")
            try:
                numbers = [int(each) for each in codes.split(",")]
            except ValueError:
                problem = f"expected numbers, got {codes}"
                raise SpecError(f"[{self._where}] exitcodes", problem) from None
            if numbers != [0]:
                self._section.set("success_exit_codes", numbers)
        elif not _boolean(self._where, "autorestart", value):
            self._section.set("restart", "never")
        is_group = [
            _boolean(self._where, key, options.pop(key, "false"))
            for key in ("stopasgroup", "killasgroup")
        ]
        if not any(is_group):
            self._section.set("kill_mode", "leader")

    def _autostart(self, value: str) -> None:
        if not boolean(value):
            name = self._section.header.removeprefix("services.")
            self._section.set(
                "autostart", False, f"start it: trio-supervisor start {name}"
            )

    def _socket(self) -> None:
        options = self._options
        url = self._expander.text(options.pop("socket", ""))
        listen: dict[str, Any] = {"url": url}
        if backlog := options.pop("socket_backlog", ""):
            listen["backlog"] = int(backlog)
        owner, _, group = options.pop("socket_owner", "").partition(":")
        if owner:
            listen["user"] = owner
        if group:
            listen["group"] = group
        if mode := options.pop("socket_mode", ""):
            listen["mode"] = Octal(int(mode, 8))
        self._section.set("sockets", {"fcgi": listen if len(listen) > 1 else url})

    def _output(self) -> None:
        options = self._options
        out = options.pop("stdout_logfile", "AUTO")
        error = options.pop("stderr_logfile", "AUTO")
        is_joined = _boolean(
            self._where, "redirect_stderr", options.pop("redirect_stderr", "false")
        )
        has_out, has_error = not _is_no_file(out), not _is_no_file(error)
        has_error = has_error and not is_joined and error != out
        if has_out:
            self._section.set("log_file", self._expander.text(out))
        if has_error:
            self._section.set("stderr_log_file", self._expander.text(error))
        rotations = {stream: self._rotation(stream) for stream in ("stdout", "stderr")}
        if has_out or has_error:
            found = rotations["stdout" if has_out else "stderr"]
            for key, value in found.items():
                self._section.set(key, value)
            if has_out and has_error and found != rotations["stderr"]:
                note = "stderr_log_file is rotated as log_file is"
                self._section.note(f"stderr_logfile_maxbytes: {note}")
        if out.lower() == "syslog":
            self._section.set("log_to", "syslog")
        if out.lower() == "/dev/null":
            self._section.note(f"stdout_logfile = {out}: output is passed on by serve")

    def _rotation(self, stream: str) -> dict[str, Any]:
        """Return the options that rotate the files of *stream*; supervisord always does
        unless ``maxbytes`` is 0."""
        size = self._options.pop(f"{stream}_logfile_maxbytes", _DEFAULT_SIZE)
        keep = int(self._options.pop(f"{stream}_logfile_backups", "10"))
        match = _SIZE.fullmatch(size.strip())
        if match is None:
            raise SpecError(
                f"{self._where}.{stream}_logfile_maxbytes",
                f"expected a size such as 50MB, got {size!r:.40}",
            )
        if not int(match[1]):
            return {}
        unit = f"{match[2].upper()}iB" if match[2] else "B"
        return {
            "log_max_size": f"{match[1]} {unit}",
            "log_keep": keep,
            "log_compress": False,
        }

    def _seconds(self, key: str, value: str) -> None:
        self._section.set(key, int(value))

    def _environment(self, value: str) -> None:
        pairs = pairs_of(value)
        found = {key: self._expander.text(text) for key, text in pairs.items()}
        self._section.set("environment", found)

    def _umask(self, value: str) -> None:
        self._section.set("umask", f"{int(value, 8):03o}")

    def _text(self, key: str, value: str) -> None:
        self._section.set(key, self._expander.text(value))

    def _startsecs(self, value: str) -> None:
        if (seconds := int(value)) != 1:
            self._section.set("stable_for", seconds)

    def _process_name(self, value: str) -> None:
        if re.sub(r"%\(process_num\)\d*[ds]", "", value).strip("_-.") not in (
            "%(program_name)s",
            "",
        ):
            self._section.note(f"process_name = {value}: {_WITHOUT['process_name']}")


_WRITERS: Final[Mapping[str, Callable[[_Program, str], None]]] = {
    "process_name": _Program._process_name,
    "autostart": _Program._autostart,
    "numprocs": _Program._count,
    "numprocs_start": lambda program, value: None,
    "directory": lambda program, value: program._text("directory", value),
    "user": lambda program, value: program._text("user", value),
    "umask": _Program._umask,
    "environment": _Program._environment,
    "startsecs": _Program._startsecs,
    "stopsignal": lambda program, value: program._section.set("stop_signal", value),
    "stopwaitsecs": lambda program, value: program._seconds("stop_timeout", value),
}


def _programs(options: Mapping[str, str]) -> list[str]:
    return [each.strip() for each in options.get("programs", "").split(",") if each]


def _priority(options: Mapping[str, str]) -> int:
    value = options.get("priority", "999")
    return int(value) if re.fullmatch(r"-?\d+", value) else 999


def _number(where: str, options: Mapping[str, str], key: str, default: int) -> int:
    value = options.get(key, str(default))
    if not re.fullmatch(r"\d+", value):
        raise SpecError(f"[{where}] {key}", f"expected a number, got {value}")
    return int(value)


def _boolean(where: str, key: str, value: str) -> bool:
    try:
        return boolean(value)
    except ValueError as exc:
        raise SpecError(f"[{where}] {key}", str(exc)) from None


def _pairs(where: str, value: str) -> dict[str, str]:
    try:
        return pairs_of(value)
    except ValueError as exc:
        raise SpecError(f"[{where}] environment", str(exc)) from None


def _is_no_file(value: str) -> bool:
    return value.lower() in _NO_FILE or value.startswith("/dev/fd/")


def _reason(kind: str) -> str:
    return dict(_ELSEWHERE).get(kind, "no equivalent")


def _commented(name: str, options: Mapping[str, str], reason: str) -> Section:
    section = Section()
    section.note(f"[{name}]: {reason}")
    for key, value in options.items():
        shown = "(hidden)" if "password" in key else value
        section.note(f"{key} = {shown}")
    return section
