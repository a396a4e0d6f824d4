"""Inference over a real connection: right results, in time or not at all, and never for nobody."""

import asyncio
import gc
import json
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from splitc.bundle.manifest import TensorEntry, part_files
from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.common.values import Array
from splitc.protocol.messages import encode_request
from splitc.server.options import ServerOptions
from splitc.server.tails.part import ServedPart
from tests.conftest import Tiny
from tests.server.serving import (
    DIGEST,
    LIMIT_S,
    Asking,
    Gated,
    Running,
    ask,
    head,
    infer,
    infer_once,
    joined,
    make_part,
    once,
    ones,
    parts_of,
    read,
    running,
    until,
)


def heads_of(tiny: Tiny, part: ServedPart, inputs: dict[str, Array]) -> dict[str, Array]:
    """What the device has after its part: the inputs of *part*."""
    values = dict(inputs)
    if part.cut.head is not None:
        values |= ort.run(ort.session(tiny.bundle.path(part_files(part.cut.head)[0])), inputs)
    return {item.name: values[item.name] for item in part.cut.boundary}


def image(tiny: Tiny, seed: int) -> dict[str, Array]:
    item = tiny.bundle.manifest.model.inputs[0]
    shape = tuple(dim for dim in item.shape if isinstance(dim, int))
    return {item.name: np.random.default_rng(seed).standard_normal(shape, np.float32)}


def test_head_here_and_tail_there_is_the_whole_model(tiny: Tiny) -> None:
    parts = parts_of(tiny.bundle)
    assert parts
    inputs = image(tiny, 1)
    whole = ort.run(ort.session(tiny.model), inputs)
    with running(*parts) as server:
        for part in parts:
            answer = infer_once(server, part.name, heads_of(tiny, part, inputs))
            for name, value in answer.outputs().items():
                np.testing.assert_allclose(value, whole[name], rtol=1e-4, atol=1e-6)
            assert answer.headers["splitc-pairing"] == part.pairing


def test_the_answer_says_what_took_how_long() -> None:
    with running(make_part()) as server:
        answer = infer_once(server, "made.c1", ones(), headers={"Splitc-Pairing": DIGEST.upper()})
    pattern = r"recv;dur=[\d.]+, queue;dur=[\d.]+, compute;dur=[\d.]+"
    assert re.fullmatch(pattern, answer.headers["server-timing"])
    assert answer.headers["splitc-pairing"] == DIGEST


def test_plain_json_both_ways() -> None:
    content = {
        "id": "7",
        "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [[1, 2, 3], [4, 5, 6]]}],
    }
    with running(make_part()) as server:
        answer = once(server, "POST", "/v2/models/made.c1/versions/1/infer", json.dumps(content).encode())
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == {
        "model_name": "made.c1",
        "model_version": "1",
        "id": "7",
        "outputs": [{"name": "y", "shape": [2, 3], "datatype": "FP32", "data": [2, 4, 6, 8, 10, 12]}],
    }


def test_long_json_is_read_and_written_beside_the_event_loop() -> None:
    wide = (TensorEntry("x", "float32", (1, "n"), 400_000),)
    content = {"inputs": [{"name": "x", "shape": [1, 50_000], "datatype": "FP32", "data": [1.5] * 50_000}]}
    with running(make_part(inputs=wide)) as server:
        answer = once(server, "POST", "/v2/models/made.c1/infer", json.dumps(content).encode())
    assert answer.json["outputs"][0]["data"] == [3.0] * 50_000


def test_large_tensors_cross_in_parts_and_are_used_where_they_arrived() -> None:
    flags: list[tuple[bool, bool]] = []

    def run(inputs: object, _: object) -> dict[str, Array]:
        assert isinstance(inputs, dict)
        flags.append((inputs["x"].flags.owndata, inputs["x"].ctypes.data % 64 == 0))
        return {"y": inputs["x"]}

    wide = (TensorEntry("x", "float32", (1, 1_000_000), 4_000_000),)
    x = {"x": np.random.default_rng(0).standard_normal((1, 1_000_000), np.float32)}
    with running(make_part(run=run, inputs=wide)) as server:
        answer = infer_once(server, "made.c1", x)
        np.testing.assert_array_equal(answer.outputs()["y"], x["x"])
        assert server.value("splitc_received_bytes_total", model="made.c1") > 4_000_000
        assert server.value("splitc_sent_bytes_total", model="made.c1") > 4_000_000
    assert flags == [(False, True)]


@pytest.mark.parametrize("size", [1, 1000, 100_000, 1_000_000])
def test_bodies_in_chunks_of_any_size(size: int) -> None:
    wide = (TensorEntry("x", "float32", (1, 100_000), 400_000),)
    x = {"x": np.random.default_rng(0).standard_normal((1, 100_000), np.float32)}
    message = encode_request(x, [])
    body = joined(message)
    headers = {"Inference-Header-Content-Length": str(len(message.json))}
    chunks = (body[start : start + size] for start in range(0, len(body), size))
    with running(make_part(inputs=wide)) as server:
        connection = server.connect()
        try:
            connection.request(
                "POST",
                "/v2/models/made.c1/infer",
                b"".join(map(_chunk, [*chunks, b""])),
                {**headers, "Transfer-Encoding": "chunked"},
            )
            np.testing.assert_array_equal(read(connection).outputs()["y"], 2 * x["x"])
        finally:
            connection.close()


def _chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


def test_a_request_that_the_model_cannot_take_harms_no_other() -> None:
    def picky(inputs: object, _: object) -> dict[str, Array]:
        assert isinstance(inputs, dict)
        if (inputs["x"] < 0).any():
            raise ModelError("ONNX Runtime cannot run the model on these inputs (an index is out of range)")
        return {"y": inputs["x"]}

    with running(make_part(run=picky)) as server:
        answer = infer_once(server, "made.c1", ones(value=-1.0))
        assert (answer.status, "an index is out of range" in answer.error) == (400, True)
        assert infer_once(server, "made.c1", ones()).status == 200


def test_batches_form_and_give_what_single_runs_give() -> None:
    gated = Gated()
    with running(make_part(run=gated, max_batch=8)) as server:
        asking = Asking()
        asking.start(server, "made.c1", ones(value=0))
        until(lambda: len(gated.rows) == 1, "the first run")
        for value in range(1, 9):
            asking.start(server, "made.c1", ones(value=value))
        until(lambda: server.queued() == 8, "eight requests in the queue")
        gated.gate.set()
        for value, answer in enumerate(asking.finish()):
            np.testing.assert_array_equal(answer.outputs()["y"], 2 * ones(value=value)["x"])
        assert gated.rows == [1, 8]
        assert server.value("splitc_batch_size_sum", model="made.c1") == 9
        assert server.value("splitc_batch_size_count", model="made.c1") == 2
        assert server.value("splitc_queue_seconds_count", model="made.c1") == 9


def test_overload_is_refused_at_once_and_passes() -> None:
    gated = Gated()
    with running(make_part(run=gated, max_batch=1), options=ServerOptions(max_queue=2)) as server:
        asking = Asking()
        asking.start(server, "made.c1", ones())
        until(lambda: len(gated.rows) == 1, "the first run")
        for _ in range(2):
            asking.start(server, "made.c1", ones())
        until(lambda: server.queued() == 2, "a full queue")
        for _ in range(20):  # while the gate is shut: nothing but an immediate answer can come
            answer = infer_once(server, "made.c1", ones())
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.error == "the queue of this server is full; try again later, or run on the device"
        with server.dial() as sock:  # before the body is there
            sock.sendall(head("POST", "/v2/models/made.c1/infer", "Content-Length: 200"))
            assert sock.recv(1 << 16).startswith(b"HTTP/1.1 503 ")
        assert once(server, "GET", "/v2/health/ready").status == 200
        gated.gate.set()
        assert [answer.status for answer in asking.finish()] == [200, 200, 200]
        assert infer_once(server, "made.c1", ones()).status == 200
        assert server.value("splitc_refusals_total", reason="queue") == 21


def test_a_deadline_that_passes_in_the_queue_costs_no_work() -> None:
    gated = Gated()
    with running(make_part(run=gated, max_batch=1)) as server:
        asking = Asking()
        asking.start(server, "made.c1", ones())
        until(lambda: len(gated.rows) == 1, "the first run")
        answer = infer_once(server, "made.c1", ones(2), timeout_s=0.05)
        assert answer.status == 504
        assert answer.error == "the time that the request allows passed before its computation began"
        assert server.queued() == 0
        gated.gate.set()
        assert asking.finish()[0].status == 200
        assert infer_once(server, "made.c1", ones(3), timeout_s=LIMIT_S).status == 200
    assert gated.rows == [1, 3]


def test_who_leaves_the_queue_costs_no_work() -> None:
    gated = Gated()
    with running(make_part(run=gated, max_batch=1)) as server:
        asking = Asking()
        asking.start(server, "made.c1", ones())
        until(lambda: len(gated.rows) == 1, "the first run")
        message = encode_request(ones(2), [])
        lines = [f"{name}: {value}" for name, value in message.headers().items()]
        with server.dial() as sock:
            sock.sendall(head("POST", "/v2/models/made.c1/infer", *lines) + joined(message))
            until(lambda: server.queued() == 1, "a request in the queue")
        until(lambda: server.queued() == 0, "it leaves the queue with its client")
        gated.gate.set()
        assert asking.finish()[0].status == 200
        assert server.value("splitc_refusals_total", reason="gone") == 1
    assert gated.rows == [1]


def test_who_leaves_at_once_costs_no_work() -> None:
    gated = Gated()
    with running(make_part(run=gated, max_batch=1)) as server:
        asking = Asking()
        asking.start(server, "made.c1", ones())
        until(lambda: len(gated.rows) == 1, "the first run")
        message = encode_request(ones(2), [])
        lines = [f"{name}: {value}" for name, value in message.headers().items()]
        for _ in range(20):
            with server.dial() as sock:
                sock.sendall(head("POST", "/v2/models/made.c1/infer", *lines) + joined(message))
        until(lambda: server.value("splitc_refusals_total", reason="gone") == 20, "the end of all")
        assert server.queued() == 0
        gated.gate.set()
        assert asking.finish()[0].status == 200
    assert gated.rows == [1]


def test_who_leaves_during_the_run_harms_nobody() -> None:
    gated = Gated()
    with running(make_part(run=gated, max_batch=1)) as server:
        message = encode_request(ones(), [])
        lines = [f"{name}: {value}" for name, value in message.headers().items()]
        with server.dial() as sock:
            sock.sendall(head("POST", "/v2/models/made.c1/infer", *lines) + joined(message))
            until(lambda: len(gated.rows) == 1, "the run")
        gated.gate.set()
        until(lambda: server.app.in_flight == 0, "the end of the request")
        assert infer_once(server, "made.c1", ones()).status == 200


def test_draining_finishes_what_was_begun_and_refuses_the_rest() -> None:
    gated = Gated()
    with running(make_part(run=gated, max_batch=1)) as server:
        asking = Asking()
        for number in range(2):
            asking.start(server, "made.c1", ones(value=number))
            # The first must run before the next one comes, which would find its place taken.
            until(lambda: gated.rows == [1] and server.queued() == number, "a request")  # noqa: B023
        server.server.drain()
        assert once(server, "GET", "/v2/health/live").status == 200
        for method, path in (
            ("GET", "/v2/health/ready"),
            ("GET", "/v2/models/made.c1/ready"),
            ("POST", "/v2/models/made.c1/infer"),
            ("POST", "/splitc/probe"),
        ):
            answer = once(server, method, path)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert answer.headers["connection"] == "close"
        gated.gate.set()
        assert [answer.outputs()["y"][0, 0] for answer in asking.finish()] == [0, 2]
        server.thread.join(LIMIT_S)
        assert not server.thread.is_alive()


def test_a_thousand_requests_leave_nothing_behind() -> None:
    def count() -> tuple[int, int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count(), _tasks(server)

    with running(make_part(), make_part("made.c2", max_batch=1)) as server:
        assert infer_once(server, "made.c1", ones()).status == 200
        until(lambda: server.app.in_flight == 0 and not server.server.server_state.connections, "quiet")
        before = count()
        for model in ("made.c1", "made.c2"):
            connections = [server.connect() for _ in range(5)]
            for number in range(500):
                connection = connections[number % 5]
                if number % 50 == 7:
                    assert infer_once(server, model, ones()).status == 200
                elif number % 50 == 8:
                    assert ask(connection, "POST", f"/v2/models/{model}/infer", b"{").status == 400
                else:
                    assert infer(connection, model, ones()).status == 200
            for connection in connections:
                connection.close()
        until(lambda: not server.server.server_state.connections, "closed connections")
        assert count() == before
        assert server.queued() == server.app.in_flight == server.app._inference._memory.held_bytes == 0


def _tasks(server: Running) -> int:
    """How many tasks the server's loop has, as that loop sees it."""
    loop = server.server.servers[0].get_loop()

    async def ask_loop() -> int:
        return len(asyncio.all_tasks())

    return asyncio.run_coroutine_threadsafe(ask_loop(), loop).result(LIMIT_S)


def test_many_clients_at_once_get_their_own_results() -> None:
    def slow(inputs: object, _: object) -> dict[str, Array]:
        assert isinstance(inputs, dict)
        time.sleep(0.002)
        return {"y": 2 * inputs["x"]}

    wrong: list[object] = []

    def client(server: Running, seed: int) -> None:
        generator = np.random.default_rng(seed)
        connection = server.connect()
        try:
            for _ in range(25):
                x = generator.standard_normal((int(generator.integers(1, 4)), 3), np.float32)
                answer = infer(connection, "made.c1", {"x": x})
                if answer.status != 200 or not np.array_equal(answer.outputs()["y"], 2 * x):
                    wrong.append(answer)
        finally:
            connection.close()

    with running(make_part(run=slow)) as server:
        threads = [threading.Thread(target=client, args=(server, seed)) for seed in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(LIMIT_S)
        assert not wrong
        assert server.value("splitc_batch_size_sum", model="made.c1") == 400
        assert server.value("splitc_batch_size_count", model="made.c1") < 400


def test_an_unmodified_public_client(tiny: Tiny) -> None:
    client = pytest.importorskip("tritonclient.http", reason="tritonclient[http] is not installed")
    part = next(part for part in parts_of(tiny.bundle) if part.cut.kind == "split")
    inputs = image(tiny, 2)
    whole = ort.run(ort.session(tiny.model), inputs)
    boundary = heads_of(tiny, part, inputs)
    with running(part) as server, client.InferenceServerClient("{}:{}".format(*server.address)) as triton:
        assert triton.is_server_live()
        assert triton.is_server_ready()
        assert triton.is_model_ready(part.name)
        assert triton.is_model_ready(part.name, "1")
        assert triton.get_server_metadata()["name"] == "splitc"
        assert triton.get_model_metadata(part.name)["name"] == part.name
        for binary in (True, False):
            asked = []
            for item in triton.get_model_metadata(part.name)["inputs"]:
                value = client.InferInput(item["name"], list(boundary[item["name"]].shape), item["datatype"])
                value.set_data_from_numpy(boundary[item["name"]], binary_data=binary)
                asked.append(value)
            wanted = [client.InferRequestedOutput(item.name, binary_data=binary) for item in part.outputs]
            result = triton.infer(part.name, asked, outputs=wanted, timeout=10_000_000, request_id="a")
            for item in part.outputs:
                np.testing.assert_allclose(result.as_numpy(item.name), whole[item.name], rtol=1e-4, atol=1e-6)
        assert triton.infer(part.name, asked).as_numpy(part.outputs[0].name) is not None
        with pytest.raises(client.InferenceServerException, match="there is no such model here"):
            triton.infer("nothing", asked)


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_a_model_that_makes_another_batch_than_it_was_given(rows: int) -> None:
    def wrong(_: object, __: object) -> dict[str, Array]:
        return {"y": np.zeros((rows, 3), np.float32)}

    with running(make_part(run=wrong)) as server:
        answer = infer_once(server, "made.c1", ones(2))
    assert answer.status == 500
    assert f"made 'y' of shape [{rows}, 3], but it declares FP32 [batch, 3] with batch = 2" in answer.error


def test_each_request_of_a_batch_has_its_own_sizes() -> None:
    gated, asking = Gated(), Asking()
    with running(make_part(run=gated)) as server:
        asking.start(server, "made.c1", ones(1))
        until(lambda: bool(gated.rows), "the first runs")
        for rows in (2, 3):
            asking.start(server, "made.c1", ones(rows))
        until(lambda: server.queued() == 2, "two wait for it")
        gated.gate.set()
        made = [answer.outputs()["y"] for answer in asking.finish()]
    assert [len(array) for array in made] == [1, 2, 3]
    assert len(gated.rows) == 2


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_json_cannot_hold_is_answered_as_binary_data_only(value: float) -> None:
    def run(_: object, __: object) -> dict[str, Array]:
        return {"y": np.full((1, 3), value, np.float32)}

    content = {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1.5] * 3}]}
    with running(make_part(run=run)) as server:
        answer = once(server, "POST", "/v2/models/made.c1/infer", json.dumps(content).encode())
        binary = infer_once(server, "made.c1", ones())
    assert answer.status == 400
    assert answer.error == "output 'y' holds NaN or infinity, which JSON cannot; ask for it as binary data"
    np.testing.assert_array_equal(binary.outputs()["y"], np.full((1, 3), value, np.float32))
