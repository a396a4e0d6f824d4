"""Profiling on a phone: the phone here is a folder, its commands really run. No real phone was tried."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np
import onnx
import pytest

from splitc.common.cache import Cache
from splitc.common.errors import ProfileError
from splitc.model.analysis import AnalysisOptions, analyse
from splitc.profile.attribution import measured_times
from splitc.profile.measure.adb import profile_over_adb
from splitc.profile.measure.job import ProfileJob
from tests import models
from tests.profile.measure.boards import eventually, script
from tests.profile.measure.test_ssh import make_job
from tests.running import save_tiny

HERE = Path(__file__).parent / "phone"
SERIAL = "29281FDH200"
PROGRAM = """
import sys
from pathlib import Path
from tests.profile.measure.test_ssh import make_job
from splitc.profile.measure.adb import profile_over_adb
profile_over_adb(make_job(Path(sys.argv[1])), None, lambda line: print(line, flush=True))
"""


class Phone:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "data" / "local" / "tmp"
        self.storage.mkdir(parents=True)
        self.program = script(
            self.storage / "onnxruntime_perf_test", f'exec "{sys.executable}" "{self._copy()}" "$@"'
        )
        script(
            folder / "bin" / "getprop",
            'case $1 in *abi) echo arm64-v8a;; *manu*) echo Google;; *product.model) echo "Pixel 7";; esac',
        )
        script(folder / "bin" / "nproc", "echo 8")
        self.plug(f"{SERIAL} device")

    def _copy(self) -> Path:
        return Path(shutil.copy(HERE / "perf_test.py", self.storage))

    def plug(self, *lines: str) -> None:
        new = self.folder / "devices.new"
        new.write_text("\n".join(lines), encoding="utf-8")
        new.rename(self.folder / "devices")

    def say(self, text: str) -> None:
        """What the program says there before it fails."""
        (self.storage / "say").write_text(text, encoding="utf-8")

    def untouched(self) -> bool:
        return eventually(lambda: not list(self.storage.glob("splitc-*")))


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Phone:
    adb = script(tmp_path / "adb-bin" / "adb", f'exec "{sys.executable}" -S -E "{HERE / "adb.py"}" "$@"')
    monkeypatch.setenv("PATH", str(adb.parent), prepend=os.pathsep)
    monkeypatch.setenv("PHONE", str(tmp_path / "phone"))
    return Phone(tmp_path / "phone")


@pytest.fixture
def job(tmp_path: Path) -> ProfileJob:
    return make_job(save_tiny("tiny_cnn", tmp_path))


def refusal(job: ProfileJob, serial: str | None = None, program: Path | None = None) -> str:
    with pytest.raises(ProfileError) as raised:
        profile_over_adb(job, serial, lambda _: None, program=program)
    assert "\n" not in str(raised.value)
    return str(raised.value)


# --- it works ---


def test_a_profile_comes_back_and_nothing_stays(phone: Phone, tmp_path: Path) -> None:
    found = analyse(
        save_tiny("tiny_cnn", tmp_path),
        AnalysisOptions({}, (), simplify=False),
        tmp_path,
        Cache(None),
        lambda _: None,
    )
    said: list[str] = []
    profile = profile_over_adb(ProfileJob(found.model, found.feeds[:2], (2,), 2), SERIAL, said.append)
    assert [item.threads for item in profile.measurements] == [2, 2]
    assert (profile.model, profile.source, profile.runtime_version) == (found.model.sha256, "measured", None)
    machine = profile.machine
    assert (machine.system, machine.machine, machine.cores) == ("Android", "arm64-v8a", 8)
    assert machine.processor == "Google Pixel 7"
    for item in profile.measurements:
        assert len(item.whole_s) == len(item.profiled_whole_s) == 2
        assert len(item.fixed_s) == 50
        assert all(len(node.seconds) == 2 and node.outputs for node in item.nodes)
        times = measured_times(profile, item, "phone", found.sources, found.partition)
        assert sum(times.seconds) + (times.fixed_s or 0.0) == pytest.approx(median(item.whole_s))
    assert said[0] == f"phone {SERIAL}: Google Pixel 7, arm64-v8a"
    assert phone.untouched()


@pytest.mark.parametrize("runs", [1, 4])
def test_few_runs(runs: int, phone: Phone, job: ProfileJob) -> None:
    (item,) = profile_over_adb(replace(job, runs=runs), None, lambda _: None).measurements
    assert len(item.whole_s) == len(item.profiled_whole_s) >= runs
    assert phone.untouched()


def test_external_data_in_a_folder_travels_too(phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "weights a").mkdir()
    path = tmp_path / "my model.onnx"
    onnx.save_model(
        models.diamond(), path, save_as_external_data=True, location="weights a/w'1.bin", size_threshold=0
    )
    profile = profile_over_adb(make_job(path, runs=1), None, lambda _: None)
    assert all(node.outputs for node in profile.measurements[0].nodes)
    assert phone.untouched()


def test_a_program_of_our_own_goes_there_and_away_again(
    phone: Phone, job: ProfileJob, tmp_path: Path
) -> None:
    folder = tmp_path / "android build"
    program = script(
        folder / "onnxruntime_perf_test", f'exec "{sys.executable}" "{HERE / "perf_test.py"}" "$@"'
    )
    (folder / "libonnxruntime.so").write_bytes(b"\x7fELF...\0VERS_1.22.1\0...")
    phone.program.unlink()
    profile = profile_over_adb(replace(job, runs=1), None, lambda _: None, program=program)
    assert profile.runtime_version == "1.22.1"
    assert phone.untouched()
    assert not phone.program.exists()


# --- phones ---


@pytest.mark.parametrize(
    ("devices", "serial", "sentence"),
    [
        ([], None, "no phone is connected; connect one and enable USB debugging"),
        (["a device", "b device"], None, "several phones are connected (a, b); choose one with --serial"),
        (["a device"], "c", "phone c is not connected; connected phones: a"),
        ([], "c", "phone c is not connected; connected phones: none"),
        (["a unauthorized"], None, "phone a does not trust this machine; unlock the phone and allow"),
        (["a offline"], "a", "phone a is offline; unlock it or reconnect it"),
        (
            ["a no permissions (missing udev rules? user is in the plugdev group); see [http://x]"],
            None,
            "this user has no permission to use phone a; add a udev rule",
        ),
    ],
    ids=lambda value: str(value)[:24],
)
def test_which_phone(
    devices: list[str], serial: str | None, sentence: str, phone: Phone, job: ProfileJob
) -> None:
    phone.plug(*devices)
    assert refusal(job, serial).startswith(sentence)


def test_no_adb(job: ProfileJob, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal(job) == "'adb' is not on PATH; install Android's platform tools"


@pytest.fixture
def real_adb(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = shutil.which("adb")
    if found is None:
        pytest.skip("there is no adb")
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", "5897")  # not the user's server
    yield
    subprocess.run([found, "kill-server"], check=False, capture_output=True, timeout=30)


@pytest.mark.usefixtures("real_adb")
def test_the_real_adb_without_a_phone(job: ProfileJob) -> None:
    said = refusal(job, "no-such-serial")
    assert said.startswith("phone no-such-serial is not connected; connected phones: ")


# --- it does not work there ---


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("Load model from model.onnx failed:Unsupported model IR version: 99", "IR version: 99"),
        (
            'CANNOT LINK EXECUTABLE "x": library "libonnxruntime.so" not found',
            "put libonnxruntime.so of the same",
        ),
        ("sh: x: not executable: 64-bit ELF file", "was not built for this phone; build it for arm64-v8a"),
        ("sh: x: can't execute: Permission denied", "make it executable and push it again"),
        ("write failed: No space left on device", "the phone has no storage space left; free some"),
    ],
    ids=lambda value: value[:24],
)
def test_what_the_phone_says(said: str, sentence: str, phone: Phone, job: ProfileJob) -> None:
    phone.say(said)
    assert sentence in refusal(job)
    assert phone.untouched()


def test_no_program_there(phone: Phone, job: ProfileJob, tmp_path: Path) -> None:
    phone.program.unlink()
    assert "the phone has no /data/local/tmp/onnxruntime_perf_test; build" in refusal(job)
    assert f"{tmp_path}/none: no such file; give the path of" in refusal(job, program=tmp_path / "none")
    assert phone.untouched()


def test_a_program_for_another_machine(phone: Phone, job: ProfileJob, tmp_path: Path) -> None:
    program = tmp_path / "onnxruntime_perf_test"
    program.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HH", 3, 62))
    assert refusal(job, program=program) == (
        f"{program}: was built for x86_64; the phone needs a build for arm64-v8a"
    )
    assert phone.untouched()


def test_a_model_that_does_not_run_there(phone: Phone, job: ProfileJob) -> None:
    said = refusal(replace(job, feeds=({"image": np.ones((9, 9), np.float32)},)))
    assert said.startswith("profiling tiny_cnn.onnx on the phone failed: ")
    assert "Invalid" in said
    assert phone.untouched()


def test_no_room_there(phone: Phone, job: ProfileJob) -> None:
    (phone.folder / "full").touch()
    assert refusal(job) == "the phone has no storage space left; free some"
    assert phone.untouched()


# --- it ends early ---


def test_the_cable_is_pulled(phone: Phone, job: ProfileJob) -> None:
    def say(line: str) -> None:
        if line.startswith("timing"):
            phone.plug()

    with pytest.raises(ProfileError) as raised:
        profile_over_adb(job, None, say)
    assert str(raised.value) == (
        f"the connection to phone {SERIAL} was lost; check the cable, unlock the phone and try again"
    )
    assert phone.untouched()


def test_the_cable_is_pulled_while_it_runs(
    phone: Phone, job: ProfileJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHONE_WAITS", "60")
    phone.say("waiting")

    def pull() -> None:
        eventually((phone.storage / "waits").exists)
        phone.plug()

    puller = threading.Thread(target=pull)
    puller.start()
    assert (
        refusal(job)
        == f"the connection to phone {SERIAL} was lost; check the cable, unlock the phone and try again"
    )
    puller.join()
    assert phone.untouched()


def test_it_takes_too_long(phone: Phone, job: ProfileJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHONE_WAITS", "60")
    phone.say("waiting")
    said = refusal(replace(job, timeout_s=3.0))
    assert said.startswith("profiling tiny_cnn on the phone took longer than 3 s; try fewer runs")
    assert phone.untouched()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_a_signal_here_leaves_nothing_there(
    error: type[BaseException], phone: Phone, job: ProfileJob
) -> None:
    def say(line: str) -> None:
        if line.startswith("timing"):
            assert list(phone.storage.glob("splitc-*"))
            raise error

    with pytest.raises(error):
        profile_over_adb(job, None, say)
    assert phone.untouched()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_there_when_we_are_killed(number: signal.Signals, phone: Phone, tmp_path: Path) -> None:
    phone.say("waiting")
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(save_tiny("tiny_cnn", tmp_path))],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PHONE_WAITS": "60"},
    )
    assert process.stdout is not None
    with process.stdout as lines:
        assert any("pushing" in line for line in lines)
        process.send_signal(number)
        process.wait()
    assert phone.untouched()
