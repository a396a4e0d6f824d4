"""The JSON Schemas that are shipped are those of the records."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from splitc.cli.schemas import FOLDER, SCHEMAS, schema_path, schema_text


@pytest.mark.parametrize("name", SCHEMAS)
def test_what_is_checked_in_is_what_the_records_say(name: str) -> None:
    assert schema_path(name).read_text("utf-8") == schema_text(name), "run `make schemas`"


def test_no_other_schema_is_shipped() -> None:
    assert set(FOLDER.iterdir()) == {schema_path(name) for name in SCHEMAS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_each_is_a_schema(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(schema_text(name)))


PAGE = (Path(__file__).parents[2] / "docs" / "json.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```json (\S+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_documentation_lists_every_schema() -> None:
    listed = re.findall(r"^\| .* \| \[(\S+)\]\(\.\./splitc/schemas/(\S+)\) \|$", PAGE, re.MULTILINE)
    assert listed == [(name, f"{name}.schema.json") for name in SCHEMAS]


def test_every_schema_has_an_example() -> None:
    assert {name.partition("#")[0] for name, _ in EXAMPLES} | {"targets"} == set(SCHEMAS)


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples_are_valid(name: str, text: str) -> None:
    """An example may be of one place in a schema: "NAME#/PLACE/IN/IT"."""
    name, _, place = name.partition("#")
    whole: dict[str, Any] = json.loads(schema_text(name))
    schema = whole
    for key in place.split("/")[1:]:
        schema = schema[key]
    Draft202012Validator({"$defs": whole.get("$defs", {}), **schema}).validate(json.loads(text))
