"""What the device runs of each cut, as sessions of ONNX Runtime: opened when first needed, then kept."""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock

from onnxruntime import InferenceSession

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CutEntry, PartEntry, part_files
from splitc.bundle.program import Call, Program, part_program, read_array, run_program
from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.common.ort import Interrupt
from splitc.common.values import Array, Value
from splitc.runtime.workers import beside

_ARRAY = ".npy"


@dataclass(frozen=True, slots=True)
class _Opened:
    session: InferenceSession
    inputs: tuple[str, ...]


class _Slot:
    """Where a session will be: one thread opens it, others wait for that one."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.opened: _Opened | None = None
        self._wanted = False

    def is_untouched(self) -> bool:
        """True once."""
        untouched, self._wanted = not self._wanted, True
        return untouched


class DeviceParts:
    """The device's parts of the cuts of *bundle*; may be used from several threads, and after a fork.

    Args:
        threads: of each session; as in the manifest if None, but not more than there are cores.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self._bundle = bundle
        self._threads = threads or min(bundle.manifest.targets.device.threads, ort.usable_cores())
        device = {cut.id: (cut, cut.device) for cut in bundle.manifest.cuts if cut.device is not None}
        self._programs = {name: _program(bundle, cut, part) for name, (cut, part) in device.items()}
        self._files = {name: _models(part) for name, (_, part) in device.items()}
        self._arrays: dict[str, Array] = {}
        # By process, too: the threads of a session do not survive a fork, nor may a child close it.
        self._slots: dict[tuple[int, str], _Slot] = {}

    def run(
        self, cut: CutEntry, values: Mapping[str, Value], interrupt: Interrupt | None = None
    ) -> tuple[dict[str, Value], float]:
        """Run the device's part of *cut*; return what it made, by name, and the seconds that took without opening it.

        Raises:
            ModelError: ONNX Runtime cannot open it, or not run it on *values*; or *interrupt* was set.
            BundleError: an array of values is not what it should be.
        """
        opened = {file: self._open(file) for file in self._files[cut.id]}

        def call(wanted: Call) -> Mapping[str, Value]:
            one = opened[wanted.file]
            feeds = {name: wanted.feeds[name] for name in one.inputs if name in wanted.feeds}
            return ort.run(one.session, feeds, wanted.outputs, interrupt)

        began_s = time.monotonic()
        made = run_program(self._programs[cut.id], values, call, self._array)
        return made, time.monotonic() - began_s

    def is_ready(self, cut: CutEntry) -> bool:
        """Whether the device's part of *cut* can start without opening anything."""
        return all(self._slot(file).opened for file in self._files.get(cut.id, ()))

    def preload(self, *cuts: CutEntry) -> None:
        """Open the device's parts of *cuts*, in turn, in another thread; `run` will find again what fails there."""
        files = [file for cut in cuts for file in self._files.get(cut.id, ())]
        wanted = [file for file in files if self._slot(file).is_untouched()]
        if wanted:
            beside(partial(self._load, wanted))

    def _load(self, files: Iterable[str]) -> None:
        for file in files:
            with suppress(ModelError):
                self._open(file)

    def _slot(self, file: str) -> _Slot:
        key = os.getpid(), file
        return self._slots.get(key) or self._slots.setdefault(key, _Slot())

    def _open(self, file: str) -> _Opened:
        slot = self._slot(file)
        with slot.lock:
            if slot.opened is None:
                session = ort.session(self._bundle.path(file), threads=self._threads)
                slot.opened = _Opened(session, tuple(item.name for item in session.get_inputs()))
            return slot.opened

    def _array(self, file: str) -> Array:
        if file not in self._arrays:
            self._arrays[file] = read_array(self._bundle, file)
        return self._arrays[file]


def _program(bundle: Bundle, cut: CutEntry, part: PartEntry) -> Program:
    return part_program(cut, part, [entry.name for entry in bundle.manifest.model.outputs])


def _models(part: PartEntry) -> list[str]:
    return [file for file in part_files(part) if not file.endswith(_ARRAY)]
