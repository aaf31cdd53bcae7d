"""Hide what looks like a secret in command lines and other text. Pure.

The rule, which docs/security.md states for users; these are hidden:

- the value of ``NAME=VALUE``, ``--NAME=VALUE``, ``--NAME VALUE`` and ``NAME: VALUE``
  where NAME is that of a secret (``password``, ``token``, ``api_key``, …), also in the
  query of a URL or in a shell command;
- the password in ``scheme://user:password@host``, and a long user name without one;
- tokens of a known form, such as ``ghp_…`` and JSON web tokens.

The value of a name that ends in ``file``, ``path`` and so on is shown, because it is
the place of a secret and not the secret.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from typing import Final

HIDDEN: Final = "(hidden)"

_ENDINGS: Final = (
    "password",
    "passwd",
    "passphrase",
    "secret",
    "secrets",
    "token",
    "apikey",
    "credential",
    "credentials",
)
_PARTS: Final = frozenset(
    {"pass", "pw", "pwd", "pin", "auth", "authorization", "bearer", "cookie", "jwt"}
)
_PAIRS: Final = frozenset({"api", "access", "private", "secret", "signing", "account"})
_HARMLESS: Final = frozenset(
    {"file", "path", "dir", "directory", "id", "name", "ttl", "timeout", "length"}
    | {"type", "url", "uri", "mode", "method", "header", "field", "env", "command"}
)
_WORDS: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# The value that follows a name, with or without quotes.
_VALUE: Final = r"""(?P<value>"[^"]*"|'[^']*'|[^\s&;,"'#()]+)"""
_ASSIGNMENT: Final = re.compile(r"""(?P<name>[A-Za-z][\w.-]*)=(?!=)""" + _VALUE)
_QUOTED: Final = re.compile(
    r"""(?P<name>["'][\w.-]+["'])(?P<between>\s*[:,]\s*)(?P<value>"[^"]*"|'[^']*')"""
)
_QUOTED_ASSIGNMENT: Final = re.compile(
    r"""["'](?P<name>-*[\w.-]+)=(?P<value>[^"']+)(?=["'])"""
)
_OPTION: Final = re.compile(r"(?P<name>(?<![\w-])--?[A-Za-z][\w.-]*)\s+" + _VALUE)
_HEADER: Final = re.compile(
    r"(?P<name>[A-Za-z][\w-]*):\s+(?P<value>(?:(?:Bearer|Basic|Digest)\s+)?[^\s\"',]+)"
)
_USER_INFO: Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^\s/@:?#]*)"
    r"(?P<password>:[^\s/@]*)?@"
)
_TOKEN: Final = re.compile(
    r"\b(?:gh[pousr]_\w{16,}|github_pat_\w{16,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}"
    r"|sk-[\w-]{16,}|A(?:KIA|SIA)[0-9A-Z]{16}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*)"
)
_LONG_USER: Final = 20


def is_secret_name(name: str) -> bool:
    """Return whether the option or variable *name* has a secret as its value."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if not words or words[-1] in _HARMLESS or name == "PWD":
        return False
    return (
        any(word.endswith(_ENDINGS) for word in words)
        or not _PARTS.isdisjoint(words)
        or (words[-1] == "key" and not _PAIRS.isdisjoint(words))
    )


def hide_words(words: Sequence[str]) -> list[str]:
    """Return the program and arguments *words* with secrets hidden."""
    shown: list[str] = []
    is_value = False
    for word in words:
        if is_value and not word.startswith("--"):
            shown.append(HIDDEN)
            is_value = False
            continue
        name, equals, _ = word.partition("=")
        is_option = word.startswith("-") and not re.search(r"\s", name)
        is_value = is_option and not equals and is_secret_name(word)
        is_plain = re.fullmatch(r"-*[\w.-]+", name) is not None
        if equals and is_plain and is_secret_name(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(_hide_within(word))
    return shown


def join_words(words: Sequence[str]) -> str:
    """Return *words* as a shell command line with secrets hidden."""
    return " ".join(
        word if HIDDEN in word and not re.search(r"\s", word) else shlex.quote(word)
        for word in hide_words(words)
    )


def hide_text(text: str) -> str:
    """Return *text*, such as a command line or a list of words, with secrets hidden."""
    text = _replace(_QUOTED, text, _is_secret_pair)
    return _hide_within(_replace(_QUOTED_ASSIGNMENT, text, _is_secret))


def _hide_within(text: str) -> str:
    text = _USER_INFO.sub(_hide_user, text)
    for pattern in (_ASSIGNMENT, _HEADER, _OPTION):
        text = _replace(pattern, text, _is_secret)
    return _TOKEN.sub(HIDDEN, text)


def _replace(
    pattern: re.Pattern[str], text: str, is_secret: Callable[[re.Match[str]], bool]
) -> str:
    """Return *text* with the values of secrets hidden.

    After a match that is no secret, the search continues behind its name, because its
    value may be the name of a secret.
    """
    shown, position = "", 0
    while (match := pattern.search(text, position)) is not None:
        if is_secret(match):
            value = match["value"]
            quote = value[0] if value[0] == value[-1] and value[0] in "\"'" else ""
            shown += text[position : match.start("value")] + quote + HIDDEN + quote
            position = match.end("value")
        else:
            shown += text[position : match.end("name")]
            position = match.end("name")
    return shown + text[position:]


def _is_secret(match: re.Match[str]) -> bool:
    value = match["value"]
    return is_secret_name(match["name"]) and not value.startswith(("--", HIDDEN))


def _is_secret_pair(match: re.Match[str]) -> bool:
    name = match["name"][1:-1]
    is_pair = ":" in match["between"]
    return is_secret_name(name) and (is_pair or name.startswith("-"))


def _hide_user(match: re.Match[str]) -> str:
    user = match["user"]
    if match["password"]:
        return f"{match['scheme']}{user}:{HIDDEN}@"
    return f"{match['scheme']}{HIDDEN if len(user) >= _LONG_USER else user}@"
