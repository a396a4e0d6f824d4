"""What a command prints with `--json`, held against the schema that splitc ships for it."""

import json
from functools import cache
from typing import Any

from jsonschema import Draft202012Validator

from splitc.cli.schemas import schema_path


def printed(schema: str, text: str) -> Any:
    """The JSON value *text*, which is valid by the schema of this name."""
    value = json.loads(text)
    _validator(schema).validate(value)
    return value


@cache
def _validator(schema: str) -> Draft202012Validator:
    return Draft202012Validator(json.loads(schema_path(schema).read_bytes()))
