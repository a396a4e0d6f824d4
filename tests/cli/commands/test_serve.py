"""`splitc serve`: options that conflict, and what it prints; tests/server/ray/test_deployment.py runs it with Ray."""

import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest

from splitc.runtime.session import Session
from tests import running
from tests.cli.printed import printed
from tests.cli.test_main import assert_sentence, call
from tests.conftest import Tiny
from tests.server.pipelines import request, write_pipeline
from tests.server.serving import LIMIT_S


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--replicas", "2"], "--replicas needs --ray"),
        (["--ray", "--replicas", "4..2"], "'4..2' is not a number of replicas; write it like 2 or 1..4"),
        (["--ray", "--replicas", "0"], "'0' is not a number of replicas"),
        (["--ray", "--replicas", "1..2..3"], "'1..2..3' is not a number of replicas"),
        (["--utilisation", "0.5"], "--utilisation needs --price"),
        (["--price", "--utilisation", "0"], "--utilisation"),
        (["--price", "--utilisation", "1.5"], "--utilisation"),
        (
            ["--ray", "--tls-cert", "c.pem", "--tls-key", "k.pem"],
            "--tls-cert cannot be used with --ray",
        ),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_sentence(call(capsys, "serve", "bundle", *options), 2, words)


def test_without_ray_the_extra_is_named(tiny: Tiny, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ModuleNotFoundError(\"No module named 'ray'\", name='ray')")
    paths = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = running.splitc(
        "serve", tiny.bundle.folder, "--ray", cwd=tmp_path, env={"PYTHONPATH": os.pathsep.join(paths)}
    )
    assert_sentence(
        done, 1, "`splitc serve --ray` needs ray; install it with `pip install 'splitc[serve,ray]'`"
    )


# --- as a process ---


@contextmanager
def serving(*options: str | Path, folder: Path) -> Iterator[dict[str, Any]]:
    """Start `splitc serve`, and yield the JSON that it prints; at the end, check that it exits cleanly."""
    words = [*running.LAUNCH, "serve", *options, "--port", "0", "--json", "--cache-dir", folder / "cache"]
    process = subprocess.Popen(
        [str(word) for word in words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=running.hear_interrupts,
    )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "}\n")
        yield printed("serve", "".join([*takewhile(bool, lines), "}"]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.communicate()


def test_the_price_is_published(tiny: Tiny, tmp_path: Path) -> None:
    with (
        serving(tiny.bundle.folder, "--price", "--utilisation", "0.5", folder=tmp_path) as said,
        urllib.request.urlopen(f"{said['url']}/v2/health/live") as answer,
    ):
        assert answer.headers["splitc-price"] == "0.000000"
    (model, *_) = said["models"]
    assert (model["kind"], len(model["runs"])) in {("split", 1), ("all-tail", 1)}
    assert model["runs"][0]["file"] == model["model"]
    assert model["runs"][0]["times"] == 1
    assert model["runs"][0]["run_s"]["1"] > 0


def test_a_pipeline_is_served_within_a_limit(tmp_path: Path) -> None:
    bundle = write_pipeline(tmp_path / "bundle")
    with serving(bundle.folder, "--memory-limit", "1GB", folder=tmp_path) as said:
        assert [model["model"] for model in said["models"]] == ["steps.c1", "steps.c2", "steps.c3"]
        assert [model["kind"] for model in said["models"]] == ["cloud-first split", "split", "all-tail"]
        assert {run["file"]: run["times"] for run in said["models"][2]["runs"]} == {
            "steps/text.onnx": 1,
            "steps/step.onnx": 6,
            "steps/last.onnx": 1,
        }
        with Session(bundle.folder, server=said["url"], cut="c1") as session:
            outcome = session.request(request(1))
    assert (outcome.finished, outcome.fallback) == ("device", None)
    assert outcome.exchange is not None
