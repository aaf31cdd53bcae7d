"""The JSON schema of supervisor.toml accepts what is read, and little else."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.config.test_application_file import COMPLETE, EXAMPLE, MISTAKES
from trio_supervisor.reference.configuration_schema import schema

jsonschema: Any = pytest.importorskip("jsonschema")


@pytest.fixture(scope="module")
def validator() -> Any:
    jsonschema.Draft202012Validator.check_schema(schema())
    return jsonschema.Draft202012Validator(schema())


@pytest.mark.parametrize("text", [EXAMPLE, COMPLETE])
def test_schema_accepts_valid_documents(validator: Any, text: str) -> None:
    validator.validate(tomllib.loads(text))


def test_schema_refuses_mistakes(validator: Any) -> None:
    document = tomllib.loads(MISTAKES)
    for name in ("web", "redis", "py", "none", "probed"):
        service = {"services": {name: document["services"][name]}}
        assert not validator.is_valid(service), name
    assert not validator.is_valid({"nmae": "x"})
    assert not validator.is_valid({"groups": document["groups"]})


def test_schema_is_shipped() -> None:
    import trio_supervisor.config as package

    assert (Path(package.__path__[0]) / "supervisor.schema.json").is_file()
