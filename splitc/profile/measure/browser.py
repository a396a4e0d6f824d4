"""Profile a model in a browser: serve a page to the phone and wait for the profile that the page sends."""

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
# Tensor types of onnxruntime-web; numpy uses the same names.
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
    """Profile *job* in a browser that opens the page whose address is passed to *say*.

    Over plain http, a browser allows only one thread: the profile then has one thread count, 1.

    Args:
        host: the address to listen at, "" for all addresses of this machine.
        port: 0 for any free port.
        cache_folder: where ONNX Runtime for browsers is kept; None for the user's cache folder.
        silence_s: the page counts as closed when it has sent nothing for this long.

    Raises:
        ProfileError: the page cannot be served, was not opened, failed, was closed or took too long.
    """
    until = time.monotonic() + job.timeout_s
    page = shipped("profilers") / "browser"
    runtime = runtime_files(page, cache_folder or default_cache_folder(), say, job.timeout_s)
    with serving(_files(job, page, runtime), lambda body: _accepted(body, job), host, port) as site:
        for line in _invitation(site, host, job.threads):
            say(line)
        profile = _wait(site, job, say, until, silence_s)
    if _threads(profile) != job.threads:
        say("measured with one thread: browsers allow more only with https or localhost")
    return profile


# --- served files ---


def _files(job: ProfileJob, page: Path, runtime: Path) -> dict[str, ServedFile]:
    """Return every served file by name; `job.json` lists the names of the files of the job."""
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
    """Return a description of *feeds* for the page, and files with their values."""
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
            f"input '{name}' has type {array.dtype.name}, which ONNX Runtime in a browser does not support; profile the "
            "model in another way"
        )
    return array.dtype.name


def _node_count(model: Model) -> int:
    return sum(1 for _ in model.ir.graph.all_nodes())


def _does_nothing() -> bytes:
    """Return a model with one Identity of one float: its run time is the fixed cost of a call."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    return model.SerializeToString()


# --- the result ---


def _accepted(body: bytes, job: ProfileJob) -> Profile:
    """Return the profile that the page sent: with all thread counts, or with one thread if it cannot have more."""
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
    """Wait for the result; pass progress messages of the page to *say*."""
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
            reason = "the page was not opened" if heard_s is None else "it did not finish"
            raise ProfileError(f"{subject}: {reason} within {job.timeout_s:g} s; try again")
        if heard_s is not None and now - heard_s > silence_s:
            raise ProfileError(
                f"{subject}: the page has sent nothing for {silence_s:g} s, so it was closed, the phone is asleep, or it "
                "ran out of memory; keep the page open and the screen on, or use a smaller model"
            )


def _next(site: Site) -> Said | None:
    try:
        return site.said.get(timeout=0.2)
    except queue.Empty:
        return None


def _plain(sentence: str) -> str:
    """Return the reason in an error message of the page, and say so if it means too little memory."""
    reason = re.split(r"ERROR_MESSAGE: |Status Message: ", sentence)[-1].strip(' ".')[:_SAID_CHARACTERS]
    if any(word in reason.lower() for word in _MEMORY):
        return f"the browser ran out of memory ({reason}); use a smaller model"
    return reason or "the page gave no reason"


# --- the address of the page ---


def _invitation(site: Site, host: str, threads: tuple[int, ...]) -> list[str]:
    """Return the instructions for the user, as short lines for a terminal."""
    lines = [f"open http://{host or _address()}:{site.port}{site.path} on the phone"]
    if max(threads) > 1:
        lines.append(
            f"or, for several threads, connect it by USB: adb reverse tcp:{site.port} tcp:{site.port}"
        )
        lines.append(f"and open http://localhost:{site.port}{site.path} there")
    return lines


def _address() -> str:
    """Return the address that this machine sends from; "localhost" if it has no network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # reserved for documentation; nothing is sent
        except OSError:
            return "localhost"
        return str(probe.getsockname()[0])
