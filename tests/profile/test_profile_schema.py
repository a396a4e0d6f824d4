"""The JSON Schema and the dataclasses describe the same profiles, and leave room for nothing else."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

import splitc
from splitc.common.errors import ProfileError
from splitc.common.records import encode
from splitc.profile.document import decode_profile
from tests import profiles
from tests.documents import Place, label, lookup, places, replaced

SCHEMA = json.loads((Path(splitc.__file__).parent / "schemas" / "profile.schema.json").read_bytes())
VALIDATOR = Draft202012Validator(SCHEMA)
PLAIN: dict[str, Any] = encode(profiles.full())  # type: ignore[assignment]


def is_valid(value: Any) -> bool:
    return bool(VALIDATOR.is_valid(value))


def is_read(value: Any) -> bool:
    try:
        decode_profile(value, "test")
    except ProfileError:
        return False
    return True


def is_counted(at: Place) -> bool:
    """Whether lengths must agree here: that a unit has a time for each measurement is beyond a schema."""
    return at == ("measurements",) or (at[0] == "units" and at[-1] == "seconds")


TABLES = [at for at in places(PLAIN) if isinstance(lookup(PLAIN, at), dict) and (not at or at[-1] != "dims")]
VALUES = [at for at in places(PLAIN) if at and not is_counted(at)]


def test_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(PLAIN)
    assert encode(decode_profile(PLAIN, "test")) == PLAIN


@pytest.mark.parametrize("at", TABLES, ids=label)
def test_closed_at_every_level(at: Place) -> None:
    copy = deepcopy(PLAIN)
    lookup(copy, at)["surprise"] = 1
    assert not is_valid(copy)
    assert not is_read(copy)


@pytest.mark.parametrize("at", [(*at, key) for at in TABLES for key in lookup(PLAIN, at)], ids=label)
def test_both_agree_on_what_may_be_absent(at: Place) -> None:
    copy = deepcopy(PLAIN)
    del lookup(copy, at[:-1])[at[-1]]
    assert is_valid(copy) == is_read(copy) == (at == ("units",) or at[-1] == "events")


@pytest.mark.parametrize("at", VALUES, ids=label)
def test_both_agree_on_every_value(at: Place) -> None:
    values: tuple[Any, ...] = (-1, 0, -0.5, 1.5, "text", None, True, [], {}, "imported")
    for new in values:
        value = replaced(PLAIN, at, new)
        assert is_valid(value) == is_read(value), new


@settings(derandomize=True, deadline=None, max_examples=150)
@given(st.sampled_from(sorted(VALUES, key=str)), st.data())
def test_both_agree_on_anything_anywhere(at: Place, data: st.DataObject) -> None:
    anything = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-2, 2)
        | st.floats(-2, 2).filter(lambda x: x % 1)
        | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
        max_leaves=4,
    )
    value = replaced(PLAIN, at, data.draw(anything))
    assert is_valid(value) == is_read(value), value
