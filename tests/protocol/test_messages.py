"""Messages survive the way, are made and read without copies, and are refused if they are not sound."""

import json
import subprocess
import sys
import tracemalloc
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.common.errors import ProtocolError
from splitc.protocol import messages
from splitc.protocol.messages import (
    InferRequest,
    Message,
    decode_request,
    decode_response,
    encode_request,
    encode_response,
)
from tests.protocol import bodies
from tests.protocol.bodies import Array, binary, tensor, written

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
PLAIN = InferRequest(None, {}, None, None, None)
DATATYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int64": "INT64",
    "uint16": "UINT16",
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "bfloat16": "BF16",
    "string": "BYTES",
}


def request_of(*inputs: object, **more: object) -> InferRequest:
    return decode_request(written({"inputs": inputs, **more})[0], None)


def sent(message: Message) -> tuple[bytearray, int]:
    """What a server has in hands."""
    return bytearray(bodies.body(message)), len(message.json)


@SETTINGS
@given(bodies.tensors(), st.lists(bodies.NAMES, unique=True), st.none() | st.floats(1e-6, 1e6))
def test_requests_survive(inputs: dict[str, Array], outputs: list[str], timeout_s: float | None) -> None:
    message = encode_request(inputs, outputs, timeout_s=timeout_s)
    request = decode_request(*sent(message))
    assert bodies.all_same(request.inputs, inputs)
    assert request.outputs == (tuple(outputs) or None)
    assert request.binary == (frozenset(outputs) or None)
    assert request.timeout_s == (timeout_s and pytest.approx(timeout_s, abs=1e-6))
    assert message.nbytes == len(bodies.body(message))


@SETTINGS
@given(bodies.tensors())
def test_responses_survive_as_bytes(outputs: dict[str, Array]) -> None:
    assert bodies.all_same(decode_response(*sent(encode_response("m", outputs, PLAIN))), outputs)


@SETTINGS
@given(bodies.tensors(), st.data())
def test_responses_survive_as_lists(outputs: dict[str, Array], data: st.DataObject) -> None:
    binary = data.draw(st.frozensets(st.sampled_from(sorted(outputs)) if outputs else st.nothing()))
    request = InferRequest("7", {}, None, binary, None)
    if not all(bodies.finite(array) for name, array in outputs.items() if name not in binary):
        with pytest.raises(
            ProtocolError, match="holds NaN or infinity, which JSON cannot; ask for it as binary data"
        ):
            encode_response("m", outputs, request)
        return
    body, size = sent(encode_response("m", outputs, request))
    content = json.loads(body[:size])
    assert (content["model_name"], content["model_version"], content["id"]) == ("m", "1", "7")
    assert {entry["name"] for entry in content["outputs"] if "data" not in entry} == binary
    found = decode_response(body, size)
    assert found.keys() == outputs.keys()
    for name, array in outputs.items():
        assert bodies.equal(found[name], array)


@pytest.mark.parametrize(("dtype", "word"), DATATYPES.items())
def test_datatypes(dtype: str, word: str) -> None:
    assert messages.datatype(dtype) == word


@pytest.mark.parametrize("dtype", ["complex64", "float8_e4m3fn", "object", ""])
def test_dtypes_that_the_protocol_lacks(dtype: str) -> None:
    with pytest.raises(ProtocolError, match="lacks it"):
        messages.datatype(dtype)


def test_text_of_fixed_width_is_text() -> None:
    message = encode_request({"x": np.array(["a", "ä"])}, [])
    found = decode_request(*sent(message)).inputs["x"]
    assert bodies.same(found, np.array(["a", "ä"], object))


@pytest.mark.parametrize("value", [b"bytes", 1, None, "\ud800"])
@pytest.mark.parametrize("binary", [None, frozenset[str]()])
def test_objects_that_are_not_text(value: object, binary: frozenset[str] | None) -> None:
    array = np.array([value], object)
    with pytest.raises(ProtocolError, match="output 'y'"):
        encode_response("m", {"y": array}, InferRequest(None, {}, None, binary, None))


def test_known_bytes() -> None:
    """The layout of the binary tensor data extension, byte by byte."""
    strings = np.array([["one"], ["zwölf"]], object)
    message = encode_request({"s": strings, "b": np.array([True, False])}, ["y"], timeout_s=0.25)
    assert json.loads(message.json) == {
        "inputs": [
            {"name": "b", "shape": [2], "datatype": "BOOL", "parameters": {"binary_data_size": 2}},
            {"name": "s", "shape": [2, 1], "datatype": "BYTES", "parameters": {"binary_data_size": 17}},
        ],
        "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        "parameters": {"timeout": 250_000},
    }
    assert [bytes(buffer) for buffer in message.buffers] == [
        b"\1\0",
        b"\3\0\0\0one\6\0\0\0zw\xc3\xb6lf",
    ]
    assert message.headers() == {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(len(message.json) + 19),
        "Inference-Header-Content-Length": str(len(message.json)),
    }


def test_json_alone() -> None:
    message = encode_response("m", {"y": np.zeros((1, 2))}, request_of(tensor()))
    assert json.loads(message.json) == {
        "model_name": "m",
        "model_version": "1",
        "outputs": [{"name": "y", "shape": [1, 2], "datatype": "FP64", "data": [0.0, 0.0]}],
    }
    assert message.headers() == {
        "Content-Type": "application/json",
        "Content-Length": str(len(message.json)),
    }


def test_nothing_is_copied_on_the_way_out() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    (buffer,) = encode_request({"x": array}, []).buffers
    assert np.shares_memory(np.frombuffer(buffer, np.uint8), array)


def test_what_is_not_in_one_piece_is_copied_once() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3).T
    (buffer,) = encode_request({"x": array}, []).buffers
    assert not np.shares_memory(np.frombuffer(buffer, np.uint8), array)
    assert bytes(buffer) == array.tobytes()


@SETTINGS
@given(bodies.tensors(max_size=6), st.sampled_from([bytes, bytearray, memoryview]))
def test_nothing_is_copied_on_the_way_in(inputs: dict[str, Array], kind: Any) -> None:
    """However many tensors of whatever width: our own messages are laid out so that each is aligned."""
    message = encode_request(inputs, [])
    body = kind(bodies.body(message))
    for array in decode_request(body, len(message.json)).inputs.values():
        assert (
            array.dtype == object or not array.size or np.shares_memory(array, np.frombuffer(body, np.uint8))
        )


@pytest.mark.parametrize("shift", range(4))
def test_what_is_not_aligned_is_copied(shift: int) -> None:
    values = np.arange(4, dtype=np.float32).reshape(2, 2)
    text = json.dumps({"inputs": [binary()]}).encode()
    text += b" " * (-len(text) % 4 + shift)
    body = bytearray(text + values.tobytes())
    found = decode_request(body, len(text)).inputs["x"]
    assert found.flags.aligned
    assert bodies.same(found, values)
    assert np.shares_memory(found, np.frombuffer(body, np.uint8)) == (shift == 0)


# As tritonclient 2.73.0 writes it: InferenceServerClient.generate_request_body([a, s, f, b, j], outputs=[y, z],
# request_id="42", priority=1, timeout=250000), with binary_data=False for j and z.
RECORDED = (
    b'{"id":"42","inputs":['
    b'{"name":"a","shape":[2,2],"datatype":"FP32","parameters":{"binary_data_size":16}},'
    b'{"name":"s","shape":[1,2],"datatype":"BYTES","parameters":{"binary_data_size":17}},'
    b'{"name":"f","shape":[3],"datatype":"BOOL","parameters":{"binary_data_size":3}},'
    b'{"name":"b","shape":[1],"datatype":"BF16","parameters":{"binary_data_size":2}},'
    b'{"name":"j","shape":[2],"datatype":"INT64","data":[7,-7]}],'
    b'"outputs":[{"name":"y","parameters":{"binary_data":true}},'
    b'{"name":"z","parameters":{"binary_data":false}}],'
    b'"parameters":{"priority":1,"timeout":250000}}'
    b"\x00\x00\x80?\x00\x00\x00@\x00\x00@@\x00\x00\x00\xbf\x03\x00\x00\x00one\x06\x00\x00\x00zw\xc3\xb6lf\x01\x00\x01\xc0?"
)
# The same without outputs, and with j alone.
RECORDED_JSON = (
    b'{"inputs":[{"name":"j","shape":[2],"datatype":"INT64","data":[7,-7]}],'
    b'"parameters":{"binary_data_output":true}}'
)


def test_a_request_of_tritonclient() -> None:
    request = decode_request(RECORDED, 555)
    inputs = {
        "a": np.array([[1, 2], [3, -0.5]], np.float32),
        "s": np.array([["one", "zwölf"]], object),
        "f": np.array([True, False, True]),
        "b": np.array([1.5], ml_dtypes.bfloat16),
        "j": np.array([7, -7]),
    }
    assert bodies.all_same(request.inputs, inputs)
    assert request == InferRequest("42", request.inputs, ("y", "z"), frozenset({"y"}), 0.25)


def test_a_request_of_tritonclient_in_json() -> None:
    request = decode_request(RECORDED_JSON, None)
    assert bodies.all_same(request.inputs, {"j": np.array([7, -7])})
    assert request == InferRequest(None, request.inputs, None, None, None)


# The example in Triton's description of the extension, shortened by the spaces that it has for readers.
TRITON = (
    b'{"model_name":"mymodel","outputs":['
    b'{"name":"output0","shape":[3,2],"datatype":"FP32","parameters":{"binary_data_size":24}}]}'
)


def test_a_response_of_triton() -> None:
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = decode_response(TRITON + values.tobytes(), len(TRITON))
    assert bodies.all_same(found, {"output0": values})


def test_outputs_in_the_form_that_is_wanted() -> None:
    def forms(outputs: object, default: bool | None) -> tuple[object, object]:
        parameters = {} if default is None else {"binary_data_output": default}
        request = request_of(tensor(), outputs=outputs, parameters=parameters)
        return request.outputs, request.binary

    both = [{"name": "a"}, {"name": "b", "parameters": {"binary_data": True}}]
    neither = [{"name": "a", "parameters": {"binary_data": False}}]
    assert forms(None, None) == forms([], False) == (None, frozenset())
    assert forms(None, True) == (None, None)
    assert forms(both, None) == (("a", "b"), {"b"})
    assert forms(both, True) == (("a", "b"), {"a", "b"})
    assert forms(neither, True) == (("a",), frozenset())


@pytest.mark.parametrize(
    ("entry", "values"),
    [
        (tensor(), [[1, 2], [3, 4]]),
        (tensor(data=[[1, 2.5], [3, -0.0]]), [[1, 2.5], [3, 0]]),
        (tensor(shape=[2, 1, 2], data=[[[1, 2]], [[3, 4]]]), [[[1, 2]], [[3, 4]]]),
        (tensor(shape=[], data=[3]), 3),
        (tensor(shape=[0, 3], data=[]), np.empty((0, 3))),
        (tensor(shape=[2, 0], data=[[], []]), np.empty((2, 0))),
        (tensor(data=[3.4e38, -3.4e38, 1e38, 1e-60]), [[3.4e38, -3.4e38], [1e38, 0]]),
        (tensor(datatype="FP16", data=[65504, 0, 0.1, 1]), np.array([[65504, 0], [0.1, 1]], np.float16)),
        (tensor(datatype="BF16", data=[1, 0, 3e38, 2]), np.array([[1, 0], [3e38, 2]], ml_dtypes.bfloat16)),
        (tensor(datatype="BOOL", data=[True, False, False, True]), [[True, False], [False, True]]),
        (tensor(datatype="UINT64", data=[2**64 - 1, 0, 1, 2]), np.array([[2**64 - 1, 0], [1, 2]], np.uint64)),
        (tensor(datatype="INT8", data=[-128, 127, 0, 1]), [[-128, 127], [0, 1]]),
        (tensor(datatype="BYTES", data=["", "ä", "\0", "[1]"]), [["", "ä"], ["\0", "[1]"]]),
    ],
)
def test_lists(entry: dict[str, object], values: Any) -> None:
    found = request_of(entry, parameters=None, outputs=None, id=None).inputs["x"]
    assert messages.datatype("string" if found.dtype == object else found.dtype.name) == entry["datatype"]
    np.testing.assert_array_equal(found, np.asarray(values, found.dtype))


LONG_NAME = 1025 * "n"
DEEP = 40 * "[" + "1" + 40 * "]"


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (tensor(name=...), "the name of an input must be text of 1 to 1024 characters, found None"),
        (tensor(name=""), "the name of an input must be text"),
        (tensor(name=7), "the name of an input must be text .* found 7"),
        (tensor(name=LONG_NAME), "the name of an input must be text"),
        (tensor(name="\ud800"), "is not valid Unicode"),
        (tensor(datatype=...), "input 'x': datatype None is none of BOOL"),
        (tensor(datatype="FP8"), "datatype 'FP8' is none of"),
        (tensor(datatype=["FP32"]), "datatype a list is none of"),
        (tensor(shape=...), "its shape must be a list of at most 32 integers"),
        (tensor(shape=4), "its shape must be a list"),
        (tensor(shape=33 * [1]), "its shape must be a list of at most 32 integers"),
        (tensor(shape=[-1, -4]), "-1 in its shape is not a size from 0 to"),
        (tensor(shape=[True, 4]), "True in its shape"),
        (tensor(shape=[4.0]), "4.0 in its shape"),
        (tensor(shape=["4"]), "'4' in its shape"),
        (tensor(shape=[[4]]), "a list in its shape"),
        (tensor(shape=[2**64]), "in its shape is not a size"),
        (tensor(shape=[10**4000]), "in its shape is not a size"),
        (tensor(shape=[2**16, 2**16]), "its shape has more than"),
        (tensor(shape=[0, 2**31, 2**31], data=[]), "its shape has more than"),
        (tensor(shape=32 * [2**31]), "its shape has more than"),
        (tensor(shape=[2, 3]), r"its data does not have the shape \[2, 3\]"),
        (tensor(data=[[1, 2], [3]]), "its data does not have the shape"),
        (tensor(data=[[1, 2], 3]), "its data does not have the shape"),
        (tensor(data=[1, [2], 3, 4]), "its data does not have the shape"),
        (tensor(data=[[1, 2], [3, [4]]]), "a list in its data is not of its datatype"),
        (tensor(shape=[], data=[[3]]), "a list in its data"),
        (tensor(data="1234"), "data must be a list, found '1234'"),
        (tensor(data=...), "one of binary_data_size and data must be given"),
        (binary(0, data=[1, 2, 3, 4]), "and only one"),
        (tensor(data=[1, 2, 3, None]), "None in its data is not of its datatype"),
        (tensor(data=[1, 2, 3, True]), "True in its data is not of its datatype"),
        (tensor(data=[1, 2, 3, "4"]), "'4' in its data is not of its datatype"),
        (tensor(data=[1, 2, 3, 1e39]), "too large for its datatype"),
        (tensor(data=[1, 2, 3, 10**400]), "too large for its datatype"),
        (tensor(datatype="FP16", data=[1, 2, 3, 70_000]), "too large for its datatype"),
        (tensor(datatype="INT8", data=[1, 2, 3, 128]), "too large for its datatype"),
        (tensor(datatype="UINT8", data=[1, 2, 3, -1]), "too large for its datatype"),
        (tensor(datatype="INT64", data=[1, 2, 3, 2**63]), "too large for its datatype"),
        (tensor(datatype="INT64", data=[1, 2, 3, 4.0]), "4.0 in its data is not of its datatype"),
        (tensor(data=[1, 2, 3, float("nan")]), "does not begin with JSON that can be read"),
        (tensor(data=[1, 2, 3, float("-inf")]), "does not begin with JSON that can be read"),
        (tensor(datatype="BOOL", data=[1, 0, 1, 0]), "1 in its data is not of its datatype"),
        (tensor(datatype="BYTES", data=[1, 2, 3, 4]), "1 in its data is not of its datatype"),
        (tensor(datatype="BYTES", data=["\udfff", "", "", ""]), "is not valid Unicode"),
        (tensor(parameters=[]), "parameters of input 'x' must be a JSON object, found a list"),
        (binary(0), "0 bytes of binary data, but its shape takes 16"),
        (binary(-16), "binary_data_size must be an integer from 0 to"),
        (binary(16.0), "found 16.0"),
        (binary("16"), "found '16'"),
        (binary(2**70), "found 1180591620717411303424"),
        (tensor(data=..., parameters={"shared_memory_region": "r"}), "shared_memory_region is not supported"),
        ("x", "one of the inputs must be a JSON object, found 'x'"),
        (None, "one of the inputs must be a JSON object, found None"),
    ],
)
def test_tensors_that_are_refused(entry: object, why: str) -> None:
    with pytest.raises(ProtocolError, match=why) as refused:
        request_of(entry)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize(
    ("entries", "raw", "why"),
    [
        (
            [binary(True, shape=[1], datatype="BOOL")],
            1,
            "binary_data_size must be an integer from 0 to .*, found True",
        ),
        ([binary(16)], 15, "binary_data_size must be an integer from 0 to 15, found 16"),
        ([binary(15)], 16, "15 bytes of binary data, but its shape takes 16"),
        ([binary(16)], 17, "1 bytes after the last tensor belong to none"),
        ([tensor()], 1, "1 bytes after the last tensor"),
        ([binary(16), binary(16, name="z")], 31, "input 'z': binary_data_size .* from 0 to 15, found 16"),
        ([binary(16), binary(16)], 32, "input 'x' is given twice"),
        ([binary(4, shape=[4], datatype="BOOL")], b"\0\1\2\1", "neither 0 nor 1"),
        ([binary(3, shape=[1], datatype="BYTES")], 3, "a string reaches beyond the end"),
        ([binary(4, shape=[1], datatype="BYTES")], b"\1\0\0\0", "a string reaches beyond the end"),
        ([binary(4, shape=[1], datatype="BYTES")], b"\xff\xff\xff\xff", "a string reaches beyond the end"),
        ([binary(5, shape=[1], datatype="BYTES")], b"\1\0\0\0\xff", "is not UTF-8"),
        ([binary(4, shape=[2], datatype="BYTES")], 4, "1 strings, but its shape takes 2"),
        ([binary(8, shape=[1], datatype="BYTES")], 8, "2 strings, but its shape takes 1"),
    ],
)
def test_bytes_that_are_refused(entries: list[object], raw: int | bytes, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decode_request(*written({"inputs": entries}, bytes(raw)))


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([], "the message must be a JSON object, found a list"),
        (None, "the message must be a JSON object"),
        ({}, "the message has no inputs"),
        ({"inputs": {}}, "inputs must be a list, found a dict"),
        ({"inputs": [], "id": 7}, "id must be text .* found 7"),
        ({"inputs": [], "id": LONG_NAME}, "id must be text"),
        ({"inputs": [], "outputs": "y"}, "outputs must be a list"),
        ({"inputs": [], "outputs": ["y"]}, "one of the outputs must be a JSON object"),
        ({"inputs": [], "outputs": [{"name": "y"}, {"name": "y"}]}, "output 'y' is given twice"),
        (
            {"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": 1}}]},
            "true or false, found 1",
        ),
        ({"inputs": [], "outputs": [{"name": "y", "parameters": {"classification": 3}}]}, "not supported"),
        ({"inputs": [], "parameters": {"binary_data_output": "yes"}}, "true or false, found 'yes'"),
        ({"inputs": [], "parameters": 7}, "parameters of the request must be a JSON object, found 7"),
        ({"inputs": [], "parameters": {"timeout": 0.5}}, "timeout must be an integer"),
        ({"inputs": [], "parameters": {"timeout": -1}}, "timeout must be an integer"),
        ({"inputs": [], "parameters": {"timeout": 10**100}}, "timeout must be an integer"),
    ],
)
def test_requests_that_are_refused(content: object, why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        decode_request(written(content)[0], None)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe{\0}\0",
        b'{"inputs": [',
        b'{"inputs": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"inputs": ' + b"9" * 5000 + b"}",
        b'{"inputs": []} {}',
    ],
    ids=len,
)
def test_what_is_not_json(text: bytes) -> None:
    for decode in (decode_request, decode_response):
        with pytest.raises(ProtocolError, match="does not begin with JSON that can be read"):
            decode(text, None)


@pytest.mark.parametrize("size", [-1, 15, 2**70, 10**5000], ids=["negative", "more", "much more", "huge"])
def test_sizes_of_json_that_the_body_does_not_have(size: int) -> None:
    with pytest.raises(ProtocolError, match="does not fit a body of 14 bytes"):
        decode_request(b'{"inputs": []}', size)


def test_much_json_is_refused_before_it_is_read() -> None:
    with pytest.raises(ProtocolError, match="send tensors as binary data") as refused:
        decode_request(bytes(2**25 + 1), None)
    assert refused.value.status == 413


@pytest.mark.parametrize("header", ["-1", "+1", " 1", "1_0", "٣", "0x1", "1.0", "", 30 * "9"])
def test_headers_that_are_refused(header: str) -> None:
    with pytest.raises(ProtocolError, match="not a number of bytes"):
        messages.json_size(header)


def test_headers() -> None:
    assert messages.json_size(None) is None
    assert messages.json_size("0164") == 164


def test_no_time_left_is_not_all_the_time_there_is() -> None:
    """To Triton, a timeout of 0 means none."""
    for timeout_s, wanted in ((0.0, 1e-6), (-1.0, 1e-6), (float("inf"), 2**53 / 1e6), (2.5, 2.5)):
        assert decode_request(*sent(encode_request({}, [], timeout_s=timeout_s))).timeout_s == wanted
    assert request_of(parameters={"timeout": 0}).timeout_s is None


@pytest.mark.parametrize(
    "body",
    [
        written({"inputs": [binary(16, shape=[2**31], datatype="FP64")]}, bytes(16)),
        written({"inputs": [binary(16, shape=[2**31], datatype="BYTES")]}, bytes(16)),
        written({"inputs": [tensor(shape=[2**31])]}),
        written({"inputs": [tensor(shape=[2**30, 0], data=[])]}),
        (b'{"inputs":[' + b"[]," * 100_000 + b"0]}", None),
        (b'{"inputs":[' + b"{}," * 100_000 + b"0]}", None),
        written({"inputs": [tensor(data=[[]] * 100_000)]}),
        written({"inputs": [tensor(shape=[100_000], datatype="BYTES", data=[""] * 100_000)]}),
        written({"inputs": [binary(400_000, shape=[100_000], datatype="BYTES")]}, bytes(400_000)),
    ],
)
def test_memory_is_bounded_by_what_was_sent(body: tuple[bytes, int | None]) -> None:
    tracemalloc.start()
    try:
        decode_request(*body)
    except ProtocolError:
        pass
    finally:
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak_bytes < 30 * len(body[0]) + 20_000


def test_without_ml_dtypes_there_is_no_bf16() -> None:
    """As on a device that has numpy and ONNX Runtime only."""
    code = """
import sys
sys.modules["ml_dtypes"] = None
from splitc.common.errors import ProtocolError
from splitc.protocol.messages import decode_request, encode_request
import numpy as np
body = b'{"inputs": [{"name": "x", "datatype": "BF16", "shape": [1], "data": [1]}]}'
message = encode_request({"x": np.ones(3, np.float32)}, [])
assert decode_request(b"".join([message.json, *message.buffers]), len(message.json)).inputs["x"].sum() == 3
try:
    decode_request(body, None)
except ProtocolError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert (
        done.stdout == "input 'x': BF16 needs the package ml_dtypes on this side; install it, or send FP32\n"
    )


def test_numbers_of_json_that_no_float_holds_are_refused() -> None:
    text = json.dumps({"inputs": [bodies.tensor()]}).replace("[1, 2, 3, 4]", "[1, 2, 3, 1e999]")
    with pytest.raises(ProtocolError, match="too large for its datatype"):
        decode_request(text.encode(), None)
