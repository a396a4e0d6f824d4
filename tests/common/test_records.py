"""Plain values become records strictly, and come back unchanged."""

import json
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitc.common.records import (
    GIVEN,
    NOT_EMPTY,
    Count,
    Forms,
    RecordError,
    Sha256,
    check,
    decode,
    encode,
)


@dataclass(frozen=True, slots=True)
class Leaf:
    name: str
    nbytes: int
    latency_s: float
    exact: bool = False
    shape: tuple[int | str, ...] = ()

    def __post_init__(self) -> None:
        if self.nbytes < 0:
            raise ValueError("nbytes must not be negative")


@dataclass(frozen=True, slots=True)
class Tree:
    kind: Literal["all-head", "split", 3]
    pair: tuple[float, str]
    leaves: tuple[Leaf, ...]
    tail: Leaf | None = None
    opsets: dict[str, int] = field(default_factory=dict)


LEAF = {"name": "x", "nbytes": 4, "latency_s": 0.5}
TREE = {"kind": "split", "pair": [1, "a"], "leaves": [LEAF], "tail": None, "opsets": {"": 18}}

finite = st.floats(allow_nan=False, allow_infinity=False)
integers = st.integers(-(2**63), 2**63 - 1)
leaves = st.builds(
    Leaf, st.text(), st.integers(0, 2**63 - 1), finite, st.booleans(), st.tuples(integers, st.text())
)
trees = st.builds(
    Tree,
    st.sampled_from(["all-head", "split", 3]),
    st.tuples(finite, st.text()),
    st.lists(leaves, max_size=3).map(tuple),
    st.none() | leaves,
    st.dictionaries(st.text(), integers, max_size=3),
)


@given(trees)
def test_a_record_survives_json(tree: Tree) -> None:
    """What is written is read back equal, and written again with the same bytes."""
    text = json.dumps(encode(tree), allow_nan=False)
    again = decode(Tree, json.loads(text), "tree.json")
    assert again == tree
    assert json.dumps(encode(again)) == text


def test_defaults_stand_for_absent_keys() -> None:
    """A key with a default may be left out, and an integer may stand for a float."""
    leaf = decode(Leaf, {"name": "x", "nbytes": 4, "latency_s": 1}, "leaf.json")
    assert leaf == Leaf("x", 4, 1.0)
    assert isinstance(leaf.latency_s, float)


def test_key_order_is_the_fields_order() -> None:
    """Equal records give equal text, whatever the order of their input or dicts."""
    tree = decode(Tree, dict(reversed(TREE.items())) | {"opsets": {"b": 1, "a": 2}}, "tree.json")
    encoded = encode(tree)
    assert isinstance(encoded, dict)
    assert list(encoded) == ["kind", "pair", "leaves", "tail", "opsets"]
    assert list(encoded["opsets"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"leaves": [LEAF, LEAF | {"nbytes": "x"}]},
            "leaves[1].nbytes: expected an integer, found 'x'",
            id="text",
        ),
        pytest.param(
            {"leaves": [LEAF | {"nbytes": True}]},
            "leaves[0].nbytes: expected an integer, found True",
            id="bool",
        ),
        pytest.param(
            {"leaves": [LEAF | {"nbytes": 4.0}]},
            "leaves[0].nbytes: expected an integer, found 4.0",
            id="float",
        ),
        pytest.param(
            {"leaves": [LEAF | {"exact": 1}]},
            "leaves[0].exact: expected true or false, found 1",
            id="int as bool",
        ),
        pytest.param(
            {"leaves": [LEAF | {"name": None}]}, "leaves[0].name: expected text, found None", id="null"
        ),
        pytest.param(
            {"leaves": [LEAF | {"shape": [1, 2.5]}]},
            "leaves[0].shape[1]: expected an integer or text, found 2.5",
            id="union",
        ),
        pytest.param({"leaves": "x"}, "leaves: expected a list, found 'x'", id="not a list"),
        pytest.param({"leaves": [3]}, "leaves[0]: expected a table, found 3", id="not a table"),
        pytest.param({"pair": [float("nan"), "a"]}, "pair[0]: expected a finite number, found nan", id="nan"),
        pytest.param({"pair": [float("inf"), "a"]}, "pair[0]: expected a finite number, found inf", id="inf"),
        pytest.param({"pair": [True, "a"]}, "pair[0]: expected a number, found True", id="bool as float"),
        pytest.param({"pair": [1.0]}, "pair: expected 2 items, found 1", id="too short"),
        pytest.param(
            {"kind": "splits"},
            "kind: expected one of 'all-head', 'split', 3, found 'splits', did you mean 'split'?",
            id="literal",
        ),
        pytest.param(
            {"kind": 3.0}, "kind: expected one of 'all-head', 'split', 3, found 3.0", id="literal type"
        ),
        pytest.param({"opsets": {"": "x"}}, "opsets['']: expected an integer, found 'x'", id="dict value"),
        pytest.param({"opsets": {1: 2}}, "opsets: expected keys that are text, found 1", id="dict key"),
        pytest.param({"opsets": []}, "opsets: expected a table, found []", id="not a dict"),
        pytest.param({"tail": {"name": "x"}}, "tail: key 'nbytes' is missing", id="missing"),
        pytest.param(
            {"tail": LEAF | {"nbyte": 1}}, "tail: unknown key 'nbyte', did you mean 'nbytes'?", id="misspelt"
        ),
        pytest.param({"zzz": 1}, "unknown key 'zzz'", id="unknown"),
        pytest.param({"tail": LEAF | {"nbytes": -1}}, "tail: nbytes must not be negative", id="own check"),
    ],
)
def test_a_mistake_gives_one_sentence(change: dict[str, object], message: str) -> None:
    """The message is the file, the place, and what is wrong there."""
    with pytest.raises(RecordError) as caught:
        decode(Tree, TREE | change, "tree.json")
    assert str(caught.value) == f"tree.json: {message}"


def test_a_number_beyond_float_is_refused() -> None:
    """An integer too large for a float does not become infinite."""
    with pytest.raises(RecordError, match=r"latency_s: expected a finite number, found 1000.*\.\.\.$"):
        decode(Leaf, LEAF | {"latency_s": 10**400}, "leaf.json")


def test_the_root_must_be_a_table() -> None:
    """A file that holds something else says so, without a place inside it."""
    with pytest.raises(RecordError, match=r"^leaf\.json: expected a table, found \[\]$"):
        decode(Leaf, [], "leaf.json")


def test_what_json_cannot_hold_is_not_written() -> None:
    """NaN never reaches a file."""
    with pytest.raises(RecordError, match="nan cannot be written"):
        encode(Leaf("x", 1, float("nan")))


def test_a_hint_that_is_not_supported_is_a_programming_error() -> None:
    """A record with a type outside the list fails when it is first used, not when data arrive."""

    @dataclass(frozen=True)
    class Wrong:
        items: set[int]

    with pytest.raises(TypeError, match="records cannot hold set"):
        decode(Wrong, {"items": []}, "wrong.json")


@dataclass(frozen=True, slots=True)
class Limited:
    counts: tuple[Count, ...]
    digest: Sha256 | None = None
    text: str | None = None
    parts: Annotated[tuple[Leaf, ...], NOT_EMPTY] | None = None

    FORMS: ClassVar = Forms("either text or a digest", ({"digest": GIVEN, "text": None}, {"text": GIVEN}))

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": [0, -1]}, "counts[1]: expected an integer of at least 0, found -1"),
        ({"digest": "abc"}, "digest: expected 64 hexadecimal digits, found 'abc'"),
        ({"parts": []}, "parts: expected at least one item, found []"),
        ({"text": None}, "expected either text or a digest"),
    ],
    ids=str,
)
def test_limits_and_forms_are_checked_when_a_record_is_read(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode(Limited, {"counts": [1], "text": "a"} | change, "file")
    assert str(caught.value) == f"file: {message}"


def test_limits_and_forms_are_checked_when_a_record_is_made() -> None:
    assert Limited((1,), text="a", parts=(Leaf("x", 1, 1.0),)).counts == (1,)
    with pytest.raises(ValueError, match=r"^expected either text or a digest$"):
        Limited((1,))
    with pytest.raises(ValueError, match="expected an integer of at least 0") as caught:
        Limited((-1, 2), "abc")
    assert caught.value.args == (
        "counts[0]: expected an integer of at least 0, found -1",
        "digest: expected 64 hexadecimal digits, found 'abc'",
    )
