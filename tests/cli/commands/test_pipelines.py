"""Pipelines on the command line: inspect, compile, verify, pack, serve and run, each as a process."""

import json
import os
import random
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.bundle.folder import MANIFEST, Bundle, read_bundle
from splitc.bundle.pack import pack
from splitc.cli.main import group
from splitc.compile.report import sides
from tests.cli.printed import printed
from tests.cli.test_main import assert_sentence, call
from tests.compile.pipeline.making import DIFFUSION, write_diffusion, write_long
from tests.conftest import Tiny
from tests.models import WIDTH, floats, model, op
from tests.running import LAUNCH, Done, fast_cloud, hear_interrupts, slow_device, splitc, tree
from tests.system.serving import serving

PIPELINE = "pipeline.toml"


@dataclass(frozen=True)
class Made:
    """A pipeline of twenty iterations, compiled by a process for invented machines, and what the process printed."""

    folder: Path
    machines: tuple[str | Path, ...]
    bundle: Bundle
    done: Done

    @property
    def path(self) -> Path:
        return self.folder / PIPELINE


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("pipeline")
    write_long(folder)
    machines = ("--device", slow_device(folder), "--cloud", fast_cloud(folder))
    done = splitc("compile", PIPELINE, *machines, "--no-simplify", "-o", "out", cwd=folder)
    assert done.code == 0, done.err
    return Made(folder, machines, read_bundle(folder / "out"), done)


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    group.main([str(item) for item in arguments], standalone_mode=False)
    return capsys.readouterr().out


# --- compile ---


def test_compile_says_what_each_side_does(made: Made) -> None:
    told = [sides(cut) for cut in made.bundle.manifest.cuts]
    assert told[0] == {"device": "text, denoise 1-20, vae"}
    assert told[-1] == {"cloud": "text, denoise 1-20, vae"}
    assert any(list(words) == ["cloud", "device"] for words in told)
    text = " ".join(made.done.out.split())
    for cut, words in zip(made.bundle.manifest.cuts, told, strict=True):
        assert f"{cut.id} " + ", then ".join(f"{side}: {stages}" for side, stages in words.items()) in text
        assert cut.cloud is None or f"up: {cut.sent[0].name} " in text
    assert "3 of the 20 iterations of stage 'denoise'" in text


def test_the_same_bytes_twice(made: Made, tmp_path: Path) -> None:
    again = splitc(
        "compile",
        made.path,
        *made.machines,
        "--no-simplify",
        "-o",
        tmp_path / "again",
        "--json",
        cwd=tmp_path,
    )
    assert again.code == 0, again.err
    assert tree(tmp_path / "again") == tree(made.bundle.folder)
    facts = printed("compile", again.out)
    assert facts["manifest"] == json.loads(made.bundle.path(MANIFEST).read_bytes())
    assert facts["sides"] == {cut.id: sides(cut) for cut in made.bundle.manifest.cuts}


def test_the_same_bytes_from_recorded_profiles(made: Made, tmp_path: Path) -> None:
    """On a build server, which must not measure."""
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    for name in ("text", "unet", "step", "vae"):
        recorded = splitc(
            *("profile", made.folder / f"{name}.onnx", "--target", "pixel7", "--latency", "20ms"),
            *("-o", profiles / f"{name}.json", "--cache-dir", tmp_path / "cache"),
            cwd=tmp_path,
        )
        assert recorded.code == 0, recorded.err
    for folder in ("a", "b"):
        done = splitc(
            *("compile", made.path, "--device", "pixel7", "--device-profile", profiles, *made.machines[2:]),
            *("--no-simplify", "--no-cache", "-o", tmp_path / folder),
            cwd=tmp_path,
        )
        assert done.code == 0, done.err
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    manifest = read_bundle(tmp_path / "a").manifest
    assert manifest.targets.device.source == "imported"
    # One run of text and vae, twenty of two unets and a step: 20 ms each.
    assert manifest.cuts[0].device_s == pytest.approx(0.02 * (2 + 20 * 3), rel=1e-6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda item: item.name)
def test_stopped_at_any_moment(number: signal.Signals, made: Made, tmp_path: Path) -> None:
    """The bundle is absent or complete."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    moments = random.Random(number)
    for _ in range(3):
        with subprocess.Popen(
            [*LAUNCH, "compile", made.path, *made.machines, "--no-cache", "-o", tmp_path / "out" / "b"],
            env={**os.environ, "TMPDIR": str(temporary)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_interrupts,
        ) as process:
            assert process.stderr is not None
            process.stderr.readline()  # now it handles signals; a busy machine may take long to get here
            with suppress(subprocess.TimeoutExpired):
                process.wait(3 * moments.random())
            process.send_signal(number)
            _, said = process.communicate(timeout=30)
        present = {path.name for path in (tmp_path / "out").glob("*")}
        assert present <= {"b"}
        assert not list(temporary.iterdir())
        if process.returncode:
            assert process.returncode == 128 + number
            assert said.splitlines()[-1] == "interrupted"


# --- mistakes ---


def _grows(folder: Path) -> None:
    nodes = [
        op("Concat", "latents eps", "both", axis=0),
        op("Mul", "both keep", "next"),
        op("Identity", "eps_negative", "rest"),
    ]
    inputs = [floats(name, "rows", WIDTH) for name in ("eps", "eps_negative", "latents")]
    outputs = [floats("next", "more", WIDTH), floats("rest", "rows", WIDTH)]
    onnx.save_model(model(nodes, [*inputs, floats("keep")], outputs), folder / "step.onnx")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "carry = { latents",
            "carry = { latnets",
            "stage 'denoise' carries 'latnets', but none of its steps makes that, did you mean 'latents'?",
        ),
        (
            'latents = "noise"',
            'latents = "eps"',
            "'latents' begins as 'eps', which exists only in its own iterations",
        ),
        ("times = 3", "times = 4", "each 'time': needs a row for each of the 4 iterations, but"),
        (
            'context = "negative"',
            'contxt = "negative"',
            "unet.onnx has no input 'contxt', did you mean 'context'?",
        ),
        (
            'outputs = ["image"]',
            'outputs = ["imag"]',
            "no stage makes the output 'imag', did you mean 'image'?",
        ),
        ("times = 3", "time = 3", "unknown key 'time', did you mean 'times'?"),
        ("vae.onnx", "va.onnx", "va.onnx: no such file; check the path"),
        ("[[stage]]", "[[stage]", "not a TOML file"),
    ],
    ids=["carry", "begin", "rows", "input", "output", "key", "file", "toml"],
)
@pytest.mark.parametrize("command", ["inspect", "compile"])
def test_each_mistake_gives_one_sentence(
    command: str, old: str, new: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_diffusion(tmp_path, DIFFUSION.replace(old, new))
    options = ("--device", "pixel7", "--cloud", "l4", "-o", tmp_path / "out") if command == "compile" else ()
    assert_sentence(call(capsys, command, path, *options), 1, str(tmp_path), words)
    assert not (tmp_path / "out").exists()


def test_a_shape_that_changes_between_iterations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_diffusion(tmp_path, rows="rows")
    _grows(tmp_path)
    assert_sentence(
        call(capsys, "compile", path, "--device", "pixel7", "--cloud", "l4", "-o", tmp_path / "out"),
        1,
        "stage 'denoise' carries 'latents', which begins as float32 [1, 16], but is float32 [2, 16] after an "
        "iteration; it must keep its type and shape",
    )


def test_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["inspect"], ["compile", "--device", "pixel7"]):
        done = call(capsys, *words, tmp_path / "none.toml")
        assert_sentence(done, 1, f"{tmp_path / 'none.toml'}: no such file; check the path")


def test_a_target_latency_that_nothing_meets(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--no-simplify", "--no-verify", "--network", "lte", "--sla", "1us", "-o", made.folder / "sla")
    out = run(capsys, "compile", made.path, *made.machines, *options)
    (sentence,) = (line for line in out.splitlines() if line.startswith("• "))
    assert sentence.startswith("• on lte nothing meets the target; ")


# --- inspect ---


def test_inspect_a_pipeline(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("inspect", made.path, "--no-simplify")
    out = run(capsys, *options)
    rows = {" ".join(line.split()) for line in out.splitlines()}
    assert out.startswith("diffusion: 3 stages of 4 models, ")
    assert any(row.startswith("denoise 20 times 2 x unet.onnx, step.onnx not cut inside") for row in rows)
    assert "latents float32 [2, 16] 128 B denoise denoise, vae" in rows
    assert "denoise 1 ... 19 384 B up, 320 B down 384 B up, 256 B down context, latents" in rows
    assert "denoise 20 128 B up, 320 B down 384 B up, 128 B down latents" in rows
    facts = printed("inspect-pipeline", run(capsys, *options, "--json"))
    assert [(stage["name"], stage["times"]) for stage in facts["stages"]] == [
        ("text", None),
        ("denoise", 20),
        ("vae", None),
    ]
    assert len(facts["places"]) > len([place for place in facts["places"] if place["unit"] is None]) == 3
    assert {value["name"] for value in facts["values"]} == {
        *("prompt", "noise", "negative"),
        *("context", "latents", "image"),
    }


def test_all_places_are_listed_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_diffusion(tmp_path)
    short, full = (run(capsys, "inspect", path, "--no-simplify", *more) for more in ([], ["--tensors"]))
    assert "more places inside stages; list them with --tensors" in short
    assert len(full.splitlines()) > len(short.splitlines())
    assert "more places" not in full


def test_inspect_a_bundle(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "inspect", made.bundle.folder)
    assert "c0 device: text, denoise 1-20, vae" in out
    facts = printed("inspect-bundle", run(capsys, "inspect", made.bundle.folder, "--json"))
    assert facts.pop("sides") == {cut.id: sides(cut) for cut in made.bundle.manifest.cuts}
    assert facts == json.loads(made.bundle.path(MANIFEST).read_bytes())


# --- verify ---


@pytest.mark.parametrize("given", [False, True], ids=["against itself", "against what was compiled"])
def test_verify(given: bool, made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "verify", made.bundle.folder, *(("--model", made.path) if given else ()))
    against = str(made.path) if given else "its own cut c0, which is all-head"
    assert out.splitlines()[-1] == f"8 cuts agree with {against}"
    assert "3 of the 20 iterations of stage 'denoise'" in " ".join(out.split())
    assert [line.split(":")[0] for line in out.splitlines()[:8]] == [f"c{number}" for number in range(8)]


def test_verify_as_json(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    facts = printed("verify", run(capsys, "verify", made.bundle.folder, "--json"))
    assert len(facts["cuts"]) == 8
    assert len(facts["notes"]) == 1


def test_verify_needs_what_was_compiled(made: Made, tiny: Tiny, capsys: pytest.CaptureFixture[str]) -> None:
    for bundle, other in ((made.bundle, made.folder / "vae.onnx"), (tiny.bundle, made.path)):
        done = call(capsys, "verify", bundle.folder, "--model", other)
        assert_sentence(done, 1, f"was compiled from another model than {other}; compile it again")


# --- run ---


@pytest.fixture(scope="module")
def inputs(made: Made) -> list[str]:
    rng = np.random.default_rng(5)
    given = []
    for item in made.bundle.manifest.model.inputs:
        np.save(made.folder / f"{item.name}.npy", rng.standard_normal((2, WIDTH), np.float32))
        given.append(f"--input={item.name}={made.folder / item.name}.npy")
    return given


def image(path: Path) -> np.ndarray:
    with np.load(path) as outputs:
        assert list(outputs) == ["image"]
        return np.asarray(outputs["image"])


def test_the_device_alone(
    made: Made, inputs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From a folder and from a .zip."""
    pack(made.bundle.folder, "device", tmp_path / "app.zip")
    images = []
    for number, bundle in enumerate((made.bundle.folder, tmp_path / "app.zip")):
        out = run(capsys, "run", bundle, *inputs, "-o", tmp_path / f"{number}.npz")
        assert "output image: float32[2, 40]" in out
        images.append(image(tmp_path / f"{number}.npz"))
    np.testing.assert_array_equal(images[1], images[0])


def test_random_inputs_where_none_are_given(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    told = printed("run", run(capsys, "run", made.bundle.folder, "--json"))
    assert [item["finished"] for item in told["requests"]] == ["device"]


def test_every_cut_against_a_server(made: Made, inputs: list[str], tmp_path: Path) -> None:
    """Both sides are packed, and run in their own process; each cut gives the same image as the device alone."""
    for side in ("device", "cloud"):
        pack(made.bundle.folder, side, tmp_path / f"{side}.zip")
    want, finished = None, []
    with serving(tmp_path / "cloud.zip", "--cache-dir", tmp_path / "cache") as server:
        for cut in made.bundle.manifest.cuts:
            out = tmp_path / f"{cut.id}.npz"
            done = splitc(
                "run",
                tmp_path / "device.zip",
                *inputs,
                *("--server", server.url, "--wait", "30s", "--cut", cut.id, "--json"),
                *("-o", out),
                cwd=tmp_path,
            )
            assert done.code == 0, done.err
            (request,) = printed("run", done.out)["requests"]
            assert (request["cut"], request["fallback"]) == (cut.id, None)
            finished.append(request["finished"])
            want = image(out) if want is None else want
            np.testing.assert_allclose(image(out), want, rtol=1e-4, atol=1e-5)
    assert finished[0] == "device"
    assert finished[-1] == "cloud"
