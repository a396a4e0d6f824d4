"""Profile a model in a browser: serve a page to the phone, and wait for what it sends back."""

import json
import queue
import re
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from splitc.common.cache import default_cache_folder
from splitc.common.errors import ProfileError
from splitc.common.resources import shipped
from splitc.common.values import Array, Feeds
from splitc.model.model import Model
from splitc.profile.document import Profile
from splitc.profile.measure.browser_runtime import BINARY, SCRIPT, runtime_files
from splitc.profile.measure.browser_server import PageFailed, Result, Said, ServedFile, Site, serving
from splitc.profile.measure.job import ProfileJob, Say, dims, files, printed_profile

_WHERE = "in the browser"
_SILENCE_S = 30.0
_PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "worker.js": ("worker.js", "text/javascript"),
}
# What onnxruntime-web calls its tensors is what numpy calls them; it has no others.
_TYPES = frozenset("bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split())
_SAID_CHARACTERS = 300
_MEMORY = ("bad_alloc", "out of memory", "array buffer allocation", "allocation failed", "memory access")


def profile_in_browser(
    job: ProfileJob,
    say: Say,
    *,
    host: str = "",
    port: int = 0,
    cache_folder: Path | None = None,
    silence_s: float = _SILENCE_S,
) -> Profile:
    """Profile *job* in the browser that opens the page whose address goes to *say*.

    Over plain http a browser has one thread for us; then the profile holds one thread only.

    Args:
        host: the address to listen at, "" for all of this machine's.
        port: 0 for any that is free.
        cache_folder: where ONNX Runtime for browsers is kept; None for the user's.
        silence_s: after which the page counts as closed.

    Raises:
        ProfileError: in one sentence what is wrong, and what to do about it.
    """
    until = time.monotonic() + job.timeout_s
    page = shipped("profilers") / "browser"
    runtime = runtime_files(page, cache_folder or default_cache_folder(), say, job.timeout_s)
    with serving(_files(job, page, runtime), lambda body: _accepted(body, job), host, port) as site:
        for line in _invitation(site, host, job.threads):
            say(line)
        profile = _wait(site, job, say, until, silence_s)
    if _threads(profile) != job.threads:
        say("measured with one thread: a browser has more only at https or localhost")
    return profile


# --- what is served ---


def _files(job: ProfileJob, page: Path, runtime: Path) -> dict[str, ServedFile]:
    """Every file by the name under which the page fetches it; the job names those it has to fetch."""
    (_, model), *external = files(job.model).items()
    fetched = {BINARY: ServedFile(runtime / BINARY, "application/wasm"), "model.onnx": ServedFile(model)}
    data = [{"path": path, "url": f"data{number}"} for number, (path, _) in enumerate(external)]
    fetched |= {f"data{number}": ServedFile(path) for number, (_, path) in enumerate(external)}
    sizings = []
    for number, feeds in enumerate(job.feeds):
        described, values = _described(feeds, f"inputs{number}-")
        sizings.append({"dims": dims(job.model, feeds), "feeds": described})
        fetched |= values
    fetched["nothing.onnx"] = ServedFile(_does_nothing())
    task = {
        "name": job.model.name,
        "sha256": job.model.sha256,
        "files": [{"url": name, "bytes": served.bytes()} for name, served in fetched.items()],
        "wasm": BINARY,
        "model": "model.onnx",
        "data": data,
        "nothing": "nothing.onnx",
        "nodes": _node_count(job.model),
        "sizings": sizings,
        "threads": job.threads,
        "runs": job.runs,
    }
    return {
        **{name: ServedFile(page / file, kind) for name, (file, kind) in _PAGE.items()},
        **fetched,
        SCRIPT: ServedFile(runtime / SCRIPT, "text/javascript"),
        "job.json": ServedFile(json.dumps(task).encode(), "application/json"),
    }


def _described(feeds: Feeds, prefix: str) -> tuple[list[dict[str, Any]], dict[str, ServedFile]]:
    """What the page needs to know of *feeds*, and their bytes."""
    described: list[dict[str, Any]] = []
    values = {}
    for number, (name, array) in enumerate(feeds.items()):
        item: dict[str, Any] = {"name": name, "type": _type(name, array), "dims": list(array.shape)}
        if item["type"] == "string":
            item["texts"] = [str(value) for value in array.ravel()]
        else:
            item["url"] = f"{prefix}{number}"
            little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
            values[item["url"]] = ServedFile(little.tobytes())
        described.append(item)
    return described, values


def _type(name: str, array: Array) -> str:
    if array.dtype.kind in "OUS":
        return "string"
    if array.dtype.name not in _TYPES:
        raise ProfileError(
            f"input '{name}' is of {array.dtype.name}, which a browser's ONNX Runtime cannot be given; profile the model "
            "in another way"
        )
    return array.dtype.name


def _node_count(model: Model) -> int:
    return sum(1 for _ in model.ir.graph.all_nodes())


def _does_nothing() -> bytes:
    """A model of one Identity of one float: running it costs what running any model costs."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    return model.SerializeToString()


# --- what comes back ---


def _accepted(body: bytes, job: ProfileJob) -> Profile:
    """The profile that the page sent: of all thread counts, or of one thread where it cannot have more."""
    try:
        return printed_profile(body, job, _WHERE)
    except ProfileError:
        if job.threads == (1,):
            raise
        profile = printed_profile(body, replace(job, threads=(1,)), _WHERE)
        if _threads(profile) != (1,):
            raise
        return profile


def _threads(profile: Profile) -> tuple[int, ...]:
    return tuple(dict.fromkeys(measurement.threads for measurement in profile.measurements))


def _wait(site: Site, job: ProfileJob, say: Say, until: float, silence_s: float) -> Profile:
    """Wait for the result; what the page does in between goes to *say*."""
    heard_s, shown = None, ""
    subject = f"profiling {job.model.name} {_WHERE}"
    while True:
        said = _next(site)
        now = time.monotonic()
        match said:
            case Result(profile):
                return profile
            case PageFailed(sentence):
                raise ProfileError(f"{subject} failed: {_plain(sentence)}")
            case None:
                pass
            case beat:
                heard_s = now
                if beat.text != shown:
                    shown = beat.text
                    say(shown)
        if now > until:
            reason = "nobody opened the page" if heard_s is None else "it was not done"
            raise ProfileError(f"{subject}: {reason} within {job.timeout_s:g} s; try again")
        if heard_s is not None and now - heard_s > silence_s:
            raise ProfileError(
                f"{subject}: the page has been silent for {silence_s:g} s, so it was closed, the phone sleeps, or it ran "
                "out of memory; keep the page open and the screen on, or take a smaller model"
            )


def _next(site: Site) -> Said | None:
    try:
        return site.said.get(timeout=0.2)
    except queue.Empty:
        return None


def _plain(sentence: str) -> str:
    """The page's words without what ONNX Runtime puts around its own, and memory by its name."""
    reason = re.split(r"ERROR_MESSAGE: |Status Message: ", sentence)[-1].strip(' ".')[:_SAID_CHARACTERS]
    if any(word in reason.lower() for word in _MEMORY):
        return f"the browser ran out of memory ({reason}); take a smaller model"
    return reason or "the page does not say why"


# --- where the page is ---


def _invitation(site: Site, host: str, threads: tuple[int, ...]) -> list[str]:
    """Short lines: a terminal shows each on one of its own."""
    lines = [f"open http://{host or _address()}:{site.port}{site.path} on the phone"]
    if max(threads) > 1:
        lines.append(f"or, for several threads, attach it: adb reverse tcp:{site.port} tcp:{site.port}")
        lines.append(f"and open http://localhost:{site.port}{site.path} there")
    return lines


def _address() -> str:
    """The address of this machine in its network, as far as it can tell: the one that it would send from."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation; nothing is sent
        except OSError:
            return "localhost"
        return str(probe.getsockname()[0])
