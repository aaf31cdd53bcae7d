"""Write a profile for other programs: speedscope's JSON, or collapsed stacks.

In both, each stack begins with its kind (running, waiting, tasks) and its thread.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final

from trio_supervisor._version import __version__
from trio_supervisor.diagnostics.profile.sampling import (
    OTHER,
    RUNNING,
    TASKS,
    WAITING,
    SampledProfile,
    SampledStack,
    StackLine,
)
from trio_supervisor.diagnostics.stacks.frames import short_path
from trio_supervisor.errors import BadRequestError
from trio_supervisor.wire.reports import ProfileReport

_ROOM: Final = 5_000_000
"""Maximum size of a profile, which is sent in one message [characters]."""
_SCHEMA: Final = "https://www.speedscope.app/file-format-schema.json"


def profile_report(
    profile: SampledProfile, format_: str = "speedscope"
) -> ProfileReport:
    """Return *profile* in one of `FORMATS`.

    Raises:
        BadRequestError: the format is unknown.
    """
    if (write := FORMATS.get(format_)) is None:
        known = ", ".join(FORMATS)
        raise BadRequestError(f"format: {format_!r:.80} is none of {known}")
    samples = profile.task_samples
    return ProfileReport(
        data=write(profile),
        format=format_,
        duration=profile.duration,
        interval=profile.interval,
        samples=profile.samples,
        running=profile.time_of(RUNNING),
        waiting=profile.time_of(WAITING),
        tasks=profile.time_of(TASKS),
        overhead=profile.overhead,
        task_interval=profile.duration / samples if samples else 0.0,
        stacks=len(profile.stacks),
        overflow=profile.overflow,
        hottest=profile.hottest(),
    )


def collapsed(profile: SampledProfile) -> str:
    """Return one line per stack: frames separated by semicolons, then time [µs]."""
    lines, rest, room = [], dict[str, int](), _ROOM
    for stack in profile.stacks:
        line = ";".join(
            _collapsed_name(name) for name in (*_head(stack), *_names(stack))
        )
        room -= len(line)
        if room > 0:
            lines.append(f"{line} {stack.time // 1000}")
        else:
            rest[stack.kind] = rest.get(stack.kind, 0) + stack.time // 1000
    lines += [f"{kind};{OTHER} {spent}" for kind, spent in rest.items()]
    return "".join(f"{line}\n" for line in lines)


def speedscope(profile: SampledProfile) -> str:
    """Return the JSON of https://www.speedscope.app, with a profile per kind."""
    frames: list[dict[str, Any]] = []
    numbers = dict[object, int]()

    def number(place: StackLine | str) -> int:
        if place not in numbers:
            numbers[place] = len(frames)
            frames.append(_speedscope_frame(place))
        return numbers[place]

    profiles = []
    for kind in (RUNNING, WAITING, TASKS):
        found = [stack for stack in profile.stacks if stack.kind == kind]
        places = [[*_head(stack)[1:], *(stack.lines or [OTHER])] for stack in found]
        profiles.append(
            {
                "type": "sampled",
                "name": kind,
                "unit": "nanoseconds",
                "startValue": 0,
                "endValue": sum(stack.time for stack in found),
                "samples": [[number(place) for place in stack] for stack in places],
                "weights": [stack.time for stack in found],
            }
        )
    tree = {
        "$schema": _SCHEMA,
        "exporter": f"trio_supervisor {__version__}",
        "name": f"{profile.duration:.3g} s, {profile.samples} samples",
        "activeProfileIndex": 0,
        "shared": {"frames": frames},
        "profiles": [found for found in profiles if found["samples"]] or profiles[:1],
    }
    return json.dumps(tree, separators=(",", ":"))


FORMATS: Final[Mapping[str, Callable[[SampledProfile], str]]] = MappingProxyType(
    {"speedscope": speedscope, "collapsed": collapsed}
)


def _head(stack: SampledStack) -> tuple[str, ...]:
    return (stack.kind, stack.thread) if stack.thread else (stack.kind,)


def _names(stack: SampledStack) -> tuple[str, ...]:
    if not stack.lines:
        return (OTHER,)
    return tuple(f"{p.function} ({short_path(p.file)}:{p.line})" for p in stack.lines)


def _collapsed_name(name: str) -> str:
    # Names must not contain the separators of frames and lines.
    return " ".join(name.replace(";", ",").split())


def _speedscope_frame(place: StackLine | str) -> dict[str, Any]:
    if isinstance(place, str):
        return {"name": place}
    return {"name": place.function, "file": place.file, "line": place.line}
