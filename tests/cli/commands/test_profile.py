"""`splitc profile` and `splitc calibrate`: measurements are kept, and builds use them."""

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import onnx
import pytest

from splitc.bundle.folder import read_bundle
from splitc.cli.commands.profile import _host_name
from splitc.cli.main import group
from splitc.common.records import decode
from splitc.common.resources import shipped
from splitc.profile.document import Profile, read_profile
from tests import models
from tests.cli.printed import printed
from tests.profile.test_ort_trace import record
from tests.running import LAUNCH, Done, hear_interrupts, save_tiny, splitc, tree


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh cache folder, which every command in the test uses by default."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "splitc"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny("tiny_cnn", tmp_path)


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Done:
    with pytest.raises(SystemExit) as ended:
        group.main([str(argument) for argument in arguments], prog_name="splitc")
    said = capsys.readouterr()
    code = ended.value.code
    assert isinstance(code, int)
    return Done(code, said.out, said.err)


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    done = call(capsys, *arguments)
    assert done.code == 0, done.err
    return done.out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 1) -> str:
    done = call(capsys, *arguments)
    assert (done.code, done.out) == (code, ""), done.err
    assert done.err.count("error: ") == 1
    assert "Traceback" not in done.err
    return done.sentence


def kept(cache: Path) -> list[str]:
    return sorted(str(path.relative_to(cache)) for path in cache.glob("kept/**/*") if path.is_file())


def device_of(
    capsys: pytest.CaptureFixture[str], model: Path, device: str | Path, *options: str | Path
) -> dict[str, Any]:
    """What a build for *device* prints about its times."""
    text = run(
        capsys,
        "compile",
        model,
        "--device",
        device,
        "--cloud",
        "aws-c5-4xlarge",
        "-o",
        model.parent / "out",
        "--json",
        *options,
    )
    head = printed("compile", text)["manifest"]["targets"]["device"]
    assert isinstance(head, dict)
    return head


# --- this machine ---


def test_here(model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "profile", model, "-o", tmp_path / "new" / "p.json", "--threads", "1,2", "--runs", "9")
    profile = read_profile(tmp_path / "new" / "p.json")
    assert [item.threads for item in profile.measurements] == [1, 2]
    assert [len(item.whole_s) for item in profile.measurements] == [9, 9]
    assert profile.units is not None
    assert all(len(unit.seconds) == 2 and unit.work for unit in profile.units)
    for index, item in enumerate(profile.measurements):
        spent = sum(unit.seconds[index] or 0 for unit in profile.units)
        assert spent <= max(item.whole_s)
    assert "100 % of the time" in text
    assert "block/conv1/relu" in text
    assert f"wrote {tmp_path / 'new' / 'p.json'}" in text
    assert [name.rpartition("-")[0] for name in kept(cache)] == [
        "kept/local/tiny_cnn-1t",
        "kept/local/tiny_cnn-2t",
    ]


def test_a_build_uses_a_kept_profile(model: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = run(capsys, "profile", model, "--runs", "5")
    assert f"`splitc compile {model} --cloud local` now uses it" in text
    assert device_of(capsys, model, "local")["source"] == "measured"
    assert not (cache / "profiles").exists(), "it was measured again"
    run(capsys, "profile", model, "--runs", "5")
    assert len(kept(cache)) == 1


def test_as_json(model: Path, cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    value = printed("profile", run(capsys, "profile", model, "--runs", "5", "--json"))
    (name,) = kept(cache)
    assert decode(Profile, value, "printed") == read_profile(cache / name)


def test_several_sizes(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_tiny("named_dims", tmp_path)
    run(capsys, "profile", model, "--dim", "height=4,6", "--dim", "width=4", "--runs", "5", "--threads", "1")
    names = [name.rpartition("-")[0] for name in kept(cache)]
    assert names == [f"kept/local/named_dims-1t-batch=1-height={height}-width=4" for height in (4, 6)]
    units = [read_profile(cache / name).units for name in kept(cache)]
    assert (units[0] is None, units[1] is None) == (False, True)


def test_another_machine_says_how_to_reach_it(
    model: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(capsys, "profile", model, "--target", "pixel7", "-o", model.parent / "q.json")
    assert (
        "target 'pixel7' is not this machine; reach it with --target ssh://HOST --as pixel7, --adb" in message
    )
    assert Path(message.split("run ")[1].split(" on it")[0]).is_file()
    assert not (model.parent / "q.json").exists()
    assert kept(cache) == []


# --- wrong usage ---


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--adb", "--browser"], "--adb and --browser are two ways"),
        (["--import", "t.json", "--latency", "1ms"], "--import and --latency are two ways"),
        (["--target", "ssh://pi", "--adb"], "--target ssh://... and --adb are two ways"),
        (["--serial", "X"], "--serial needs --adb"),
        (["--program", "X"], "--program needs --adb"),
        (["--port", "80"], "--port needs --browser"),
        (["--as", "pixel7"], "--as needs --target ssh://..."),
        (["--latency", "1ms"], "target 'local' is this machine, which can be measured directly"),
        (["--target", "pixel7", "--latency", "soon"], "invalid duration 'soon'; write it like 100ms"),
        (["--target", "pixel7", "--latency", "1ms", "--runs", "3"], "--runs cannot be used with --latency"),
        (["--target", "pixel7", "--latency", "1ms", "--threads", "1,2"], "a single number of threads"),
        (["--target", "pixel7", "--import", "t.json", "--dim", "a=1,2"], "--import is for a single size"),
        (["--samples", "s.npz", "--dim", "a=1,2"], "--samples has a single size"),
        (["--threads", "0"], "'0' is not a list of positive whole numbers, such as 1,4"),
        (["--threads", "two"], "is not a list of positive whole numbers"),
        (["--dim", "seq"], "is not NAME=SIZE"),
        (["--dim", "seq=1,x"], "is not a list of whole numbers"),
        (["--dim", "seq="], "is not NAME=SIZE"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_usage(options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "profile", "model.onnx", *options, code=2)
    assert words in message
    assert "; see `splitc profile --help`" in message


def test_a_pipeline_must_be_profiled_model_by_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = tmp_path / "two.toml"
    stages = [f'[[stage]]\nname = "{name}"\nmodel = "{name}.onnx"\n' for name in ("first", "second")]
    pipeline.write_text("\n".join(['name = "two"', 'outputs = ["y"]', *stages]), encoding="utf-8")
    message = refused(capsys, "profile", pipeline, code=2)
    assert "two.toml is a pipeline; profile its models one by one: first.onnx, second.onnx" in message


def test_unknown_target(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'pixel7'?" in refused(
        capsys, "profile", model, "--target", "pixle7", "--latency", "1ms"
    )
    assert "did you mean 'pixel7'?" in refused(
        capsys, "profile", model, "--target", "ssh://nobody.invalid", "--as", "pixle7"
    )


# --- imported ---


def test_a_trace_from_a_phone(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = record(model, tmp_path, runs=12)
    text = run(capsys, "profile", model, "--target", "pixel7", "--import", trace, "-o", tmp_path / "p.json")
    assert "last 9 runs were used, and 3 were left out as warm-up" in " ".join(text.split())
    assert "so 4 was assumed; correct it with --threads" in " ".join(text.split())
    assert f"`splitc compile {model} --device pixel7` now uses it" in text
    profile = read_profile(tmp_path / "p.json")
    assert (profile.source, profile.measurements[0].threads) == ("imported", 4)
    head = device_of(capsys, model, "pixel7")
    assert (head["source"], head["threads"], head["name"]) == ("imported", 4, "pixel7")
    notes = read_bundle(tmp_path / "out").manifest.notes
    assert any("imported from a trace" in note for note in notes)


def test_a_document_from_a_board(
    model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The output of the program, run by hand on the unsimplified model."""
    program = shipped("profilers") / "onnxruntime_cpu.py"
    printed = subprocess.run(
        [LAUNCH[0], program, model, "--threads", "1,4", "--runs", "5"], capture_output=True, check=True
    ).stdout
    (tmp_path / "printed.json").write_bytes(printed)
    run(capsys, "profile", model, "--target", "raspberrypi4", "--import", tmp_path / "printed.json")
    assert len(kept(cache)) == 2
    assert device_of(capsys, model, "raspberrypi4")["source"] == "measured"
    message = refused(
        capsys,
        "profile",
        model,
        "--target",
        "pixel7",
        "--import",
        tmp_path / "printed.json",
        "--threads",
        "3",
    )
    assert "was recorded with 1, 4 threads, not 3" in message


def test_a_profile_of_another_model_is_not_kept(
    model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = record(save_tiny("diamond", tmp_path), tmp_path)
    arguments = ("profile", model, "--target", "pixel7", "-o", tmp_path / "p.json", "--import")
    message = refused(capsys, *arguments, trace)
    assert "only 0 % of the recorded time belongs to nodes of tiny_cnn" in message
    assert "another model" in message
    run(capsys, "profile", tmp_path / "diamond.onnx", "--runs", "5", "-o", tmp_path / "other.json")
    assert "is a profile of another model" in refused(capsys, *arguments, tmp_path / "other.json")
    assert not (tmp_path / "p.json").exists()
    assert all(name.startswith("kept/local/diamond") for name in kept(cache))


def test_a_profile_at_other_sizes_is_not_kept(
    cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_tiny("dynamic_batch", tmp_path)
    trace = record(model, tmp_path)
    arguments = ("profile", model, "--target", "pixel7", "--import", trace, "--dim")
    recorded = models.random_feeds(onnx.load_model(model))["x"].shape[0]
    run(capsys, *arguments, f"batch={recorded}")
    message = refused(capsys, *arguments, f"batch={recorded + 1}")
    assert "the trace is of another model or of other sizes" in message
    assert "give the sizes of the trace with --dim" in message
    assert len(kept(cache)) == 1


def test_a_broken_trace(model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text, words in (
        ("[]", "the trace is empty"),
        ("x", "neither an ONNX Runtime trace"),
        ('{"splitc_profile": 9}', ""),
    ):
        (tmp_path / "t.json").write_text(text, encoding="utf-8")
        assert words in refused(
            capsys, "profile", model, "--target", "pixel7", "--import", tmp_path / "t.json"
        )
    assert "cannot be read" in refused(
        capsys, "profile", model, "--target", "pixel7", "--import", tmp_path / "no"
    )
    assert kept(cache) == []


def test_a_trace_that_states_its_threads(
    model: Path, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = record(model, tmp_path, threads=2)
    arguments = ("profile", model, "--target", "pixel7", "--import", trace)
    assert "its events show at least 2 threads, not 1" in refused(capsys, *arguments, "--threads", "1")
    text = run(capsys, *arguments)
    assert "the events of the trace show 2 threads, so 2 was assumed" in " ".join(text.split())
    assert "were not used: they have 2 threads, but this build needs 4 threads" in " ".join(text.split())
    assert "now uses it" not in text
    assert len(kept(cache)) == 1


# --- one number ---


def test_only_the_whole_is_known(
    model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = device_of(capsys, model, "pixel7")
    assert before["source"] == "predicted"
    run(capsys, "profile", model, "--target", "pixel7", "--latency", "12.5ms", "-o", tmp_path / "p.json")
    profile = read_profile(tmp_path / "p.json")
    assert (profile.source, profile.measurements[0].whole_s, profile.measurements[0].threads) == (
        "imported",
        (0.0125,),
        4,
    )
    head = device_of(capsys, model, "pixel7", "--no-verify")
    assert head["source"] == "imported"
    low, high = head["interval"]  # for the parts, which were not timed
    assert before["interval"][0] < low < 1 < high < before["interval"][1]
    manifest = read_bundle(tmp_path / "out").manifest
    (all_head,) = [cut for cut in manifest.cuts if cut.kind == "all-head"]
    assert all_head.head is not None
    assert all_head.head.latency_s == pytest.approx(0.0125)
    assert any("only the time of the whole model on pixel7 is known" in note for note in manifest.notes)
    run(capsys, "profile", model, "--target", "pixel7", "--latency", "14ms", "--threads", "1")
    assert len(kept(cache)) == 2
    assert device_of(capsys, model, "pixel7") == head


def test_one_number_does_not_replace_a_measurement(
    model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "profile", model, "--target", "pixel7", "--import", record(model, tmp_path))
    (trace,) = kept(cache)
    text = run(capsys, "profile", model, "--target", "pixel7", "--latency", "12.5ms")
    assert "a build for pixel7 uses another kept profile; to use this one, delete " in " ".join(text.split())
    assert "now uses it" not in text
    assert len(kept(cache)) == 2
    assert sum(unit.seconds[0] or 0 for unit in read_profile(cache / trace).units or ()) < 0.0125
    (cache / trace).unlink()
    assert device_of(capsys, model, "pixel7", "--no-verify")["source"] == "imported"


def test_no_cache_ignores_kept_profiles(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "profile", model, "--target", "pixel7", "--latency", "12.5ms")
    assert device_of(capsys, model, "pixel7", "--no-cache")["source"] == "predicted"


# --- calibration ---


def test_calibrate(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = save_tiny("chain", tmp_path)
    run(capsys, "profile", other, "--target", "pixel7", "--latency", "3ms", "-o", tmp_path / "run1.json")
    run(
        capsys,
        "profile",
        other,
        "--target",
        "pixel7",
        "--import",
        record(other, tmp_path),
        "-o",
        tmp_path / "run2.json",
    )
    before = device_of(capsys, model, "pixel7")
    assert "pixel7 is not calibrated" in run(capsys, "calibrate", "pixel7")
    text = run(capsys, "calibrate", "pixel7", "--with", tmp_path / "run1.json")
    assert "pixel7 is calibrated with 1 run" in text
    assert "3 ms" in text
    first = device_of(capsys, model, "pixel7")
    assert (first["source"], first["calibration_runs"]) == ("predicted", 1)
    assert first["interval"][1] / first["interval"][0] < before["interval"][1] / before["interval"][0]
    assert first["profile_sha256"] != before["profile_sha256"]
    facts = printed("calibrate", run(capsys, "calibrate", "pixel7", "--json"))
    (effect,) = facts["runs"]
    assert effect["measured_s"] == 0.003
    assert abs(effect["after"]["seconds"] - 0.003) < abs(effect["before"]["seconds"] - 0.003)
    assert facts["rescaled"]
    # A newer run with the same model and threads replaces the older one.
    assert "with 1 run" in run(capsys, "calibrate", "pixel7", "--with", tmp_path / "run2.json")
    assert device_of(capsys, model, "pixel7") != first
    assert run(capsys, "calibrate", "pixel7", "--clear") == "pixel7 is not calibrated any more\n"
    assert run(capsys, "calibrate", "pixel7", "--clear") == "pixel7 was not calibrated\n"
    cleared = printed("calibrate-clear", run(capsys, "calibrate", "pixel7", "--clear", "--json"))
    assert cleared == {"target": "pixel7", "forgotten": False}
    assert printed("calibrate", run(capsys, "calibrate", "pixel7", "--json"))["runs"] == []
    assert device_of(capsys, model, "pixel7") == before


def test_several_runs_at_once_and_one_after_another(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_tiny("chain", tmp_path)
    for path, name, threads in ((model, "a", "4"), (other, "b", "4"), (other, "c", "1")):
        latency = ("--latency", "3ms", "--threads", threads)
        run(capsys, "profile", path, "--target", "pixel7", *latency, "-o", tmp_path / f"{name}.json")
    together = printed(
        "calibrate",
        run(
            capsys,
            "calibrate",
            "pixel7",
            "--with",
            tmp_path / "a.json",
            tmp_path / "b.json",
            tmp_path / "c.json",
            "--json",
        ),
    )
    assert [(item["model"], item["threads"]) for item in together["runs"]] == [("a", 4), ("b", 4), ("c", 1)]
    run(capsys, "calibrate", "pixel7", "--clear")
    for name in "abc":
        run(capsys, "calibrate", "pixel7", "--with", tmp_path / f"{name}.json")
    assert printed("calibrate", run(capsys, "calibrate", "pixel7", "--json")) == together


def test_what_cannot_calibrate(
    model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(capsys, "profile", model, "--target", "pixel7", "--latency", "3ms", "-o", tmp_path / "p.json")
    document = json.loads((tmp_path / "p.json").read_bytes())
    for change, words in (
        ({"units": None}, "add it with `splitc profile MODEL --target pixel7 --import"),
        ({"runtime": "onnxruntime-web"}, "was recorded with onnxruntime-web"),
        ({"splitc_profile": 7}, "expected version 1, found 7"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps(document | change), encoding="utf-8")
        assert words in refused(capsys, "calibrate", "pixel7", "--with", tmp_path / "bad.json")
    assert "local" in refused(capsys, "calibrate", "local", "--with", tmp_path / "p.json")
    assert "give only one of them" in refused(
        capsys, "calibrate", "pixel7", "--clear", "--with", tmp_path / "p.json", code=2
    )
    assert "cannot be read" in refused(capsys, "calibrate", "pixel7", "--with", tmp_path / "none.json")
    assert not any("calibration" in name for name in kept(cache))


def test_a_damaged_calibration_is_ignored(
    model: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (cache / "kept" / "pixel7").mkdir(parents=True)
    (cache / "kept" / "pixel7" / "calibration.json").write_text("{", encoding="utf-8")
    assert device_of(capsys, model, "pixel7")["calibration_runs"] == 0
    notes = read_bundle(tmp_path / "out").manifest.notes
    assert any("kept/pixel7/calibration.json" in note and "damaged" in note for note in notes)
    assert "damaged" in run(capsys, "calibrate", "pixel7")


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda item: item.name)
def test_stopped_at_any_moment(number: signal.Signals, model: Path, cache: Path, tmp_path: Path) -> None:
    """No file is incomplete, and no process is left."""
    moments = random.Random(7)
    output = tmp_path / "out" / "p.json"
    for _ in range(4):
        process = subprocess.Popen(
            [*LAUNCH, "profile", str(model), "-o", str(output), "--runs", "300", "--threads", "1,2"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=hear_interrupts,
            start_new_session=True,
        )
        time.sleep(moments.uniform(0.1, 4.0))
        process.send_signal(number)
        try:
            _, err = process.communicate(timeout=60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        assert process.returncode in (0, 128 + number, -number), err
        if (
            process.returncode == 128 + number
        ):  # otherwise the signal came too early or too late, or Python swallowed it
            assert err.splitlines()[-1] == b"interrupted"
            assert b"Traceback" not in err
        files = [Path(name) for name in tree(tmp_path / "out")] if output.parent.exists() else []
        assert files in ([], [Path("p.json")])
        for path in [*(cache / name for name in kept(cache)), *([output] if output.exists() else [])]:
            assert read_profile(path).measurements
        assert all(Path(name).suffix == ".json" for name in kept(cache))


def test_help_has_examples(tmp_path: Path) -> None:
    for name in ("profile", "calibrate"):
        done = splitc(name, "--help", cwd=tmp_path)
        assert done.code == 0
        assert f"splitc {name} " in done.out.split("Examples:")[1]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("ssh://raspberrypi", "raspberrypi"),
        ("ssh://pi@board.local:2222/", "board.local"),
        ("ssh://pi@[fe80::1%eth0]:22", "fe80::1%eth0"),
    ],
)
def test_a_board_is_named_after_its_host(target: str, name: str) -> None:
    assert _host_name(target) == name


def test_an_unreachable_board(
    model: Path,
    cache: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no ssh, no adb
    assert "install an OpenSSH client" in refused(capsys, "profile", model, "--target", "ssh://nobody")
    assert "'adb' is not on PATH" in refused(capsys, "profile", model, "--target", "pixel7", "--adb")
    assert kept(cache) == []
