"""A session where the cloud begins and the device finishes, and what it makes of a price."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from splitc.bundle.decide import Conditions
from splitc.bundle.folder import Bundle, file_entry, read_bundle, write_manifest
from splitc.bundle.manifest import CutEntry, direction_of, part_files
from splitc.common import ort
from splitc.common.values import difference
from splitc.compile.limits import LimitOptions
from splitc.runtime.session import Session
from tests import models, running
from tests.conftest import Tiny
from tests.runtime import servers
from tests.runtime.test_device_parts import eventually

FAST = Conditions(1e9, 1e9, rtt_s=1e-3)


def compiled(name: str, folder: Path) -> tuple[Bundle, Mapping[str, Any], Mapping[str, Any]]:
    """A bundle of all-head and cloud-first cuts, inputs for it, and what the whole model makes of them."""
    path = running.save_tiny(name, folder)
    proto = onnx.load_model(path)
    first, last = proto.graph.node[0].output[0], proto.graph.output[0].name
    limits = LimitOptions(pin_cloud=(first,), pin_device=(last,))
    running.compile_here(path, folder / "split", directions=("cloud-first",), limits=limits, regret=0.0)
    running.compile_here(path, folder / "whole")
    feeds = models.random_feeds(proto)
    wanted = ort.run(ort.session(path), feeds)
    return joined(read_bundle(folder / "split"), read_bundle(folder / "whole")), feeds, wanted


def joined(split: Bundle, whole: Bundle) -> Bundle:
    """*split* with the all-head cut of *whole*: both are of one model, whose weights lie in the same file."""
    all_head = next(cut for cut in whole.manifest.cuts if cut.kind == "all-head")
    assert all_head.head is not None
    shutil.copyfile(whole.path(part_files(all_head.head)[0]), split.path("head-alone.onnx"))
    alone = replace(all_head, id="alone", head=replace(all_head.head, file="head-alone.onnx"))
    return rewritten(split, (alone, *split.manifest.cuts))


def rewritten(bundle: Bundle, cuts: tuple[CutEntry, ...]) -> Bundle:
    files = {entry.path for entry in bundle.manifest.files}
    files |= {file for cut in cuts for part in (cut.head, cut.tail) if part for file in part_files(part)}
    entries = tuple(file_entry(bundle.folder, file) for file in sorted(files))
    direction = direction_of(cuts)
    computes = {entry.path: entry.sha256 for entry in entries}
    write_manifest(
        bundle.folder,
        replace(bundle.manifest, cuts=cuts, files=entries, computes=computes, direction=direction),
    )
    return read_bundle(bundle.folder)


def slow_alone(bundle: Bundle) -> Bundle:
    """As if the device alone took 10 s, so that the cloud is asked first."""
    slow = [
        replace(cut, head=replace(cut.head, latency_s=10.0)) if cut.head and cut.kind == "all-head" else cut
        for cut in bundle.manifest.cuts
    ]
    return rewritten(bundle, tuple(slow))


def assert_right(outputs: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    assert outputs.keys() == want.keys()
    assert all(difference(outputs[name], want[name]).max_rel < 1e-4 for name in want)


@pytest.mark.parametrize(
    "name",
    ["tiny_cnn", "chain", "raw_input_reused", "early_output", "two_inputs_two_outputs", "constant_output"],
)
def test_every_cut_makes_what_the_model_makes(name: str, tmp_path: Path) -> None:
    bundle, feeds, want = compiled(name, tmp_path)
    cloud_first = [cut for cut in bundle.manifest.cuts if cut.is_cloud_first]
    assert cloud_first
    with servers.serve(servers.Tails(bundle)) as server:
        for cut in cloud_first:
            with Session(bundle.folder, server=server.url, start=FAST, cut=cut.id) as session:
                for _ in range(2):
                    outcome = session.request(feeds)
                    assert_right(outcome.outputs, want)
                    assert outcome.fallback is None
                    assert outcome.finished == "device"
                    assert outcome.exchange is not None
                    assert outcome.device_s is not None


def test_only_what_the_cloud_reads_is_sent(tmp_path: Path) -> None:
    bundle, feeds, _ = compiled("tiny_cnn", tmp_path)
    cut = next(cut for cut in bundle.manifest.cuts if cut.is_cloud_first)
    with (
        servers.serve(servers.Tails(bundle)) as server,
        Session(bundle.folder, server=server.url, start=FAST, cut=cut.id) as session,
    ):
        exchange = session.request(feeds).exchange
        assert exchange is not None
        assert exchange.uplink_bytes >= cut.uplink_bytes == sum(feed.nbytes for feed in feeds.values())
        assert exchange.downlink_bytes >= cut.downlink_bytes


def test_without_a_server_the_device_does_it_all(tmp_path: Path) -> None:
    bundle, feeds, want = compiled("tiny_cnn", tmp_path)
    cut = slow_alone(bundle).manifest.cuts[-1]
    with Session(bundle.folder, server="http://127.0.0.1:9", start=FAST, cut=cut.id) as session:
        outcome = session.request(feeds)
        assert_right(outcome.outputs, want)
        assert outcome.fallback is not None
        assert outcome.exchange is None
        assert outcome.finished == "device"


def test_nonsense_instead_of_the_boundary_is_refused(tmp_path: Path) -> None:
    bundle, feeds, want = compiled("tiny_cnn", tmp_path)
    cut = next(cut for cut in bundle.manifest.cuts if cut.is_cloud_first)
    garbage = servers.reply(200, b'{"outputs": []}')
    with (
        servers.serve(
            servers.Tails(bundle, instead=lambda request: garbage if "infer" in request.path else None)
        ) as server,
        Session(bundle.folder, server=server.url, start=FAST, cut=cut.id) as session,
    ):
        outcome = session.request(feeds)
        assert_right(outcome.outputs, want)
        assert outcome.fallback is not None


# --- the price ---


def test_a_price_sends_work_back_to_the_device_and_its_end_brings_it_again(tmp_path: Path) -> None:
    bundle, feeds, _ = compiled("tiny_cnn", tmp_path)
    bundle = slow_alone(bundle)
    tails = servers.Tails(bundle, price=1e4)
    quick = replace(FAST, device_slowdown=0.01)  # so that the highest price that counts outweighs it
    with (
        servers.serve(tails) as server,
        Session(bundle.folder, server=server.url, start=quick) as session,
    ):
        eventually(lambda: session.conditions().price == 1e4 or not session.request(feeds))
        decision = session.request(feeds).decision
        assert decision.cut.kind == "all-head"
        assert "price" in decision.reason
        tails.price = None
        # Nothing is sent any more; a probe finds out that the cloud is cheap again.
        assert eventually(lambda: session.request(feeds).decision.cut.cloud is not None)


def test_a_refusal_tells_the_price_as_well(tiny: Tiny) -> None:
    inputs = models.random_feeds(onnx.load_model(tiny.model))
    busy = servers.reply(503, b"{}", {"Retry-After": "0", "Splitc-Price": "7.5"})
    with (
        servers.serve(
            servers.Tails(tiny.bundle, instead=lambda request: busy if "infer" in request.path else None)
        ) as server,
        Session(tiny.bundle.folder, server=server.url, start=FAST) as session,
    ):
        # The first probe, which knows of no price, may come last.
        assert eventually(lambda: bool(session.request(inputs)) and session.conditions().price == 7.5)
