"""Print what shells need to complete verbs, options, and names of workers."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Iterator

from trio_supervisor.cli.connection import Deadline, SupervisorConnection, socket_path
from trio_supervisor.cli.verbs.verb import PROGRAM, Argument, Verb
from trio_supervisor.errors import SupervisorError

# A shell waits for the names: better none than late [s].
_NAMES_WITHIN = 1.0


def run_completion(arguments: Namespace) -> None:
    """Print the script for a shell, or the names that its completion offers."""
    # Imported only here, since it imports this verb's own row.
    from trio_supervisor.cli.verbs import VERBS

    verbs = list(VERBS.values())
    match arguments.shell:
        case "bash":
            print("\n".join(_bash(verbs)))
        case "zsh":
            print("\n".join(_zsh(verbs)))
        case "fish":
            print("\n".join(_fish(verbs)))
        case _:
            for name in _names():
                print(name)


def _names() -> list[str]:
    """Return the names of services and workers; none if no supervisor answers."""
    try:
        connection = SupervisorConnection(socket_path(None), Deadline(_NAMES_WITHIN))
        with connection:
            workers = connection.call("workers")["workers"]
    except SupervisorError:
        return []
    services = dict.fromkeys(worker["service"] for worker in workers)
    return [*filter(None, services), *(worker["name"] for worker in workers)]


def _options(verb: Verb) -> Iterator[tuple[str, Argument]]:
    for each in verb.arguments:
        if each.is_option and each.help:
            yield from ((name, each) for name in each.names)


def _takes_names(verb: Verb) -> bool:
    positional = [each.names[0] for each in verb.arguments if not each.is_option]
    return "name" in positional or "names" in positional


def _choices(verb: Verb) -> list[str]:
    found = [a.settings.get("choices", ()) for a in verb.arguments if not a.is_option]
    return [str(choice) for choices in found for choice in choices]


def _takes_value(option: Argument) -> bool:
    return not str(option.settings.get("action", "")).startswith("store_")


def _bash(verbs: list[Verb]) -> Iterator[str]:
    yield f"# Completion of {PROGRAM}: source <({PROGRAM} completion bash)"
    yield "_trio_supervisor() {"
    yield '    local word=${COMP_WORDS[COMP_CWORD]} verb=${COMP_WORDS[1]} words=""'
    yield "    COMPREPLY=()"
    yield "    if [ $COMP_CWORD -eq 1 ]; then"
    words = " ".join([*(verb.name for verb in verbs), "--help", "--version"])
    yield f'        COMPREPLY=($(compgen -W "{words}" -- "$word"))'
    yield "        return"
    yield "    fi"
    yield "    case $verb in"
    for verb in verbs:
        own = " ".join([*(name for name, _ in _options(verb)), "--help"])
        found = f'words="{" ".join([own, *_choices(verb)])}"'
        if _takes_names(verb):
            found += f'; [[ $word == -* ]] || words+=" $({_NAMES})"'
        yield f"        {verb.name}) {found} ;;"
    yield "    esac"
    yield '    COMPREPLY=($(compgen -W "$words" -- "$word"))'
    yield "    [ ${#COMPREPLY[@]} -gt 0 ] || compopt -o default"
    yield "}"
    yield f"complete -F _trio_supervisor {PROGRAM}"


_NAMES = f"{PROGRAM} completion names 2>/dev/null"


def _zsh(verbs: list[Verb]) -> Iterator[str]:
    yield f"#compdef {PROGRAM}"
    yield f"# Completion of {PROGRAM}: source <({PROGRAM} completion zsh)"
    yield "_trio_supervisor() {"
    yield "    local -a verbs"
    yield "    verbs=("
    for verb in verbs:
        yield f"        {shlex.quote(f'{verb.name}:{verb.help}')}"
    yield "    )"
    yield "    if (( CURRENT == 2 )); then _describe verb verbs; return; fi"
    yield "    local verb=$words[2]; shift words; (( CURRENT-- ))"
    yield "    case $verb in"
    for verb in verbs:
        yield f"        {verb.name}) _arguments {' '.join(_zsh_arguments(verb))} ;;"
    yield "    esac"
    yield "}"
    yield "_trio_supervisor_names() { compadd -- "
    yield f'    ${{(f)"$({_NAMES})"}}'
    yield "}"
    yield f"compdef _trio_supervisor {PROGRAM}"


def _zsh_arguments(verb: Verb) -> Iterator[str]:
    for name, option in _options(verb):
        text = option.help.replace("[", "(").replace("]", ")").replace(":", ";")
        value = f":{option.settings.get('metavar', 'value')}: " * _takes_value(option)
        yield shlex.quote(f"{name}[{text}]{value}")
    if choices := _choices(verb):
        yield shlex.quote(f"*:value:({' '.join(choices)})")
    elif _takes_names(verb):
        yield shlex.quote("*:name:_trio_supervisor_names")
    else:
        yield shlex.quote("*:file:_files")


def _fish(verbs: list[Verb]) -> Iterator[str]:
    yield f"# Completion of {PROGRAM}: {PROGRAM} completion fish | source"
    begin = f"complete -c {PROGRAM}"
    for verb in verbs:
        yield (
            f"{begin} -f -n __fish_use_subcommand -a {verb.name} "
            f"-d {shlex.quote(verb.help)}"
        )
        at = f"{begin} -n '__fish_seen_subcommand_from {verb.name}'"
        for name, option in _options(verb):
            kind = f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}"
            needs = " -r" if _takes_value(option) else ""
            yield f"{at} {kind}{needs} -d {shlex.quote(option.help)}"
        if choices := _choices(verb):
            yield f"{at} -f -a {shlex.quote(' '.join(choices))}"
        elif _takes_names(verb):
            yield f"{at} -f -a '({_NAMES})'"
