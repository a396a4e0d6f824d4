"""Both sides on this machine: a slowed device and a cloud, with an emulated mobile link between them."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from splitc.bundle.folder import Bundle, read_bundle
from splitc.common.cache import Cache
from splitc.common.errors import BundleError, RuntimeFailure
from splitc.common.records import decode
from splitc.compile.compile import CompileOptions, compile_bundle
from splitc.model.analysis import AnalysisOptions
from splitc.profile.targets.description import Network
from splitc.samples.catalogue import write_sample
from splitc.testbed.bed import Bed
from splitc.testbed.forwarder import USUAL_CONGESTION_CONTROL
from splitc.testbed.slow import Slowed
from splitc.testbed.spec import LinkSpec
from splitc.testbed.traces import synthetic_trace

_SAMPLE, _DEVICE = "regnet_y_4gf", "pixel7"
_PORT = 8000
_SEED = 1
_QUEUE_BYTES = 1 << 20
# The share of the time after which no packet arrives any more, and after which packets arrive again.
_LOST, _FOUND = 0.5, 0.65

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What the device reports of one request; the last three are its estimates when it decided."""

    cut: str
    kind: str
    predicted_s: float
    latency_s: float
    finished: str
    fallback: str | None
    uplink_bps: float
    rtt_s: float
    device_slowdown: float


@dataclass(frozen=True, slots=True)
class Moment:
    """One request, when it ended (seconds after the start), and whether the link was lost then."""

    at_s: float
    link_lost: bool
    request: Request


def demo_bundle(folder: Path, cache: Cache, say: Say) -> Bundle:
    """Return the bundle below *folder*; it is made of a sample model if it is not there yet."""
    place = folder / f"{_SAMPLE}-{_DEVICE}"
    try:
        return read_bundle(place)
    except BundleError:
        folder.mkdir(parents=True, exist_ok=True)
    model = folder / f"{_SAMPLE}.onnx"
    write_sample(_SAMPLE, model)
    options = CompileOptions(AnalysisOptions({}, (), simplify=True), device=_DEVICE)
    compile_bundle(model, place, options, cache, say)
    return read_bundle(place)


def run_demo(
    bundle: Bundle, network: Network, *, slowdown: float, seconds: float, say: Say
) -> Iterator[Moment]:
    """Run requests one after the other for *seconds*; in the middle, the link is lost for a while.

    The link's rates vary between the network's percentiles.

    Raises:
        TestBedError: this machine cannot emulate a link, or does not allow it to this user.
        RuntimeFailure: a side ended before its time.
    """
    with Bed(_link(network, seconds)) as bed:
        if bed.congestion_control != USUAL_CONGESTION_CONTROL:
            say(
                f"TCP uses {bed.congestion_control}: this kernel lacks the {USUAL_CONGESTION_CONTROL} of phones"
            )
        say("Starting the cloud")
        serve = _splitc(
            "serve", bundle.folder, "--host", bed.cloud_address, "--port", str(_PORT), "--threads", "1"
        )
        bed.start("cloud", serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait = _splitc("run", bundle.folder, "--server", _url(bed), "--wait", "120s")
        if bed.start("device", wait, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait():
            raise RuntimeFailure(
                "the cloud of the demo did not start; try `splitc serve` with a bundle of your own"
            )
        say("Starting the device")
        program = [sys.executable, "-m", "splitc.demo.device", str(bundle.folder), _url(bed), str(seconds)]
        device = bed.start("device", program, stdout=subprocess.PIPE)
        assert device.stdout is not None, "asked for"
        with device.stdout as lines:
            if "ready" not in _read(lines):
                raise RuntimeFailure("the device of the demo did not start; what it wrote on stderr says why")
            with Slowed(device.pid, slowdown):
                yield from _moments(bed, lines, seconds)


def _moments(bed: Bed, lines: IO[bytes], seconds: float) -> Iterator[Moment]:
    began_s, lost = time.monotonic(), False
    while value := _read(lines):
        at_s = time.monotonic() - began_s
        yield Moment(at_s, lost, decode(Request, value, "the device of the demo"))
        if lost != (_LOST * seconds <= at_s < _FOUND * seconds):
            lost = not lost
            if lost:
                bed.black_hole()
            else:
                bed.restore()


def _read(lines: IO[bytes]) -> dict[str, object]:
    """The next report of the device; empty when it has ended."""
    value: dict[str, object] = json.loads(lines.readline() or b"{}")
    return value


def _link(network: Network, seconds: float) -> LinkSpec:
    up, down = (
        synthetic_trace(way.lowest, way.typical, way.highest, seconds, _SEED + number)
        for number, way in enumerate((network.uplink_bps, network.downlink_bps))
    )
    return LinkSpec(up, down, rtt_s=network.rtt_s.typical, queue_bytes=_QUEUE_BYTES)


def _splitc(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "splitc", *map(str, arguments)]


def _url(bed: Bed) -> str:
    return f"http://{bed.cloud_address}:{_PORT}"
