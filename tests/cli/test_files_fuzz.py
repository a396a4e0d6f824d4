"""Damaged files, values and surroundings give a result or one sentence, and never a fault of splitc itself.

SPLITC_FUZZ=1 tries fifty times as many.
"""

import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest

from splitc.bundle.decide import Conditions, decide
from splitc.bundle.folder import MANIFEST, read_bundle
from splitc.bundle.pack import pack
from splitc.cli import values
from splitc.cli.facts.bundle import bundle_facts
from splitc.cli.main import _exit_code, group
from splitc.cli.show_bundle import show_bundle
from splitc.cli.terminal import print_json, results
from splitc.common.records import encode
from splitc.common.resources import shipped
from splitc.common.values import Input
from splitc.compile.pipeline.load import load_pipeline
from splitc.model.feeds import make_feeds
from splitc.profile.document import parse_profile
from splitc.profile.ort_trace import parse_trace
from splitc.profile.store import Store
from splitc.profile.targets.calibration import calibrate
from splitc.profile.targets.calibration_effect import effects, read_runs
from splitc.profile.targets.description import load_target
from splitc.runtime.unpack import unpacked
from splitc.simulate.fleet import read_fleet
from tests.cli import damage
from tests.cli.test_terminal import FORBIDDEN
from tests.compile.pipeline import making
from tests.conftest import Tiny
from tests.protocol.fuzzing import LONG
from tests.running import LAUNCH, fast_cloud, hear_interrupts, slow_device

TRIES = 2000 if LONG else 40
PROCESSES = 40 if LONG else 3
_SECONDS = 60

FLEET = """
horizon_s = 60.0
seed = 1
phases = [{ from_s = 10.0, to_s = 20.0, factor = 2.0 }]

[[classes]]
name = "phones"
device = "slow"
model = "tiny_cnn"
count = 10
rate_per_s = 0.1
networks = { lte = 0.5, wifi = 0.5 }
sla_s = 0.5

[cloud]
machines = 1
workers = 2
batch = [[2, 1.5], [4, 2.5]]
max_batch = 4
down = [{ from_s = 10.0, to_s = 20.0, machines = 1 }]
"""
TRACE = json.dumps(
    [
        {"cat": "Session", "name": "session_initialization", "ts": 1, "dur": 5, "args": {}},
        *(
            event
            for run in range(3)
            for event in (
                {
                    "cat": "Node",
                    "name": "a_kernel_time",
                    "tid": 1,
                    "ts": 100 * run + 10,
                    "dur": 7,
                    "args": {
                        "op_name": "Conv",
                        "provider": "CPUExecutionProvider",
                        "output_type_shape": [{"float": [1, 2]}],
                        "thread_scheduling_stats": {"sub_threads": {"7": {"num_run": 1, "core": 0}}},
                    },
                },
                {"cat": "Session", "name": "model_run", "tid": 1, "ts": 100 * run + 9, "dur": 20, "args": {}},
            )
        ),
    ]
)


def check(tries: int, attempt: Callable[[int], object], capsys: pytest.CaptureFixture[str]) -> None:
    """Run *attempt* with each seed: it succeeds, or the command line would show one sentence."""
    faults = []
    succeeded = 0
    for seed in range(tries):
        code = _exit_code(lambda seed=seed: attempt(seed) and None)  # type: ignore[misc]
        said = capsys.readouterr()
        succeeded += code == 0
        own = said.err.splitlines()
        is_sentence = code == 0 or (code in (1, 2) and len(own) == 1 and own[0].startswith("error: "))
        if not is_sentence or "fault of its own" in said.err or FORBIDDEN.search(said.out + said.err):
            faults.append(f"seed {seed}: exit {code}: {said.err[-600:]}")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:8])


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Details of faults go to this test's folder."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))


def test_manifests(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.bundle.folder, folder)
    text = (folder / MANIFEST).read_text(encoding="utf-8")

    def attempt(seed: int) -> None:
        make = damage.json_of if seed % 4 else lambda text, seed: damage.bytes_of(text.encode(), seed)
        (folder / MANIFEST).write_bytes(make(text, seed))
        manifest = read_bundle(folder).manifest
        show_bundle(manifest, results())
        print_json(bundle_facts(manifest))
        for conditions in (Conditions(1e6, 1e7, 0.05), Conditions(1e12, 1e12, 1e-6)):
            decide(manifest, conditions)

    check(TRIES, attempt, capsys)


def test_packs(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pack(tiny.bundle.folder, "device", tmp_path / "good.zip")
    data = (tmp_path / "good.zip").read_bytes()

    def attempt(seed: int) -> None:
        # most of the file is weights: the end has the directory, and the beginning a header
        ends = data[:200], data[200:-1200], data[-1200:]
        chosen = seed % 3
        parts = [damage.bytes_of(part, seed) if at == chosen else part for at, part in enumerate(ends)]
        (tmp_path / "bad.zip").write_bytes(b"".join(parts))
        unpacked(tmp_path / "bad.zip", tmp_path / "cache")

    check(TRIES // 4, attempt, capsys)


def test_profiles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (Path(__file__).parents[2] / "examples/build/tiny_cnn.profile.json").read_text(encoding="utf-8")
    target = load_target("pixel7")

    def attempt(seed: int) -> None:
        data = damage.json_of(text, seed) if seed % 4 else damage.bytes_of(text.encode(), seed)
        profile = parse_profile(data, "p.json")
        for item in profile.measurements:
            item.spread(), item.drift()
        print_json(profile)
        Store(tmp_path / "cache").keep_profile("pixel7", "model", profile)
        (tmp_path / "p.json").write_bytes(json.dumps(encode(profile)).encode())
        runs = read_runs(tmp_path / "p.json", target)
        effects(target, runs, calibrate(target, runs))

    check(TRIES, attempt, capsys)


def test_traces(capsys: pytest.CaptureFixture[str]) -> None:
    def attempt(seed: int) -> None:
        data = damage.json_of(TRACE, seed) if seed % 4 else damage.bytes_of(TRACE.encode(), seed)
        found = parse_trace(data, "t.json", model="0" * 64, threads=None, dims={})
        print_json(found.profile)

    check(TRIES, attempt, capsys)


def test_descriptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [shipped("targets") / name for name in ("pixel7.toml", "t4.toml", "networks/lte.toml")]
    texts = [path.read_text(encoding="utf-8") for path in places]

    def attempt(seed: int) -> None:
        path = tmp_path / "d.toml"
        path.write_bytes(damage.toml_of(texts[seed % len(texts)], seed))
        group.main(["targets", str(path), "--cache-dir", str(tmp_path)], standalone_mode=False)

    check(TRIES // 2, attempt, capsys)


def test_checked_descriptions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`targets check` prints each mistake on a line of its own."""
    places = [shipped("targets") / name for name in ("pixel7.toml", "t4.toml", "networks/lte.toml")]
    texts = [path.read_text(encoding="utf-8") for path in places]
    path = tmp_path / "d.toml"
    for seed in range(TRIES // 2):
        path.write_bytes(damage.toml_of(texts[seed % len(texts)], seed))
        arguments = ["targets", "check", str(path), "--cache-dir", str(tmp_path)]
        code = _exit_code(lambda: group.main(arguments, standalone_mode=False))  # noqa: B023 - runs at once
        said = capsys.readouterr()
        assert code in (0, 1)
        assert all(line.startswith(("error: ", "warning: ")) for line in said.err.splitlines()), (
            seed,
            said.err,
        )
        assert "fault of its own" not in said.err, (seed, said.err)
        assert not FORBIDDEN.search(said.out + said.err)


def test_pipelines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = making.write_diffusion(tmp_path)
    text = path.read_text(encoding="utf-8")

    def attempt(seed: int) -> None:
        path.write_bytes(damage.toml_of(text, seed))
        load_pipeline(path)

    check(TRIES // 4, attempt, capsys)


def test_fleets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def attempt(seed: int) -> None:
        (tmp_path / "f.toml").write_bytes(damage.toml_of(FLEET, seed))
        read_fleet(tmp_path / "f.toml")

    check(TRIES, attempt, capsys)


INPUTS = (Input("x", "float32", ("batch", 4)), Input("ids", "int64", (2,)), Input("words", None, (1,)))


def test_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.BytesIO()
    np.savez(stream, x=np.ones((1, 4), np.float32), ids=np.zeros(2, np.int64), words=np.array(["a"]))
    data = stream.getvalue()

    def attempt(seed: int) -> None:
        damaged = damage.bytes_of(data, seed)
        if seed % 3 == 0:  # the archive stays valid, the arrays in it do not
            damaged = with_headers(random.Random(seed))
        (tmp_path / "s.npz").write_bytes(damaged)
        make_feeds(INPUTS, {"batch": 1}, (tmp_path / "s.npz",))

    check(TRIES, attempt, capsys)


def with_headers(chance: random.Random) -> bytes:
    """An .npz file whose arrays announce strange types and shapes."""
    shape = chance.choice(
        (
            "(1, 4)",
            "(1099511627776,)",
            "(-1, 4)",
            "()",
            "(2**40,)",
            "(1e9,)",
            "(" * 300,
            "('a',)",
            "(9" + "9" * 4500 + ",)",
        )
    )
    kind = chance.choice(
        ("'<f4'", "'|O'", "'<f8'", "'V4'", "'<U9999999'", "[('a', '<f4')]", "'nonsense'", "None", "'|S0'")
    )
    order = chance.choice(("False", "True", "'x'", "1"))
    header = f"{{'descr': {kind}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    version = chance.choice((b"\x01\0", b"\x02\0", b"\x03\0", b"\x09\0"))
    length = len(header).to_bytes(2 if version == b"\x01\0" else 4, "little")
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name in ("x.npy", "ids.npy", chance.choice(("words.npy", "words", "../w.npy", "words.npy\n"))):
            archive.writestr(
                name, b"\x93NUMPY" + version + length + header + bytes(chance.choice((0, 16, 64)))
            )
    return stream.getvalue()


KINDS: tuple[click.ParamType[object], ...] = (
    *(values.DURATION, values.ENERGY, values.BYTES, values.DIM, values.DIMS, values.COUNTS, values.TARGET),
    *(values.FILE, values.ANY_PATH),
)


def test_option_values(capsys: pytest.CaptureFixture[str]) -> None:
    def attempt(seed: int) -> None:
        kind, text = KINDS[seed % len(KINDS)], damage.OPTIONS[seed // len(KINDS) % len(damage.OPTIONS)]
        kind.convert(text, None, None)

    check(len(KINDS) * len(damage.OPTIONS), attempt, capsys)


COMMANDS = (
    "compile m.onnx --device {} --no-cache",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --max-payload {}",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --sla {}",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --regret {}",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --max-cuts {}",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --pin-device {}",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --network {}",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --build-memory {}",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --samples {}",
    "compile m.onnx --device slow.toml --cloud fast.toml --no-cache --no-simplify --device-profile {}",
    "inspect m.onnx --no-simplify --dim {}",
    "inspect {}",
    "inspect m.onnx --no-simplify --cache-dir {}",
    "verify bundle --model {}",
    "verify {}",
    "pack {} --side device -o out.zip",
    "run bundle --repeat {}",
    "run bundle --cut {}",
    "run bundle --input {}",
    "run bundle --sla {}",
    "run bundle --deadline {}",
    "run bundle --threads {}",
    "run bundle --network {}",
    "targets {}",
    "targets check {}",
    "calibrate {}",
    "calibrate pixel7 --with {}",
    "sample {}",
    "sample tiny_diffusion --steps {}",
    "profile m.onnx --target slow.toml --latency {}",
    "profile m.onnx --target slow.toml --import {}",
    "profile m.onnx --target {}",
    "profile m.onnx --target local --threads {} --runs 1",
    "simulate bundle --fleet {}",
    "serve bundle --port {}",
    "serve bundle --token-file {}",
    "serve bundle --replicas {}",
)


@pytest.fixture
def ground(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a model, a bundle and two machines, in which commands run."""
    shutil.copytree(tiny.bundle.folder, tmp_path / "bundle")
    shutil.copy(tiny.model, tmp_path / "m.onnx")
    slow_device(tmp_path), fast_cloud(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("ground")
def test_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Whole commands in this process, each with a value that no one should give."""
    chance = random.Random(4)
    pairs = [(command, text) for command in COMMANDS for text in damage.OPTIONS]
    faults = []
    for command, text in chance.sample(pairs, 600 if LONG else 40):
        words = command.split()
        if words[0] == "serve" and text.strip().isdecimal() and len(text) < 6:
            continue  # it would serve
        if (words[0], words[2:3]) == ("run", ["--repeat"]) and text.isdecimal() and len(text) > 5:
            continue  # it would run for ever, as asked
        arguments = [text if word == "{}" else word for word in words]
        with pytest.raises(SystemExit) as ended:
            group.main(arguments, prog_name="splitc")
        said = capsys.readouterr()
        code = ended.value.code
        sentences = [line for line in said.err.splitlines() if line.startswith("error: ")]
        wrong = code not in (0, 1, 2) or len(sentences) != (code != 0) or "fault of its own" in said.err
        if wrong and words[1] != "check":
            faults.append(f"{arguments}: exit {code}: {said.err[-600:]}")
        assert not FORBIDDEN.search(said.out + said.err)
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:12])


SURROUNDINGS: dict[str, tuple[str | None, ...]] = {
    "HOME": (None, "", "/nonexistent", "/dev/null", "relative", "~", "\udcff", "a" * 300),
    "TMPDIR": (None, "", "/nonexistent", "/dev/null", "relative", "\udcff"),
    "LANG": (None, "C", "xx_YY.nonsense", "tr_TR.UTF-8"),
    "LC_ALL": (None, "C", "POSIX"),
    "PYTHONIOENCODING": (None, "ascii", "latin-1:strict", "utf-8:strict", "utf-16"),
    "PYTHONUTF8": (None, "0", "1"),
    "XDG_CACHE_HOME": (None, "", "/dev/null", "/proc", "relative"),
    "XDG_CONFIG_HOME": (None, "", "/dev/null", "relative"),
    "COLUMNS": (None, "0", "-1", "1", "9999999", "x"),
    "TERM": (None, "dumb", "xterm", "nonsense"),
    "NO_COLOR": (None, "1"),
    "FORCE_COLOR": (None, "1"),
}
CALLS = (
    ["targets"],
    ["targets", "--json"],
    ["inspect", "m.onnx"],
    ["inspect", "bundle"],
    ["verify", "bundle"],
    ["run", "bundle"],
    ["compile", "m.onnx", "--device", "slow.toml", "--cloud", "fast.toml", "-o", "out"],
    ["inspect", "nothing\udcff.onnx"],
    ["calibrate", "pixel7"],
)


# What a progress display writes, if the surroundings say that there is a terminal.
_SEQUENCE = r"\x1b\[[0-9?;]*[A-Za-z]"


def test_surroundings(ground: Path) -> None:
    """Processes in strange surroundings."""
    faults = []
    for seed in range(PROCESSES):
        chance = random.Random(seed)
        env = dict(os.environ)
        for name in chance.sample(list(SURROUNDINGS), 4):
            value = chance.choice(SURROUNDINGS[name])
            env.pop(name, None)
            if value is not None:
                env[name] = value
        arguments = chance.choice(CALLS)
        done = subprocess.run(
            [*LAUNCH, *arguments],
            cwd=ground,
            env={**env, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            preexec_fn=hear_interrupts,
        )
        encoding = "utf-16" if env.get("PYTHONIOENCODING") == "utf-16" else "latin-1"
        said = done.stderr.decode(encoding, "replace")
        sentences = re.findall(rf"^(?:{_SEQUENCE})*error: ", said, re.MULTILINE)
        wrong = done.returncode not in (0, 1) or len(sentences) != done.returncode
        if wrong or "Traceback" in said or "fault of its own" in said:
            given = {name: env.get(name) for name in SURROUNDINGS}
            faults.append(f"seed {seed}: {arguments} {given}: exit {done.returncode}: {said[-600:]}")
    assert not faults, f"{len(faults)} faults:\n" + "\n".join(faults[:8])


def test_interrupted_at_any_moment(ground: Path) -> None:
    """Ctrl-C from the first moment at which Python itself is ready."""
    for seed in range(PROCESSES // 2):
        with subprocess.Popen(
            [sys.executable, "-X", "importtime", "-m", "splitc", "inspect", "m.onnx", "--no-simplify"],
            cwd=ground,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hear_interrupts,
        ) as process:
            assert process.stderr is not None
            begun, left = False, random.Random(seed).randrange(1500)
            for line in process.stderr:
                begun = begun or "splitc.cli.streams" in line
                left -= begun
                if left < 0:
                    process.send_signal(signal.SIGINT)
                    break
            said = process.stderr.read()
        own = [line for line in said.splitlines() if not line.startswith("import time:")]
        assert process.returncode in (0, 130), (seed, own)
        assert "Traceback" not in said, (seed, own)
        if process.returncode == 130:
            assert own[-1] == "interrupted", (seed, own)
