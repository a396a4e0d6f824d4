"""A record's JSON Schema accepts what `decode` accepts, and says what the docstring says."""

from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from splitc.common.records import (
    GIVEN,
    NOT_EMPTY,
    SPARSE,
    Count,
    Forms,
    Limit,
    PositiveAmount,
    RecordError,
    Sha256,
    check,
    decode,
)
from splitc.common.schema import json_schema


@dataclass(frozen=True, slots=True)
class Leaf:
    name: str
    sha256: Sha256 | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """A plant,
    of wood.

    It grows.

    Attributes:
        kind, height: what it is: an `oak`
            or so.
        pair: two; ignored: no
    """

    version: Annotated[int, Limit("const", 1, "version 1")]
    kind: Literal["oak", "elm", 3]
    height: PositiveAmount
    pair: tuple[float, str]
    rings: tuple[Count | None, ...]
    leaves: Annotated[tuple[Leaf, ...], NOT_EMPTY]
    names: dict[str, Leaf] = field(default_factory=dict)
    shape: tuple[int | str, ...] = ()
    fruit: Leaf | None = field(default=None, metadata=SPARSE)
    evergreen: bool = field(default=False, metadata=SPARSE)

    FORMS: ClassVar = Forms(
        "fruit where it is evergreen",
        (
            {"evergreen": False, "fruit": None},
            {"evergreen": True, "fruit": GIVEN},
        ),
    )

    def __post_init__(self) -> None:
        check(self)


LEAF: dict[str, Any] = {"name": "x"}
TREE: dict[str, Any] = {
    "version": 1,
    "kind": "oak",
    "height": 1.5,
    "pair": [0.5, "a"],
    "rings": [1, None],
    "leaves": [LEAF],
}
SCHEMA = json_schema(Tree, "tree")
VALIDATOR = Draft202012Validator(SCHEMA)


def is_read(value: object) -> bool:
    try:
        decode(Tree, value, "test")
    except RecordError:
        return False
    return True


def test_it_is_a_schema_with_the_keys_in_order() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert list(SCHEMA) == [
        "$schema", "title", "description", "type", "additionalProperties", "required", "properties", "oneOf", "$defs",
    ]  # fmt: skip
    assert SCHEMA["required"] == list(TREE)
    assert list(SCHEMA["properties"]) == [*TREE, "names", "shape", "fruit", "evergreen"]


def test_descriptions_come_from_the_docstring() -> None:
    assert SCHEMA["description"] == "A plant, of wood."
    described = {name: item.get("description") for name, item in SCHEMA["properties"].items()}
    assert {name: text for name, text in described.items() if text} == {
        "kind": "What it is: an `oak` or so.",
        "height": "What it is: an `oak` or so.",
        "pair": "Two; ignored: no",
    }
    assert "description" not in SCHEMA["$defs"]["Leaf"]


def test_types_limits_and_defaults() -> None:
    found = {
        name: {key: value for key, value in item.items() if key != "description"}
        for name, item in SCHEMA["properties"].items()
    }
    assert found == {
        "version": {"type": "integer", "const": 1},
        "kind": {"enum": ["oak", "elm", 3]},
        "height": {"type": "number", "exclusiveMinimum": 0},
        "pair": {
            "type": "array",
            "prefixItems": [{"type": "number"}, {"type": "string"}],
            "items": False,
            "minItems": 2,
        },
        "rings": {
            "type": "array",
            "items": {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]},
        },
        "leaves": {"type": "array", "items": {"$ref": "#/$defs/Leaf"}, "minItems": 1},
        "names": {"type": "object", "additionalProperties": {"$ref": "#/$defs/Leaf"}, "default": {}},
        "shape": {"type": "array", "items": {"type": ["integer", "string"]}, "default": []},
        "fruit": {"anyOf": [{"$ref": "#/$defs/Leaf"}, {"type": "null"}], "default": None},
        "evergreen": {"type": "boolean", "default": False},
    }


@pytest.mark.parametrize(
    ("change", "good"),
    [
        ({}, True),
        ({"version": 2}, False),
        ({"height": 0}, False),
        ({"rings": [-1]}, False),
        ({"leaves": []}, False),
        ({"leaves": [LEAF | {"sha256": "a" * 64}]}, True),
        ({"leaves": [LEAF | {"sha256": "A" * 64}]}, False),
        ({"leaves": [LEAF | {"surprise": 1}]}, False),
        ({"evergreen": True}, False),
        ({"fruit": LEAF}, False),
        ({"fruit": LEAF, "evergreen": False}, False),
        ({"fruit": LEAF, "evergreen": True}, True),
        ({"fruit": None, "evergreen": True}, False),
    ],
    ids=str,
)
def test_limits_and_forms_hold_for_both(change: dict[str, object], good: bool) -> None:
    assert VALIDATOR.is_valid(TREE | change) == is_read(TREE | change) == good


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.sampled_from([*TREE, "names", "shape", "fruit", "evergreen", "surprise"]), st.data())
def test_both_agree_on_any_value(name: str, data: st.DataObject) -> None:
    scalars = st.sampled_from([None, True, False, -1, 0, 1, 2, 1.5, -0.5, "oak", "x", "f" * 64, LEAF])
    anything = st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["name", "sha256"]), inner, max_size=2)
        ),
        max_leaves=4,
    )
    value = TREE | {name: data.draw(anything)}
    assert VALIDATOR.is_valid(value) == is_read(value), value


def test_a_list_of_records_has_a_schema() -> None:
    schema = json_schema(tuple[Leaf, ...], "leaves")
    assert Draft202012Validator(schema).is_valid([LEAF])
    assert not Draft202012Validator(schema).is_valid([LEAF, {}])


def test_two_records_of_one_name_are_refused() -> None:
    first = Leaf

    @dataclass(frozen=True)
    class Leaf2:
        leaf: first  # type: ignore[valid-type]

    Leaf2.__name__ = "Leaf"
    with pytest.raises(TypeError, match="two records in one schema have the name Leaf"):
        json_schema(tuple[Leaf2, ...], "leaves")


def test_what_no_record_can_hold_has_no_schema() -> None:
    with pytest.raises(TypeError, match="records cannot hold set"):
        json_schema(set[int], "numbers")
