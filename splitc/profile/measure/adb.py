"""Profile a model on an Android phone through adb, with ONNX Runtime's benchmark program.

Phones have no Python; `onnxruntime_perf_test` is part of every build of ONNX Runtime for Android. Its options:
https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/test/perftest/README.md
"""

import contextlib
import math
import re
import shlex
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path, PurePosixPath

import onnx

from splitc.common.errors import ProfileError
from splitc.common.formatting import plural
from splitc.common.values import Feeds
from splitc.profile.document import MachineFacts, Measurement, NodeTimes, Profile
from splitc.profile.match_nodes import connected
from splitc.profile.measure import job as jobs
from splitc.profile.measure import process
from splitc.profile.measure.job import ProfileJob, Say
from splitc.profile.ort_trace import parse_trace

PROGRAM = "onnxruntime_perf_test"
_PLACE = PurePosixPath("/data/local/tmp")  # the only folder into which adb can push programs
_WARMUP = 3
_ROUNDS = 3
_BUDGET_S = 2.0
_MIN_RUNS, _MAX_RUNS = 5, 50
_FIXED_RUNS = 50
_TIDY_S = 10.0
_KILLED = 128 + 9
_ABIS = {
    40: "armeabi-v7a",
    183: "arm64-v8a",
    3: "x86",
    62: "x86_64",
    243: "riscv64",
}  # e_machine of an ELF file
_VERSION = re.compile(rb"VERS_(\d+\.\d+\.\d+)\0")  # of the symbols in libonnxruntime.so
_LOST = (
    "not found",
    "no devices",
    "offline",
    "unauthorized",
    "error: closed",
    "protocol fault",
    "connection reset",
)
# Output of the phone's shell and linker, and the message for the user.
_SAID = {
    "No space left on device": "the phone has no storage space left; free some",
    "CANNOT LINK EXECUTABLE": f"{PROGRAM} lacks a library; put libonnxruntime.so of the same build beside it",
    "not executable": f"{PROGRAM} was not built for this phone; build it for {{abi}}",
    "Exec format error": f"{PROGRAM} was not built for this phone; build it for {{abi}}",
    "ermission denied": f"the phone cannot execute {PROGRAM}; make it executable and push it again",
}


@dataclass(frozen=True, slots=True)
class _Phone:
    """A connected phone, and the folder on it that is removed at the end."""

    serial: str
    until: float
    abi: str
    folder: PurePosixPath = _PLACE


@dataclass(frozen=True, slots=True)
class _Case:
    """A folder on the phone with a model and its inputs, in the layout that the program needs."""

    folder: PurePosixPath
    model: str
    custom_ops: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The path of the model on the phone."""
        return str(self.folder / self.model)


def profile_over_adb(
    job: ProfileJob, serial: str | None, say: Say, *, program: Path | None = None
) -> Profile:
    """Profile *job* on a phone.

    Args:
        serial: the serial number of the phone; None if only one is connected.
        program: `onnxruntime_perf_test` built for the phone, with its libraries beside it; by default, the one
            in /data/local/tmp on the phone.

    Raises:
        ProfileError: the phone cannot be used, or the program failed or took too long.
    """
    until = time.monotonic() + job.timeout_s
    try:
        with _phone(job, serial, until) as phone, tempfile.TemporaryDirectory(prefix="splitc-") as folder:
            return _profile(job, phone, program, Path(folder), say)
    except FileNotFoundError as error:
        if error.filename != "adb":
            raise
        raise ProfileError("'adb' is not on PATH; install Android's platform tools") from error
    except TimeoutError as error:
        raise ProfileError(
            f"profiling {job.model.name} on the phone took longer than {job.timeout_s:g} s; "
            "try fewer runs or a smaller model"
        ) from error


def _profile(job: ProfileJob, phone: _Phone, program: Path | None, folder: Path, say: Say) -> Profile:
    machine = _machine(phone)
    say(f"phone {phone.serial}: {machine.processor or 'unknown model'}, {phone.abi}")
    start = _bring_program(phone, program)
    say(f"pushing {job.model.name}")
    idle = _bring_idle(phone, folder)
    case = _Case(phone.folder / "model", next(iter(jobs.files(job.model))), job.custom_ops)
    _push(phone, {case.folder / name: path for name, path in jobs.files(job.model).items()})
    measurements = []
    for threads in job.threads:
        fixed_s = _run(phone, start, idle, threads, _FIXED_RUNS, folder)[-_FIXED_RUNS:]
        for number, feeds in enumerate(job.feeds):
            say(f"timing with {plural(threads, 'thread')}, inputs {number + 1} of {len(job.feeds)}")
            _bring_inputs(phone, case, [item.name for item in job.model.inputs()], feeds, folder)
            found = _measure(job, phone, start, case, threads, folder)
            dims = jobs.dims(job.model, feeds)
            measurements.append(replace(found, dims=dims, fixed_s=tuple(fixed_s)))
    return Profile(
        splitc_profile=1,
        model=job.model.sha256,
        source="measured",
        runtime="onnxruntime",
        runtime_version=_version(program),
        provider="CPUExecutionProvider",
        machine=machine,
        measurements=tuple(measurements),
        units=None,
    )


# --- the phone ---


@contextlib.contextmanager
def _phone(job: ProfileJob, serial: str | None, until: float) -> Iterator[_Phone]:
    """Yield a phone with a temporary folder.

    When this connection ends, the phone itself removes the folder and ends the program that runs in it: also
    when the cable is unplugged or this process is killed.
    """
    serial = _choose(_devices(until), serial)
    phone = _Phone(serial, until, "")
    phone = replace(phone, abi=_shell(phone, "getprop ro.product.cpu.abi", job.model.name).strip())
    keep = (
        f"d=$(mktemp -d {_PLACE}/splitc-XXXXXXXX) || exit 1; echo $d; cat >/dev/null; "
        # If this process is killed during a push, the push may create the folder again.
        "kill -9 $(cat $d/pid) 2>/dev/null; rm -rf $d; sleep 1; rm -rf $d"
    )
    with process.talk(["adb", "-s", serial, "shell", keep], linger_s=_TIDY_S) as keeper:
        line = next(keeper.lines(until=until, beat=b"\n"), b"").decode(errors="replace").strip()
        if not line.startswith(f"{_PLACE}/splitc-"):
            raise (
                _failure(phone, line or keeper.err, job.model.name)
                if line or keeper.err.strip()
                else _gone(phone)
            )
        yield replace(phone, folder=PurePosixPath(line))


def _devices(until: float) -> dict[str, str]:
    """Return the state of each phone, by serial number."""
    code, out, err = process.run(["adb", "devices"], until=until)
    if code:
        raise ProfileError(f"adb failed: {_last_line(err or out)}; try `adb kill-server`")
    lines = [line.split("\t", 1) for line in out.splitlines() if "\t" in line]
    return {serial: state.strip() for serial, state in lines}


def _choose(states: dict[str, str], serial: str | None) -> str:
    listed = ", ".join(sorted(states))
    if serial is None and len(states) > 1:
        raise ProfileError(f"several phones are connected ({listed}); choose one with --serial")
    if serial is None and not states:
        raise ProfileError(
            "no phone is connected; connect one and enable USB debugging in its developer options"
        )
    chosen = serial or next(iter(states))
    state = states.get(chosen)
    if state is None:
        raise ProfileError(f"phone {chosen} is not connected; connected phones: {listed or 'none'}")
    if state == "unauthorized":
        raise ProfileError(
            f"phone {chosen} does not trust this machine; unlock the phone and allow USB debugging"
        )
    if state.startswith("no permissions"):
        raise ProfileError(
            f"this user has no permission to use phone {chosen}; add a udev rule for it and reconnect it"
        )
    if state != "device":
        raise ProfileError(f"phone {chosen} is {state}; unlock it or reconnect it")
    return chosen


def _machine(phone: _Phone) -> MachineFacts:
    names = ("ro.product.manufacturer", "ro.product.model", "ro.soc.model")
    command = "; ".join(f"echo $(getprop {name})" for name in names) + "; nproc"
    maker, model, chip, cores, *_ = [*_shell(phone, command).splitlines(), "", "", "", ""]
    processor = ", ".join(part for part in (f"{maker} {model}".strip(), chip.strip()) if part)
    return MachineFacts(
        system="Android",
        machine=phone.abi or None,
        processor=processor or None,
        cores=int(cores) if cores.strip().isdigit() else None,
        python=None,
    )


def _shell(phone: _Phone, command: str, what: str = "the model") -> str:
    """Return the output of *command*; its exit code is printed, because adb does not return it on old phones."""
    line = ["adb", "-s", phone.serial, "shell", f'{command}\necho "splitc-code $?"']
    _, out, err = process.run(line, until=phone.until)
    text, found, code = out.replace("\r\n", "\n").rpartition("splitc-code ")
    if not found and not err.strip():
        raise _gone(phone)
    if not found or code.strip() != "0":
        killed = "Killed" if code.strip() == str(_KILLED) else ""
        raise _failure(phone, killed or f"{text}\n{err}", what)
    return text


def _push(phone: _Phone, files: Mapping[PurePosixPath, Path]) -> None:
    """Copy files to the phone, by their paths there."""
    folders = sorted({shlex.quote(str(target.parent)) for target in files})
    _shell(phone, f"mkdir -p {' '.join(folders)}")
    for target, source in files.items():
        _copy(phone, "push", str(source.resolve()), str(target))


def _pull(phone: _Phone, source: PurePosixPath, target: Path) -> bytes:
    _copy(phone, "pull", str(source), str(target))
    return target.read_bytes()


def _copy(phone: _Phone, verb: str, source: str, target: str) -> None:
    code, out, err = process.run(["adb", "-s", phone.serial, verb, source, target], until=phone.until)
    if code:
        raise _failure(phone, f"{out}\n{err}", PurePosixPath(target).name)


def _failure(phone: _Phone, said: str, what: str) -> ProfileError:
    last = _last_line(said)
    if last.startswith(("error:", "adb: error:")) and any(words in last for words in _LOST):
        return _gone(phone)
    for words, sentence in _SAID.items():
        if words in said:
            return ProfileError(sentence.format(abi=phone.abi))
    if last == "Killed":
        return ProfileError(
            f"profiling {what} on the phone failed: it was killed; it may have run out of memory"
        )
    return ProfileError(f"profiling {what} on the phone failed: {last or 'there was no output'}")


def _gone(phone: _Phone) -> ProfileError:
    return ProfileError(
        f"the connection to phone {phone.serial} was lost; check the cable, unlock the phone and try again"
    )


def _last_line(text: str) -> str:
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# --- the program and its files ---


def _bring_program(phone: _Phone, program: Path | None) -> str:
    """Put the program on the phone if necessary; return the command that starts it."""
    if program is None:
        if "yes" not in _shell(phone, f"[ -f {_PLACE}/{PROGRAM} ] && echo yes; true"):
            raise ProfileError(
                f"the phone has no {_PLACE}/{PROGRAM}; build ONNX Runtime for Android ({phone.abi}) and push it there"
            )
        return f"LD_LIBRARY_PATH={_PLACE} {_PLACE}/{PROGRAM}"
    if not program.is_file():
        raise ProfileError(
            f"{program}: no such file; give the path of {PROGRAM} from a build for Android ({phone.abi})"
        )
    with program.open("rb") as file:
        head = file.read(20)
    abi = _ABIS.get(int.from_bytes(head[18:20], "little"), "another machine")
    if head.startswith(b"\x7fELF") and abi != phone.abi:
        raise ProfileError(f"{program}: was built for {abi}; the phone needs a build for {phone.abi}")
    folder = phone.folder / "program"
    _push(phone, {folder / path.name: path for path in (program, *sorted(program.parent.glob("*.so*")))})
    target = folder / program.name
    _shell(phone, f"chmod 755 {shlex.quote(str(target))}")
    return f"LD_LIBRARY_PATH={folder} {shlex.quote(str(target))}"


def _version(program: Path | None) -> str | None:
    """Return the version of ONNX Runtime from the library beside *program*; None if it is not there."""
    for path in sorted(program.parent.glob("libonnxruntime.so*")) if program else ():
        if found := _VERSION.search(path.read_bytes()):
            return found[1].decode("ascii")
    return None


def _bring_idle(phone: _Phone, folder: Path) -> _Case:
    """Push a model that does nothing: its run time is the fixed cost of a call."""
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["x"], ["y"])],
        "idle",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    path = folder / "idle.onnx"
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opset, ir_version=7), path)
    case = _Case(phone.folder / "idle", path.name)
    _push(phone, {case.folder / path.name: path})
    tensor = onnx.helper.make_tensor("x", onnx.TensorProto.FLOAT, [1], [0.0])
    _push_tensors(phone, case, [tensor], folder)
    return case


def _bring_inputs(phone: _Phone, case: _Case, names: Sequence[str], feeds: Feeds, folder: Path) -> None:
    tensors = []
    for name in names:
        try:
            tensors.append(onnx.numpy_helper.from_array(feeds[name], name))
        except (KeyError, AttributeError, TypeError, ValueError, NotImplementedError) as error:
            raise ProfileError(
                f"input '{name}' cannot be sent to a phone, because it is not a tensor of numbers; "
                "profile the model in another way"
            ) from error
    _push_tensors(phone, case, tensors, folder)


def _push_tensors(phone: _Phone, case: _Case, tensors: Sequence[onnx.TensorProto], folder: Path) -> None:
    # The program reads all data sets that exist, and the files of a set in the order of their names.
    data = case.folder / "test_data_set_0"
    _shell(phone, f"rm -rf {shlex.quote(str(data))}")
    files = {}
    for number, tensor in enumerate(tensors):
        path = folder / f"input_{number:04}.pb"
        path.write_bytes(tensor.SerializeToString())
        files[data / path.name] = path
    _push(phone, files)


# --- runs ---


def _measure(
    job: ProfileJob, phone: _Phone, start: str, case: _Case, threads: int, folder: Path
) -> Measurement:
    """Time runs with and without profiling, in turns, so that both meet the same conditions."""
    graph = phone.folder / "optimized.onnx"
    once_s = min(_run(phone, start, case, threads, 2, folder, f"-u {graph}"))
    optimised = onnx.load_model_from_string(_pull(phone, graph, folder / graph.name)).graph
    _shell(phone, f"rm -f {graph}")
    runs = job.runs or max(_MIN_RUNS, min(_MAX_RUNS, int(_BUDGET_S / 2 / once_s)))
    rounds = min(_ROUNDS, runs)
    each = math.ceil(runs / rounds)
    whole_s: list[float] = []
    traces: list[Measurement] = []
    for _ in range(rounds):
        _run(phone, start, case, threads, each + _WARMUP - 1, folder, f"-p {phone.folder}/trace")
        traces.append(_trace(phone, job, threads, folder))
        whole_s += _run(phone, start, case, threads, each + _WARMUP - 1, folder)[-each:]
    return Measurement(
        threads=threads,
        dims={},
        warmup=_WARMUP,
        whole_s=tuple(whole_s),
        profiled_whole_s=tuple(chain.from_iterable(trace.whole_s[-each:] for trace in traces)),
        fixed_s=(),
        nodes=connected(_combined(traces, each), optimised.node),
    )


def _run(
    phone: _Phone, start: str, case: _Case, threads: int, runs: int, folder: Path, options: str = ""
) -> list[float]:
    """Return the seconds of each run, without the program's own warm-up."""
    result = phone.folder / "result.csv"
    # Settings of a typical app, as in `profilers/onnxruntime_cpu.py`: all optimisations, no spinning threads.
    options += "".join(f" -R {shlex.quote(library)}" for library in case.custom_ops)
    command = (
        f"ORT_DISABLE_TELEMETRY=1 {start} -e cpu -m times -r {runs} -x {threads} -y 1 -o 99 -D {options} "
        f"{shlex.quote(case.path)} {result}"
    )
    # The keeper process reads the process id from this file to end the program when the connection is lost.
    _shell(
        phone,
        f"cd {phone.folder}; rm -f {result}; {{ {command} & echo $! > pid; wait $!; }} 2>&1",
        case.model,
    )
    text = _pull(phone, result, folder / result.name).decode(errors="replace")
    found = [float(match) for match in re.findall(r"^[^,\n]*,([0-9.e+-]+),", text, re.MULTILINE)]
    if len(found) != runs or min(found) <= 0:
        raise ProfileError(
            f"{PROGRAM} on the phone wrote {len(found)} times instead of {runs}; use a newer build of it"
        )
    return found


def _trace(phone: _Phone, job: ProfileJob, threads: int, folder: Path) -> Measurement:
    names = _shell(phone, f"ls {phone.folder}/trace*").split()
    if len(names) != 1:
        raise ProfileError(
            f"{PROGRAM} on the phone wrote {len(names)} traces instead of 1; use a newer build of it"
        )
    data = _pull(phone, PurePosixPath(names[0]), folder / "trace.json")
    _shell(phone, f"rm -f {names[0]}")
    trace = parse_trace(data, "the phone's trace", model=job.model.sha256, threads=threads, dims={})
    return trace.profile.measurements[0]


# --- nodes ---


def _combined(traces: Sequence[Measurement], each: int) -> tuple[NodeTimes, ...]:
    """Return the nodes with the times of all rounds; names of inserted nodes may differ between rounds."""
    rounds = [trace.nodes for trace in traces]
    if len({tuple(node.op for node in nodes) for nodes in rounds}) > 1:
        raise ProfileError("the nodes that the phone ran differ between rounds; try fewer runs")
    return tuple(
        replace(same[0], seconds=tuple(chain.from_iterable(node.seconds[-each:] for node in same)))
        for same in zip(*rounds, strict=True)
    )
