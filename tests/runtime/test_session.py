"""Every request ends in what the whole model makes, whatever becomes of the server."""

import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import pytest

from splitc.bundle.decide import Conditions, Decision
from splitc.bundle.folder import Bundle, file_entry, read_bundle, write_manifest
from splitc.bundle.manifest import Manifest
from splitc.bundle.pairing import pairing
from splitc.common import ort
from splitc.common.errors import (
    BundleError,
    DeadlineExceeded,
    InputError,
    ModelError,
    ProtocolError,
    RuntimeFailure,
    ServerRefused,
    TransportError,
)
from splitc.common.values import difference
from splitc.protocol import messages
from splitc.runtime.session import Outcome, Session
from tests import models, running
from tests.conftest import Tiny
from tests.runtime import servers
from tests.runtime.test_device_parts import eventually

FAST = Conditions(1e9, 1e9, rtt_s=1e-3)
SLOW = Conditions(1e3, 1e3, rtt_s=1.0)
INPUTS = {"image": np.random.default_rng(1).standard_normal((1, 3, 32, 32), np.float32)}
# What a test allows where a user would want milliseconds: the machine may be busy.
BUSY_S = 5.0


@pytest.fixture(scope="module")
def want(tiny: Tiny) -> Mapping[str, Any]:
    """What the whole model makes of INPUTS."""
    return ort.run(ort.session(tiny.model), INPUTS)


@pytest.fixture(scope="module")
def headless(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same bundle, without its all-head cut."""
    cuts = tuple(cut for cut in tiny.bundle.manifest.cuts if cut.kind != "all-head")
    return variant(tiny.bundle, replace(tiny.bundle.manifest, cuts=cuts), tmp_path_factory.mktemp("headless"))


def variant(bundle: Bundle, manifest: Manifest, folder: Path) -> Path:
    for entry in manifest.files:
        (folder / entry.path).symlink_to(bundle.path(entry.path).absolute())
    # A link out of the folder is refused, a copy is not.
    for entry in manifest.files:
        data = (folder / entry.path).read_bytes()
        (folder / entry.path).unlink()
        (folder / entry.path).write_bytes(data)
    write_manifest(folder, manifest)
    return folder


def of_kind(tiny: Tiny, kind: str) -> str:
    return next(cut.id for cut in tiny.bundle.manifest.cuts if cut.kind == kind)


def is_right(outputs: Mapping[str, Any], want: Mapping[str, Any]) -> bool:
    return outputs.keys() == want.keys() and all(
        difference(outputs[name], want[name]).max_rel < 1e-4 for name in want
    )


@contextmanager
def opened(tiny: Tiny, behave: servers.Behaviour, **options: Any) -> Iterator[Session]:
    """A session with a server that behaves like that."""
    with (
        servers.serve(behave) as server,
        Session(tiny.bundle.folder, server=server.url, start=FAST, **options) as session,
    ):
        yield session


# --- it works ---


@pytest.mark.parametrize("kind", ["all-head", "split", "all-tail"])
def test_each_kind_of_cut_makes_what_the_model_makes(tiny: Tiny, want: Mapping[str, Any], kind: str) -> None:
    with opened(tiny, servers.Tails(tiny.bundle), cut=of_kind(tiny, kind)) as session:
        for _ in range(3):
            outcome = session.request(INPUTS)
            assert is_right(outcome.outputs, want)
            assert outcome.fallback is None
            assert outcome.cut == of_kind(tiny, kind)
            assert outcome.finished == ("device" if kind == "all-head" else "cloud")
            assert (outcome.device_s is None) == (kind == "all-tail")
            assert (outcome.exchange is None) == (kind == "all-head")
            assert outcome.latency_s > 0


@pytest.mark.parametrize("name", ["two_inputs_two_outputs", "early_output", "raw_input_reused"])
def test_raw_inputs_cross_and_outputs_made_here_stay(name: str, tmp_path: Path) -> None:
    path = running.save_tiny(name, tmp_path)
    running.compile_here(path, tmp_path / "out")
    bundle = read_bundle(tmp_path / "out")
    feeds = models.random_feeds(onnx.load_model(path))
    want = ort.run(ort.session(path), feeds)
    with servers.serve(servers.Tails(bundle)) as server:
        for cut in bundle.manifest.cuts:
            with Session(bundle.folder, server=server.url, cut=cut.id) as session:
                outcome = session.request(feeds)
                assert outcome.fallback is None
                assert is_right(outcome.outputs, want)
                assert list(outcome.outputs) == [entry.name for entry in bundle.manifest.model.outputs]


def test_a_server_is_told_the_bundle_and_the_deadline(tiny: Tiny) -> None:
    with servers.serve(servers.Tails(tiny.bundle)) as server:
        with Session(
            tiny.bundle.folder, server=server.url, cut=of_kind(tiny, "split"), token="key"
        ) as session:
            session.run(INPUTS)
        [request] = [item for item in server.requests if item.path.endswith("/infer")]
    assert request.path == f"/v2/models/tiny_cnn.{of_kind(tiny, 'split')}/infer"
    cut = next(cut for cut in tiny.bundle.manifest.cuts if cut.id == of_kind(tiny, "split"))
    assert request.headers["splitc-pairing"] == pairing(tiny.bundle.manifest, cut)
    assert request.headers["authorization"] == "Bearer key"
    assert messages.decode_request(request.body, int(request.headers[messages.JSON_SIZE.lower()])).timeout_s


def test_without_a_server_the_device_does_it_all(tiny: Tiny, want: Mapping[str, Any]) -> None:
    with Session(tiny.bundle.folder) as session:
        outcome = session.request(INPUTS, deadline_s=1e-6)
    assert is_right(outcome.outputs, want)
    assert outcome.decision.cut.kind == "all-head"
    assert outcome.fallback is None


def test_a_good_link_is_used_and_a_bad_one_is_not(tiny: Tiny) -> None:
    with servers.serve(servers.Tails(tiny.bundle)) as server:
        with Session(tiny.bundle.folder, server=server.url, start=FAST) as session:
            assert session.request(INPUTS).finished == "cloud"
        with Session(tiny.bundle.folder, server=server.url, start=SLOW) as session:
            assert session.request(INPUTS).finished == "device"


def test_a_target_is_met_with_the_least_work_in_the_cloud(tiny: Tiny) -> None:
    with opened(tiny, servers.Tails(tiny.bundle)) as session:
        # Another cut may stand in while the head is opened.
        assert eventually(lambda: session.request(INPUTS, sla_s=10.0).decision.cut.kind == "all-head")


def test_a_cut_that_is_ready_stands_in_for_one_whose_head_is_not_open(tiny: Tiny) -> None:
    with opened(tiny, servers.Tails(tiny.bundle)) as session:
        decision = session.request(INPUTS, sla_s=10.0).decision
        assert decision.cut.kind == "all-head" or decision.reason.endswith("is opened")


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "'image' is missing"),
        ({"image": np.zeros((1, 3, 32, 32))}, "float64"),
        ({"x": 1}, "no input 'x'"),
    ],
)
def test_wrong_inputs_are_refused_before_anything_happens(
    tiny: Tiny, inputs: dict[str, Any], says: str
) -> None:
    with Session(tiny.bundle.folder) as session, pytest.raises(InputError, match=says):
        session.run(inputs)


def test_a_bundle_may_come_as_a_zip(tiny: Tiny, want: Mapping[str, Any], tmp_path: Path) -> None:
    archive = tmp_path / "app.zip"
    with zipfile.ZipFile(archive, "w") as opened_zip:
        for path in tiny.bundle.folder.iterdir():
            opened_zip.write(path, path.name)
    for _ in range(2):
        with Session(archive, cache_folder=tmp_path / "cache") as session:
            assert is_right(session.run(INPUTS), want)


def test_what_cannot_be_used_is_refused_at_once(tiny: Tiny, headless: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is no cut 'c99'; choose one of c0"):
        Session(tiny.bundle.folder, cut="c99")
    with pytest.raises(BundleError, match="without a server"):
        Session(headless)
    with pytest.raises(BundleError, match="not a bundle"):
        Session(tmp_path)
    cloud = variant(tiny.bundle, replace(tiny.bundle.manifest, side="cloud"), tmp_path)
    with pytest.raises(BundleError, match="packed for the device"):
        Session(cloud)
    with pytest.raises(TransportError, match="not the address"):
        Session(tiny.bundle.folder, server="nonsense")


# --- it goes wrong ---


def wrong(change: str) -> servers.Change:
    """Answers that are HTTP and the protocol's, but not what the manifest promises."""
    outputs: dict[str, dict[str, Any]] = {
        "name": {"other": np.zeros((1, 10), np.float32)},
        "dtype": {"logits": np.zeros((1, 10), np.float64)},
        "shape": {"logits": np.zeros((1, 11), np.float32)},
        "more rows": {"logits": np.zeros((2, 10), np.float32)},
        "no rows": {"logits": np.zeros((0, 10), np.float32)},
        "none": {},
    }

    def answer(request: servers.Request) -> bytes | None:
        if not request.path.endswith("/infer"):
            return None
        asked = messages.decode_request(request.body, int(request.headers[messages.JSON_SIZE.lower()]))
        message = messages.encode_response("m", outputs[change], asked)
        headers = {name: text for name, text in message.headers().items() if name != "Content-Length"}
        return servers.reply(200, b"".join([message.json, *map(bytes, message.buffers)]), headers)

    return answer


def refusing(status: int, headers: Mapping[str, str] | None = None) -> servers.Change:
    answer = servers.reply(status, b'{"error": "no, \\u001b[31mnever"}', headers)
    return lambda request: answer if request.path.endswith("/infer") else None


# Servers that do not speak the protocol at all.
BROKEN_SERVERS: dict[str, servers.Behaviour] = {
    "reset while uploading": servers.resetting_upload,
    "reset while downloading": servers.resetting_download,
    "closed without an answer": servers.closing_after(b""),
    "black hole": servers.black_hole,
    "trickle": servers.trickling,
    "garbage": servers.answering(b"\x00\xff garbage\r\n\r\n"),
    "JSON garbage": servers.answering(servers.reply(200, b'{"outputs": [{}]}')),
    "huge": servers.answering(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999999\r\n\r\n"),
    "endless": servers.endless(b"HTTP/1.1 200 OK\r\n\r\n"),
}
# Servers that run the tails, but answer a request for inference in another way.
CHANGED_ANSWERS: dict[str, servers.Change] = {
    "wrong name": wrong("name"),
    "wrong dtype": wrong("dtype"),
    "wrong shape": wrong("shape"),
    "more rows than were asked for": wrong("more rows"),
    "no rows": wrong("no rows"),
    "no outputs": wrong("none"),
    **{f"status {status}": refusing(status) for status in (302, 400, 401, 403, 404, 412, 500, 503, 504)},
    "status 503, later": refusing(503, {"Retry-After": "2"}),
    "status 503, never": refusing(503, {"Retry-After": "inf, and beyond"}),
}


def behaviour(tiny: Tiny, name: str) -> servers.Behaviour:
    if name in CHANGED_ANSWERS:
        return servers.Tails(tiny.bundle, instead=CHANGED_ANSWERS[name])
    return BROKEN_SERVERS[name]


@pytest.mark.parametrize("name", [*BROKEN_SERVERS, *CHANGED_ANSWERS])
@pytest.mark.parametrize("deadline_s", [None, 0.3])
def test_the_device_finishes_what_the_server_does_not(
    tiny: Tiny, want: Mapping[str, Any], name: str, deadline_s: float | None
) -> None:
    with opened(tiny, behaviour(tiny, name), cut=of_kind(tiny, "split"), deadline_s=deadline_s) as session:
        for _ in range(4):
            outcome = session.request(INPUTS)
            assert is_right(outcome.outputs, want)
            assert outcome.finished == "device"
            assert outcome.fallback
            assert outcome.fallback.isprintable()
            assert outcome.latency_s < (deadline_s or 0) + BUSY_S


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("black hole", DeadlineExceeded),
        ("trickle", DeadlineExceeded),
        ("garbage", ProtocolError),
        ("wrong dtype", ProtocolError),
        ("closed without an answer", TransportError),
        ("status 503", ServerRefused),
        ("status 412", ServerRefused),
    ],
)
def test_without_an_all_head_cut_the_error_is_the_callers(
    tiny: Tiny, headless: Path, name: str, kind: type[RuntimeFailure]
) -> None:
    digest_of = Tiny(tiny.model, tiny.device, read_bundle(headless), tiny.done)
    with (
        servers.serve(behaviour(digest_of, name)) as server,
        Session(headless, server=server.url, start=FAST, cut=of_kind(tiny, "split")) as session,
    ):
        for _ in range(4):
            with pytest.raises(kind):
                session.run(INPUTS, deadline_s=0.3)


def test_without_an_all_head_cut_the_server_is_tried_again_and_again(
    headless: Path, want: Mapping[str, Any]
) -> None:
    left = [servers.reply(500)] * 5
    tails = servers.Tails(read_bundle(headless))
    tails.instead = lambda request: left.pop() if left and request.path.endswith("/infer") else None
    with servers.serve(tails) as server, Session(headless, server=server.url, start=FAST) as session:
        for _ in range(5):
            with pytest.raises(ServerRefused):
                session.run(INPUTS)
        assert is_right(session.run(INPUTS), want)


def test_nobody_listens(tiny: Tiny, want: Mapping[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with Session(tiny.bundle.folder, server=f"http://127.0.0.1:{port}", start=FAST) as session:
        outcome = session.request(INPUTS)
        assert outcome.fallback
        assert is_right(outcome.outputs, want)


def test_a_black_hole_is_left_alone_after_a_while(tiny: Tiny) -> None:
    with (
        servers.serve(servers.black_hole) as server,
        Session(tiny.bundle.folder, server=server.url, start=FAST, cut=of_kind(tiny, "split")) as session,
    ):
        assert eventually(lambda: "avoided" in (session.request(INPUTS).fallback or ""))
        outcomes = [session.request(INPUTS) for _ in range(20)]
    assert sum("avoided" in (outcome.fallback or "") for outcome in outcomes) >= 15


def test_a_server_that_comes_back_is_used_again(tiny: Tiny, want: Mapping[str, Any]) -> None:
    def cloudy(session: Session) -> bool:
        outcome = session.request(INPUTS)
        assert is_right(outcome.outputs, want)
        return outcome.finished == "cloud"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url, split = f"http://127.0.0.1:{port}", of_kind(tiny, "split")
    with Session(tiny.bundle.folder, server=url, start=FAST, cut=split) as session:
        for _ in range(5):
            assert not cloudy(session)
        with servers.serve(servers.Tails(tiny.bundle), port=port):
            assert eventually(lambda: cloudy(session))
        assert not cloudy(session)


@pytest.mark.parametrize("status", [401, 403, 412])
def test_a_server_that_is_not_for_us_is_named_once(
    tiny: Tiny, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    tails = servers.Tails(tiny.bundle, instead=refusing(status))
    with (
        caplog.at_level(logging.WARNING, "splitc.runtime"),
        servers.serve(tails) as server,
        Session(tiny.bundle.folder, server=server.url, start=FAST, cut=of_kind(tiny, "split")) as session,
    ):
        for _ in range(5):
            session.run(INPUTS)
        asked = sum(request.path.endswith("/infer") for request in server.requests)
    assert asked == 1
    [record] = caplog.records
    assert str(status) in record.getMessage()
    assert record.getMessage().isprintable()


def test_an_overloaded_server_gets_less_to_do_and_is_not_given_up(tiny: Tiny) -> None:
    tails = servers.Tails(tiny.bundle, instead=refusing(503, {"Retry-After": "1"}))
    with (
        servers.serve(tails) as server,
        Session(tiny.bundle.folder, server=server.url, start=FAST) as session,
    ):
        first = session.request(INPUTS)
        assert first.fallback
        assert session.conditions().queue_s == pytest.approx(1.0)
        assert session.request(INPUTS).decision.cut.kind == "all-head"
        tails.instead = lambda _: None
        assert eventually(lambda: session.conditions().queue_s < 0.5)


def test_a_late_answer_is_overtaken_by_the_device_but_still_tells(
    tiny: Tiny, want: Mapping[str, Any]
) -> None:
    tails = servers.Tails(tiny.bundle)
    with opened(tiny, tails, cut=of_kind(tiny, "split")) as session:
        session.run(INPUTS)
        assert eventually(lambda: not session._pair.cloud.is_probing())
        before_s = session.conditions().rtt_s
        tails.delay_s = 0.25

        def late() -> bool:
            outcome = session.request(INPUTS)
            assert is_right(outcome.outputs, want)
            return outcome.fallback == "the server was late"

        assert eventually(late)
        # On a busy machine it may have been given up before it came; then another will come.
        assert eventually(lambda: session.conditions().rtt_s > before_s or (late() and False))


# --- a part on the device fails ---


def with_bad_head(tiny: Tiny, folder: Path, kind: str, head: bytes) -> Path:
    """The bundle, but the device's part of the cut of that kind is *head*."""
    made = variant(tiny.bundle, tiny.bundle.manifest, folder)
    file = next(cut.device.file for cut in tiny.bundle.manifest.cuts if cut.kind == kind and cut.device)
    assert file is not None
    (folder / file).write_bytes(head)
    entries = tuple(file_entry(folder, entry.path) for entry in tiny.bundle.manifest.files)
    write_manifest(folder, replace(tiny.bundle.manifest, files=entries))
    return made


def failing_head() -> bytes:
    """A model that loads, and fails for every input."""
    reshape = onnx.helper.make_node("Reshape", ["image", "shape"], ["out"])
    image = onnx.helper.make_tensor_value_info("image", 1, (1, 3, 32, 32))
    out = onnx.helper.make_tensor_value_info("out", 1, None)
    shape = onnx.numpy_helper.from_array(np.array([7, 11], np.int64), "shape")
    return models.model([reshape], [image], [out], [shape]).SerializeToString()


@pytest.mark.parametrize("head", [b"no model", failing_head()], ids=["cannot load", "cannot run"])
@pytest.mark.parametrize("chosen", ["free", "fixed"])
def test_a_head_that_fails_costs_no_answer(
    tiny: Tiny, want: Mapping[str, Any], tmp_path: Path, head: bytes, chosen: str
) -> None:
    folder, bad = with_bad_head(tiny, tmp_path, "split", head), of_kind(tiny, "split")
    with (
        servers.serve(servers.Tails(read_bundle(folder))) as server,
        Session(folder, server=server.url, start=FAST, cut=bad if chosen == "fixed" else None) as session,
    ):
        if chosen == "free":
            cut = next(cut for cut in session.manifest.cuts if cut.id == bad)
            decision = Decision(cut, 1e-3, FAST, "so it is")
            ran, done = session._run(session._pair, decision, INPUTS, None)
            assert ran.kind in ("all-head", "all-tail")
            assert done.fallback is not None
            assert f"the device's part of {bad} failed" in done.fallback
        for _ in range(3):
            outcome = session.request(INPUTS)
            assert is_right(outcome.outputs, want)
            if chosen == "fixed":
                assert f"the device's part of {bad} failed" in (outcome.fallback or "")
            else:
                assert outcome.cut != bad
                assert f"without {bad}" in outcome.decision.reason


def test_without_all_head_the_cloud_goes_on(tiny: Tiny, want: Mapping[str, Any], tmp_path: Path) -> None:
    folder = with_bad_head(tiny, tmp_path, "all-head", b"no model")
    with (
        servers.serve(servers.Tails(read_bundle(folder))) as server,
        Session(folder, server=server.url, start=SLOW) as session,
    ):
        for _ in range(3):
            outcome = session.request(INPUTS)
            assert is_right(outcome.outputs, want)
            assert outcome.finished == "cloud"


def test_inputs_that_no_cut_can_run_exclude_none(tiny: Tiny, tmp_path: Path) -> None:
    folder = with_bad_head(tiny, tmp_path, "all-head", failing_head())
    with Session(folder) as session:
        for _ in range(2):
            with pytest.raises(ModelError, match="on these inputs"):
                session.request(INPUTS)
            assert not session._pair.excluded


def test_a_session_goes_on_with_what_is_open_when_the_bundle_is_rebuilt(
    tiny: Tiny, want: Mapping[str, Any], tmp_path: Path
) -> None:
    folder, split = variant(tiny.bundle, tiny.bundle.manifest, tmp_path), of_kind(tiny, "split")
    with Session(folder) as session:
        assert is_right(session.run(INPUTS), want)
        for entry in session.manifest.files:
            (folder / "new").write_bytes(b"rebuilt")
            (folder / "new").replace(folder / entry.path)
        cut = next(cut for cut in session.manifest.cuts if cut.id == split)
        ran, done = session._run(session._pair, Decision(cut, 1e-3, FAST, "so it is"), INPUTS, None)
        assert ran.kind == "all-head"
        assert "was rebuilt or changed after it was opened" in (done.fallback or "")
        assert is_right(session.run(INPUTS), want)


# --- what is learned ---


@pytest.fixture(scope="module")
def heavy(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A model whose runs take milliseconds: long against what a call costs."""
    folder = tmp_path_factory.mktemp("heavy")
    nodes = [node for source, target in ("xa", "ab", "by") for node in models.conv(source, target)]
    weights = [models.weight(f"{target}_w", 32, 32, 3, 3) for target in "aby"]
    shape = (1, 32, 96, 96)
    onnx.save_model(
        models.model(nodes, [models.floats("x", *shape)], [models.floats("y", *shape)], weights),
        folder / "heavy.onnx",
    )
    running.compile_here(folder / "heavy.onnx", folder / "out")
    return read_bundle(folder / "out")


def test_a_device_three_times_slower_than_predicted_is_known_after_ten_requests(
    heavy: Bundle, tmp_path: Path
) -> None:
    feeds = {"x": np.ones((1, 32, 96, 96), np.float32)}
    with Session(heavy.folder, threads=1) as session:
        for _ in range(3):
            session.run(feeds)
        measured_s = median(session.request(feeds).device_s or 0.0 for _ in range(9))
    cuts = tuple(
        cut if cut.head is None else replace(cut, head=replace(cut.head, latency_s=measured_s / 3))
        for cut in heavy.manifest.cuts
    )
    told = variant(heavy, replace(heavy.manifest, cuts=cuts), tmp_path)
    with Session(told, threads=1, start=FAST) as session:
        assert session.conditions().device_slowdown == 1
        took_s = [session.request(feeds).device_s or 0.0 for _ in range(10)]
        real = median(took_s[-5:]) / (measured_s / 3)  # near 3, unless the machine is busier now, or was
        assert real / 1.5 < session.conditions().device_slowdown < real * 1.5


def test_the_first_request_has_the_link_measured(tiny: Tiny) -> None:
    with servers.serve(servers.Tails(tiny.bundle)) as server:
        with Session(tiny.bundle.folder, server=server.url, start=SLOW) as session:
            assert session.request(INPUTS).finished == "device"
            assert eventually(lambda: len(server.requests) >= 2)
            assert eventually(lambda: session.conditions().rtt_s < SLOW.rtt_s / 2)
        paths = [request.path.partition("?")[0] for request in server.requests]
    # Once more if the second of them was a surprise after the first, as on a busy machine.
    assert paths[:2] == ["/v2/health/live", "/splitc/probe"]


@pytest.mark.parametrize(("head_s", "probes"), [(10.0, True), (1e-7, False)])
def test_a_link_is_looked_at_again_only_if_it_could_matter(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head_s: float, *, probes: bool
) -> None:
    """A device that is faster than any link of the box does not spend its user's data on probes."""
    monkeypatch.setattr("splitc.runtime.estimate.probing._STALE_S", 0.0)
    cuts = tuple(
        replace(cut, head=replace(cut.head, latency_s=head_s)) if cut.head is not None else cut
        for cut in tiny.bundle.manifest.cuts
    )
    folder = variant(tiny.bundle, replace(tiny.bundle.manifest, cuts=cuts), tmp_path)
    with (
        servers.serve(servers.Tails(tiny.bundle)) as server,
        Session(folder, server=server.url, start=replace(SLOW, uplink_bps=1.0)) as session,
    ):
        session.run(INPUTS)
        # The first look is at a link of which nothing is known.
        assert eventually(lambda: session.conditions().rtt_s < SLOW.rtt_s)
        assert eventually(lambda: not session._pair.cloud.is_probing())
        looks = sum(request.path == "/v2/health/live" for request in server.requests)
        if probes:
            before = len(server.requests)
            assert eventually(lambda: bool(session.run(INPUTS)) and len(server.requests) > before)
        else:
            session.run(INPUTS)
            session.run(INPUTS)
            time.sleep(0.2)
            assert sum(request.path == "/v2/health/live" for request in server.requests) == looks


def test_a_server_without_probes_is_measured_by_round_trips(tiny: Tiny) -> None:
    tails = servers.Tails(tiny.bundle, probes=False)
    with (
        servers.serve(tails) as server,
        Session(tiny.bundle.folder, server=server.url, start=SLOW) as session,
    ):
        session.run(INPUTS)
        assert eventually(lambda: session.conditions().rtt_s < SLOW.rtt_s / 2)


# --- threads, forks, ends ---


def test_threads_share_a_session(tiny: Tiny, want: Mapping[str, Any]) -> None:
    outcomes: list[Outcome] = []

    def work() -> None:
        outcomes.extend(session.request(INPUTS) for _ in range(20))

    with opened(tiny, servers.Tails(tiny.bundle), cut=of_kind(tiny, "split")) as session:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(servers.LONGEST_S)
    assert len(outcomes) == 80
    assert all(is_right(outcome.outputs, want) for outcome in outcomes)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # since Python 3.12, where there are threads
def test_a_fork_goes_on_by_itself(tiny: Tiny, want: Mapping[str, Any]) -> None:
    with opened(tiny, servers.Tails(tiny.bundle), cut=of_kind(tiny, "split"), threads=2) as session:
        session.run(INPUTS)
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                outcomes = [session.request(INPUTS) for _ in range(3)]
                good = all(is_right(item.outputs, want) for item in outcomes)
                good &= any(
                    item.finished == "cloud" for item in outcomes
                )  # one may be late on a busy machine
                session.close()
                status = 0 if good else 2
            os._exit(status)
        assert is_right(session.run(INPUTS), want)
        assert servers.exit_status(child) == 0
        assert eventually(lambda: session.request(INPUTS).finished == "cloud")


@pytest.fixture
def heard() -> Iterator[None]:
    """Ctrl-C is heard, also where the tests run in the background of a shell, which has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_in_the_middle(tiny: Tiny, want: Mapping[str, Any]) -> None:
    tails = servers.Tails(tiny.bundle)
    with opened(tiny, tails, cut=of_kind(tiny, "split")) as session:
        session.run(INPUTS)
        for _ in range(3):
            tails.delay_s = 0.2
            timer = threading.Timer(0.05, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
            timer.start()
            with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - whichever turn it comes in
                while True:
                    session.run(INPUTS)
            timer.join()
            tails.delay_s = 0.0
            assert is_right(session.run(INPUTS), want)
        assert eventually(lambda: session.request(INPUTS).finished == "cloud")


@pytest.mark.parametrize("kind", ["all-head", "split"])
def test_a_program_may_end_without_closing(tiny: Tiny, kind: str) -> None:
    """At once, while a head is being opened, or while an exchange hangs."""
    code = (
        "import sys, numpy as np\n"
        "from splitc.runtime.session import Session\n"
        "folder, url, cut, runs = sys.argv[1:]\n"
        "session = Session(folder, server=url, cut=cut, token='x')\n"
        "for _ in range(int(runs)): session.run({'image': np.zeros((1, 3, 32, 32), np.float32)})\n"
    )
    with servers.serve(servers.black_hole) as server:
        for runs in ("0", "1"):
            arguments = [str(tiny.bundle.folder), server.url, of_kind(tiny, kind), runs]
            done = subprocess.run(
                [sys.executable, "-c", code, *arguments],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert (done.returncode, done.stderr) == (0, "")


def test_a_closed_session_refuses_and_closes_again(tiny: Tiny) -> None:
    with opened(tiny, servers.Tails(tiny.bundle)) as session:
        session.run(INPUTS)
        session.close()
        session.close()
        with pytest.raises(RuntimeFailure, match="closed"):
            session.run(INPUTS)


def test_closing_ends_a_probe(tiny: Tiny) -> None:
    with opened(tiny, servers.black_hole) as session:
        session.run(INPUTS, sla_s=10.0)
        began = time.monotonic()
        session.close()
        assert time.monotonic() - began < BUSY_S
        assert not [thread for thread in threading.enumerate() if thread.name == "splitc"]


def test_nothing_is_left_behind(tiny: Tiny) -> None:
    def held() -> tuple[int, int]:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    flaky = [0]

    def sometimes(request: servers.Request) -> bytes | None:
        flaky[0] += request.path.endswith("/infer")
        if flaky[0] % 7 == 0:
            raise EOFError
        return servers.reply(503, b"{}") if flaky[0] % 11 == 0 else None

    before = held()
    with opened(tiny, servers.Tails(tiny.bundle, instead=sometimes), cut=of_kind(tiny, "split")) as session:
        for _ in range(10):
            session.run(INPUTS)
        early = held()
        for _ in range(300):
            session.run(INPUTS)
        assert eventually(lambda: held()[1] <= early[1] + 2)
        assert held()[0] <= early[0] + 8
    assert eventually(lambda: held() <= before)


@pytest.mark.parametrize(
    "price",
    ["1.7e308", "-1.7e308", "1e400", "inf", "nan", "-1", "10001", "1_0", "0x1", "9" * 400, "1, 2", ""],
)
@pytest.mark.parametrize("status", [200, 503])
def test_a_price_that_cannot_be_costs_no_results(
    tiny: Tiny, want: Mapping[str, Any], price: str, status: int
) -> None:
    def priced(request: servers.Request) -> bytes | None:
        if not request.path.endswith("/infer"):
            return servers.reply(404, headers={"Splitc-Price": price})
        if status != 200:
            return servers.reply(status, headers={"Splitc-Price": price, "Retry-After": "0"})
        asked = messages.decode_request(request.body, int(request.headers[messages.JSON_SIZE.lower()]))
        message = messages.encode_response("m", {"logits": want["logits"]}, asked)
        headers = {name: text for name, text in message.headers().items() if name != "Content-Length"}
        body = b"".join([message.json, *map(bytes, message.buffers)])
        return servers.reply(
            200, body, {**headers, "Splitc-Price": price, "Server-Timing": f"recv;dur={price}"}
        )

    with opened(tiny, servers.Tails(tiny.bundle, instead=priced)) as session:
        for _ in range(3):
            assert is_right(session.run(INPUTS), want)
            assert session.conditions().price == 0
