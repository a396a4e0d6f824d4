"""Whatever arrives is a message or a ProtocolError of one sentence; SPLITC_FUZZ=1 looks longer."""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splitc.common.errors import ProtocolError
from splitc.protocol.messages import (
    Array,
    InferRequest,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from tests.protocol import bodies
from tests.protocol.fuzzing import SETTINGS

Body = tuple[bytes, int | None]
Path = tuple[str | int, ...]

HUGE = st.sampled_from([2**31, 2**31 + 1, 2**53 + 1, 2**63, 2**64, 10**40, 10**400, -1, -(2**63)])
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | HUGE | st.floats() | st.text(max_size=8) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
# Values that mean something, in places where they may not.
WORDS = ["FP32", "BYTES", "BOOL", "BF16", "x", "", 0, 4, 16, True]
LISTS = [[], [0], [1], [4], [2, 2], [0, 2**40], [[1.5, 2], [3, 4]], ["a"]]
TABLES = [{}, {"binary_data_size": 4}, {"binary_data": 1}, {"shared_memory_region": "r"}]
MEANT = st.sampled_from([*WORDS, *LISTS, *TABLES])


@st.composite
def requests(draw: st.DrawFn) -> Body:
    """A request that is as it should be."""
    outputs = draw(st.lists(bodies.NAMES, unique=True, max_size=3))
    message = encode_request(draw(bodies.tensors()), outputs, timeout_s=draw(st.none() | st.floats(0, 100)))
    return bodies.body(message), len(message.json)


@st.composite
def responses(draw: st.DrawFn) -> Body:
    """A response that is as it should be, with raw bytes, lists, or both."""
    outputs = draw(bodies.tensors())
    binary = draw(st.none() | st.frozensets(st.sampled_from(sorted(outputs)) if outputs else st.nothing()))
    request = InferRequest(draw(st.none() | bodies.NAMES), {}, None, binary, None)
    message = encode_response("m", outputs, request)
    return bodies.body(message), len(message.json)


def places(content: Any, path: Path = ()) -> Iterator[Path]:
    """Where in *content* there is a value."""
    yield path
    pairs = (
        content.items()
        if isinstance(content, dict)
        else enumerate(content)
        if isinstance(content, list)
        else ()
    )
    for key, value in pairs:
        yield from places(value, (*path, key))


def replaced(content: Any, path: Path, value: object) -> Any:
    """*content* with another *value* at *path*."""
    if not path:
        return value
    content = copy.copy(content)
    content[path[0]] = replaced(content[path[0]], path[1:], value)
    return content


@st.composite
def spoilt(draw: st.DrawFn, bodies: st.SearchStrategy[Body]) -> Body:
    """One of *bodies* with wrong values in its JSON, or other bytes, more or fewer."""
    body, size = draw(bodies)
    assert size is not None
    text, raw = body[:size], body[size:]
    if draw(st.booleans()):
        content = json.loads(text)
        for _ in range(draw(st.integers(1, 3))):
            path = draw(st.sampled_from(list(places(content))))
            content = replaced(content, path, draw(JUNK | MEANT))
        text = json.dumps(content, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
        return text + raw, draw(st.sampled_from([len(text), None]))
    changed = bytearray(body)
    for _ in range(draw(st.integers(0, 4))):
        changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    end = draw(st.just(len(changed)) | st.integers(0, len(changed)))
    more = draw(st.just(b"") | st.binary(max_size=20))
    return bytes(changed[:end]) + more, draw(st.just(size) | st.integers(-2, len(body) + 2) | st.none())


ANYTHING = st.tuples(st.binary(max_size=200), st.none() | st.integers(-5, 250))


def check_tensors(found: Mapping[str, Array], body: bytes) -> None:
    """They are sound, survive the way back, and take no more memory than their bytes give them a right to."""
    assert all(name and name.encode() for name in found)
    assert all(array.flags.aligned and array.flags.c_contiguous for array in found.values())
    assert sum(array.nbytes for array in found.values()) <= 8 * len(body)
    again = encode_request(found, [])
    assert bodies.all_same(decode_request(bodies.body(again), len(again.json)).inputs, found)


def check_error(error: ProtocolError) -> None:
    """It is one sentence."""
    assert error.status in {400, 413}
    assert 10 < len(str(error)) < 300
    assert str(error).isprintable()


def check_request(body: Body) -> None:
    try:
        request = decode_request(*body)
    except ProtocolError as error:
        check_error(error)
        return
    check_tensors(request.inputs, body[0])
    assert request.timeout_s is None or request.timeout_s > 0
    assert request.binary is None or request.binary <= {*(request.outputs or ())}


def check_response(body: Body) -> None:
    try:
        outputs = decode_response(*body)
    except ProtocolError as error:
        check_error(error)
        return
    check_tensors(outputs, body[0])


@SETTINGS
@given(spoilt(requests()))
def test_spoilt_requests(body: Body) -> None:
    check_request(body)


@SETTINGS
@given(spoilt(responses()))
def test_spoilt_responses(body: Body) -> None:
    check_response(body)


@SETTINGS
@given(ANYTHING)
def test_any_bytes(body: Body) -> None:
    check_request(body)
    check_response(body)


@SETTINGS
@given(requests(), st.data())
def test_no_part_of_a_request_is_a_request(body: Body, data: st.DataObject) -> None:
    whole, size = body
    part = whole[: data.draw(st.integers(0, len(whole) - 1))]
    assert size is not None
    if len(part) < size and whole[len(part) : size].isspace():  # only padding is missing
        return
    with pytest.raises(ProtocolError):
        decode_request(part, min(size, len(part)))
