"""Test which parts of command lines are hidden."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_supervisor.policy.secrets import (
    hide_text,
    hide_words,
    is_secret_name,
    join_words,
)

HUSH = "hush-hush"


@pytest.mark.parametrize(
    "name",
    [
        *(
            "password",
            "--password",
            "PASSWORD",
            "PGPASSWORD",
            "MYSQL_PWD",
            "dbPassword",
        ),
        *(
            "token",
            "--api-token",
            "API_TOKEN",
            "accessToken",
            "secret",
            "CLIENT_SECRET",
        ),
        *("api_key", "apiKey", "--api-key", "APIKEY", "AWS_SECRET_ACCESS_KEY"),
        *(
            "private-key",
            "REDISCLI_AUTH",
            "--auth",
            "passphrase",
            "credentials",
            "pass",
        ),
        *("Authorization", "X-Api-Key", "Cookie", "SECRET_KEY"),
    ],
)
def test_secret_name_is_recognised(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("--password-file", "TOKEN_PATH", "AWS_ACCESS_KEY_ID", "--max-tokens", "PWD"),
        *("author", "--key", "keyspace", "--bypass", "compass", "--port", "tokenizer"),
        *("auth-url", "--secret-name", "passenger", "", "-", "--"),
    ],
)
def test_harmless_name_is_not_secret(name: str) -> None:
    assert not is_secret_name(name)


@pytest.mark.parametrize(
    "words",
    [
        ["db", f"--password={HUSH}"],
        ["db", "--password", HUSH],
        ["db", "--password", f"-{HUSH}"],
        ["db", "-token", HUSH],
        ["env", f"DB_PASSWORD={HUSH}", "db"],
        ["env", f"DB_PASSWORD={HUSH} more {HUSH}", "db"],
        ["db", f"postgres://shop:{HUSH}@db:5432/shop"],
        ["db", f"--url=postgres://shop:{HUSH}@db:5432/shop"],
        ["db", f"--url=redis://:{HUSH}@db"],
        ["curl", f"https://here/?a=1&token={HUSH}&b=2"],
        ["curl", "-H", f"Authorization: Bearer {HUSH}"],
        ["curl", "-H", f"X-Api-Key: {HUSH}"],
        ["sh", "-c", f"PASSWORD={HUSH} exec db --token {HUSH}"],
        ["sh", "-c", f"db --token='{HUSH} {HUSH}' --port 5"],
        ["sh", "-c", f'db --token "{HUSH}"'],
        ["sh", "-c", f"env A_TOKEN={HUSH} B_TOKEN={HUSH} db"],
        ["db", f"--config.auth.token={HUSH}"],
    ],
)
def test_secret_is_hidden_in_words_and_text(words: list[str]) -> None:
    assert HUSH not in " ".join(hide_words(words))
    assert HUSH not in join_words(words)
    assert HUSH not in hide_text(join_words(words))
    assert HUSH not in join_words(shlex.split(shlex.join(words)))
    assert HUSH not in hide_text(repr(words))
    assert HUSH not in hide_text(repr(tuple(words)))


@pytest.mark.parametrize(
    "token",
    [
        "ghp_0123456789abcdefABCDEF",
        "AKIAIOSFODNN7EXAMPLE",
        "eyJhbGciOiJIUzI1.eyJzdWIiOiIx.sig",
        "https://0123456789abcdef0123456789@github.com",
    ],
)
def test_token_is_recognised_by_its_form(token: str) -> None:
    assert "hidden" in join_words(["git", token])


@pytest.mark.parametrize(
    "words",
    [
        ["nginx", "-c", "/etc/nginx.conf", "-g", "daemon off;"],
        ["db", "--password-file=/run/secret", "--port=5432", "--author", "Anna"],
        ["git", "clone", "ssh://git@host/repo", "https://host:80/a@b"],
        ["sh", "-c", "a && b == c; echo 'x: y'"],
        ["python", "-m", "shop", "--max-tokens", "100"],
        [],
    ],
)
def test_harmless_text_is_unchanged(words: list[str]) -> None:
    assert hide_words(words) == words
    assert join_words(words) == shlex.join(words)


def test_only_the_secret_is_hidden() -> None:
    words = ["db", "--port", "5", "--password", HUSH, "--url=pg://me:x@db/shop", "y z"]
    assert join_words(words) == (
        "db --port 5 --password (hidden) --url=pg://me:(hidden)@db/shop 'y z'"
    )


@given(st.lists(st.text(max_size=20), max_size=6))
def test_any_words_and_text_are_accepted(words: list[str]) -> None:
    assert len(hide_words(words)) == len(words)
    hide_text(" ".join(words))
