"""Profiling in a browser: in a real one, started as a phone would be."""

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.common.records import encode
from splitc.common.resources import shipped
from splitc.common.values import random_feeds
from splitc.model.analysis import AnalysisOptions, analyse
from splitc.model.model import fix_dims, load
from splitc.profile.attribution import attributed_share
from splitc.profile.document import Measurement, Profile
from splitc.profile.match_nodes import reconnected
from splitc.profile.measure.browser import profile_in_browser
from splitc.profile.measure.browser_runtime import locked_version, runtime_files
from splitc.profile.measure.job import ProfileJob
from tests import models
from tests.profile.measure.browsing import Phone, needs_browser, phone, slowed
from tests.running import hear_interrupts, save_tiny

PAGE = shipped("profilers") / "browser"
HERE = "127.0.0.1"
TYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()
SHARED = Path(__file__).parents[4] / "shared" / "models" / "ultraface_slim_320.onnx"
PROGRAM = """
import sys
from pathlib import Path
from splitc.profile.measure.browser import profile_in_browser
from tests.profile.measure.test_browser import make_job
say = lambda line: print(line, flush=True)
profile_in_browser(make_job(Path(sys.argv[1])), say, host="127.0.0.1", cache_folder=Path(sys.argv[2]))
"""


def make_job(path: Path, *, runs: int | None = 10, threads: tuple[int, ...] = (1,)) -> ProfileJob:
    model = load(path)
    return ProfileJob(
        model,
        (random_feeds(model.inputs(), fix_dims(model, {}), 0),),
        threads,
        runs,
        timeout_s=90,
    )


def in_nodes(item: Measurement) -> float:
    """How much of the profiled runs was within nodes."""
    return float(sum(np.mean(node.seconds) for node in item.nodes) / np.mean(item.profiled_whole_s))


def share(path: Path, profile: Profile, folder: Path) -> list[float]:
    """How much of each measurement belongs to units of the model at *path*."""
    found = analyse(path, AnalysisOptions({}, (), simplify=False), folder, Cache(None), lambda _: None)
    known = [reconnected(measurement, found.model) for measurement in profile.measurements]
    return [attributed_share(item, found.sources, found.partition.graph) for item in known]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where ONNX Runtime for browsers is; fetched once for all test processes, and each finds it whole."""
    folder = tmp_path_factory.getbasetemp().parent / "browser-cache"
    try:
        runtime_files(PAGE, folder, lambda _: None, 300)
    except ProfileError as error:
        pytest.skip(f"onnxruntime-web is not here: {error}")
    return folder


Run = Callable[..., tuple[Profile, Phone]]


@pytest.fixture
def run(cache: Path) -> Run:
    def profile(job: ProfileJob, *, untrusted: bool = False, slow: bool = False) -> tuple[Profile, Phone]:
        with phone(untrusted=untrusted) as held:
            if not slow:
                return profile_in_browser(job, held, host=HERE, cache_folder=cache), held
            with slowed(lambda: held.process, stopped_s=0.015, running_s=0.001):
                return profile_in_browser(job, held, host=HERE, cache_folder=cache), held

    return profile


@needs_browser
class TestBrowser:
    def test_a_phone_opens_the_page_and_its_profile_comes_back(self, run: Run, tmp_path: Path) -> None:
        path = save_tiny("tiny_cnn", tmp_path)
        job = make_job(path, threads=(1, 2))
        profile, held = run(job)
        assert (profile.model, profile.source) == (job.model.sha256, "measured")
        assert (profile.runtime, profile.provider) == ("onnxruntime-web", "wasm")
        assert profile.runtime_version == locked_version(PAGE)
        assert "Chrome" in (profile.machine.processor or "")
        assert profile.machine.cores
        assert [item.threads for item in profile.measurements] == [1, 2]
        for item in profile.measurements:
            assert len(item.whole_s) == len(item.profiled_whole_s) == len(item.fixed_s) == 10
            assert item.warmup >= 3
            assert median(item.fixed_s) < median(item.whole_s)
            assert all(len(node.seconds) == 10 for node in item.nodes)
        assert min(share(path, profile, tmp_path)) > 0.95
        assert any("measurement 2 of 2, 2 threads: " in line for line in held.said)

    def test_an_untrusted_origin_has_one_thread_and_a_coarse_clock(self, run: Run, tmp_path: Path) -> None:
        """Such a page gets a clock of 0.1 ms, and most nodes of this model take less."""
        path = save_tiny("tiny_cnn", tmp_path)
        profile, held = run(make_job(path, runs=100, threads=(2,)), untrusted=True)
        (item,) = profile.measurements
        assert item.threads == 1
        assert "one thread" in held.said[-1]
        assert all(seconds > 0 for seconds in item.whole_s)
        assert 0.1 < in_nodes(item) < 1.1
        assert min(share(path, profile, tmp_path)) > 0.95

    @pytest.mark.skipif(not SHARED.exists(), reason="the folder ../shared/models is not there")
    def test_a_real_model_is_attributed_to_its_units(self, run: Run, tmp_path: Path) -> None:
        profile, _ = run(make_job(SHARED))
        (item,) = profile.measurements
        assert min(share(SHARED, profile, tmp_path)) > 0.95
        assert 0.1 < in_nodes(item) < 1.1

    def test_a_slower_phone_is_slower(self, run: Run, tmp_path: Path) -> None:
        """It runs for one millisecond in sixteen; what else disturbs the fast one is not in the median."""
        job = make_job(save_tiny("tiny_cnn", tmp_path), runs=2000)
        fast, slow = (run(job, slow=slow)[0].measurements[0] for slow in (False, True))
        assert np.mean(slow.whole_s) > 2 * median(fast.whole_s)
        fast_s = sum(median(node.seconds) for node in fast.nodes)
        assert sum(np.mean(node.seconds) for node in slow.nodes) > 2 * fast_s

    def test_weights_in_a_file_of_their_own(self, run: Run, tmp_path: Path) -> None:
        proto = models.ALL["diamond"]()
        path = tmp_path / "model.onnx"
        onnx.save_model(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
        profile, _ = run(make_job(path))
        assert min(share(path, profile, tmp_path)) > 0.95

    def test_inputs_of_all_types(self, run: Run, tmp_path: Path) -> None:
        feeds: dict[str, NDArray[Any]] = {"text": np.array(["a", "", "ünï"], dtype=object)}
        feeds |= {f"of_{dtype}": np.ones(3, dtype) for dtype in TYPES}
        job = ProfileJob(
            load(save_same(feeds, tmp_path / "model.onnx")), (feeds,), (1,), runs=1, timeout_s=90
        )
        profile, _ = run(job)
        (item,) = profile.measurements
        assert item.dims == {"n": 3}
        assert {node.name for node in item.nodes} == {f"same_{name}" for name in feeds}

    def test_several_sizings_come_in_order(self, run: Run, tmp_path: Path) -> None:
        sizings = tuple({"x": np.ones(size, np.float32)} for size in (3, 5))
        job = ProfileJob(
            load(save_same(sizings[0], tmp_path / "model.onnx")), sizings, (1,), runs=1, timeout_s=90
        )
        profile, _ = run(job)
        assert [item.dims for item in profile.measurements] == [{"n": 3}, {"n": 5}]

    def test_bodies_count_to_their_node(self, run: Run, tmp_path: Path) -> None:
        path = save_tiny("loop_captures", tmp_path)
        profile, _ = run(make_job(path), untrusted=True)
        (item,) = profile.measurements
        (loop,) = (node for node in item.nodes if node.op == "Loop")
        assert loop.events > 1
        assert len(item.nodes) <= len(load(path).ir.graph)
        assert min(share(path, profile, tmp_path)) > 0.95

    def test_a_model_that_does_not_run_there_says_why(self, run: Run, tmp_path: Path) -> None:
        job = make_job(save_tiny("tiny_cnn", tmp_path))
        (name,) = job.feeds[0]
        with pytest.raises(
            ProfileError, match=r"^profiling tiny_cnn in the browser failed: .*[Rr]ank"
        ) as caught:
            run(replace(job, feeds=({name: np.ones((1, 1), np.float32)},)))
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("sentence", "reason"),
        [
            (
                "Can't create a session. ERROR_CODE: 9, ERROR_MESSAGE: Could not find an implementation for Foo(1)",
                "Could not find an implementation for Foo(1)",
            ),
            (
                "ERROR_MESSAGE: Non-zero status code. Status Message: outer. Status Message: inner one.",
                "inner one",
            ),
            ("std::bad_alloc", "the browser ran out of memory (std::bad_alloc); use a smaller model"),
            ("", "the page gave no reason"),
        ],
    )
    def test_what_the_page_says_becomes_one_clause(
        self, cache: Path, tmp_path: Path, sentence: str, reason: str
    ) -> None:
        def say(line: str) -> None:
            if found := re.match(r"open (\S+)", line):
                body = json.dumps({"sentence": sentence}).encode()
                urllib.request.urlopen(f"{found[1]}failure", body, timeout=20).close()

        job = make_job(save_tiny("tiny_cnn", tmp_path))
        with pytest.raises(ProfileError) as caught:
            profile_in_browser(job, say, host=HERE, cache_folder=cache)
        assert str(caught.value) == f"profiling tiny_cnn in the browser failed: {reason}"

    def test_a_profile_of_another_model_is_refused(self, run: Run, cache: Path, tmp_path: Path) -> None:
        refused: list[str] = []

        def say(line: str) -> None:
            if found := re.match(r"open (\S+)", line):
                wrong = json.dumps(encode(replace(made, model="0" * 64))).encode()
                with pytest.raises(urllib.error.HTTPError) as error:
                    urllib.request.urlopen(f"{found[1]}result", wrong, timeout=20)
                refused.append(error.value.read().decode())
                error.value.close()
                right = json.dumps(encode(made)).encode()
                urllib.request.urlopen(f"{found[1]}result", right, timeout=20).close()

        job = make_job(save_tiny("tiny_cnn", tmp_path), runs=1)
        made, _ = run(job)
        assert profile_in_browser(job, say, host=HERE, cache_folder=cache) == made
        assert "a profile of another model" in refused[0]

    def test_a_type_that_browsers_lack_is_refused_before_the_page(self, cache: Path, tmp_path: Path) -> None:
        feeds = {"x": np.ones(3, ml_dtypes.bfloat16)}
        job = ProfileJob(
            load(save_same({"x": np.ones(3, np.float32)}, tmp_path / "model.onnx")), (feeds,), (1,)
        )
        with pytest.raises(
            ProfileError,
            match="input 'x' has type bfloat16, which ONNX Runtime in a browser does not support",
        ):
            profile_in_browser(job, print, host=HERE, cache_folder=cache)

    def test_a_page_that_is_closed_is_noticed(self, cache: Path, tmp_path: Path) -> None:
        with phone() as held:

            def say(line: str) -> None:
                held(line)
                if "warming up" in line or "runs of" in line:
                    held.close()

            job = make_job(save_tiny("tiny_cnn", tmp_path), runs=1_000_000)
            with pytest.raises(ProfileError, match="the page has sent nothing for 5 s, so it was closed"):
                profile_in_browser(job, say, host=HERE, cache_folder=cache, silence_s=5)

    def test_nobody_opens_the_page(self, cache: Path, tmp_path: Path) -> None:
        job = replace(make_job(save_tiny("tiny_cnn", tmp_path)), timeout_s=0.5)
        with pytest.raises(ProfileError, match=r"the page was not opened within 0.5 s"):
            profile_in_browser(job, print, host=HERE, cache_folder=cache)

    def test_ctrl_c_ends_it(self, cache: Path, tmp_path: Path) -> None:
        path = save_tiny("tiny_cnn", tmp_path)
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path), str(cache)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_interrupts,
            cwd=Path(__file__).parents[3],
        ) as process:
            assert process.stdout is not None
            assert re.match(r"open http://127.0.0.1:\d+/\w{16}/ ", process.stdout.readline())
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        assert err.splitlines()[-1] == "KeyboardInterrupt"
        assert process.returncode == -signal.SIGINT


def save_same(values: Mapping[str, NDArray[Any]], path: Path) -> Path:
    """A model that returns its inputs, each of one dimension."""
    kinds = {
        name: TensorProto.STRING if array.dtype == object else helper.np_dtype_to_tensor_dtype(array.dtype)
        for name, array in values.items()
    }
    inputs = [helper.make_tensor_value_info(name, kind, ["n"]) for name, kind in kinds.items()]
    outputs = [helper.make_tensor_value_info(f"same_{name}", kind, ["n"]) for name, kind in kinds.items()]
    nodes = [helper.make_node("Identity", [name], [f"same_{name}"], name=f"same_{name}") for name in kinds]
    graph = helper.make_graph(nodes, "same", inputs, outputs)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9), path)
    return path
