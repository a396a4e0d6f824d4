"""The JSON Schemas that are shipped are those of the records."""

import json

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
