"""The device's parts of the cuts, as sessions of ONNX Runtime that are opened when first needed, then kept."""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock

from onnxruntime import InferenceSession

from splitc.bundle.folder import WEIGHTS, Bundle
from splitc.bundle.held import HeldFiles
from splitc.bundle.manifest import CutEntry, PartEntry, part_files
from splitc.bundle.program import Call, Program, part_program, read_array, run_program
from splitc.common import ort
from splitc.common.errors import BundleError, ModelError
from splitc.common.ort import Interrupt
from splitc.common.values import Array, Value
from splitc.runtime.workers import beside

_ARRAY = ".npy"
_ADVICE = "open a new Session"


@dataclass(frozen=True, slots=True)
class _Opened:
    session: InferenceSession
    inputs: tuple[str, ...]


class _Slot:
    """Holds one session, or none yet: the first thread opens it, others wait for that thread."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.opened: _Opened | None = None
        self._wanted = False

    def is_untouched(self) -> bool:
        """Return True on the first call, False on every later one."""
        untouched, self._wanted = not self._wanted, True
        return untouched


class DeviceParts:
    """Runs the device's parts of the cuts of *bundle*; may be used from several threads, and after a fork.

    Every part is of the bundle that was read, see `HeldFiles`: no part of a bundle that was built later is opened.

    Args:
        threads: number of threads of each session; None: as in the manifest, at most the number of usable cores.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self._bundle = bundle
        self._threads = threads or min(bundle.manifest.targets.device.threads, ort.usable_cores())
        device = {cut.id: (cut, cut.device) for cut in bundle.manifest.cuts if cut.device is not None}
        self._programs = {name: _program(bundle, cut, part) for name, (cut, part) in device.items()}
        self._files = {name: _models(part) for name, (_, part) in device.items()}
        self._arrays: dict[str, Array] = {}
        # Keyed by process as well: the threads of a session do not survive a fork, and a child must not close it.
        self._slots: dict[tuple[int, str], _Slot] = {}
        self._held: dict[int, HeldFiles] = {}

    def run(
        self, cut: CutEntry, values: Mapping[str, Value], interrupt: Interrupt | None = None
    ) -> tuple[dict[str, Value], float]:
        """Run the device's part of *cut*.

        Returns:
            The values that it computed, by name, and the seconds that the run took, without the time to open files.

        Raises:
            ModelError: ONNX Runtime cannot open the part or cannot run it on *values*, or *interrupt* was set.
            BundleError: a file of constant values is damaged, or a file was changed after the bundle was read.
        """
        opened = {file: self._open(file) for file in self._files[cut.id]}

        def call(wanted: Call) -> Mapping[str, Value]:
            one = opened[wanted.file]
            feeds = {name: wanted.feeds[name] for name in one.inputs if name in wanted.feeds}
            return ort.run(one.session, feeds, wanted.outputs, interrupt)

        self._held_here().check(*opened, WEIGHTS)
        began_s = time.monotonic()
        made = run_program(self._programs[cut.id], values, call, self._array)
        return made, time.monotonic() - began_s

    def is_ready(self, cut: CutEntry) -> bool:
        """Tell whether all files of the device's part of *cut* are open."""
        return all(self._slot(file).opened for file in self._files.get(cut.id, ()))

    def preload(self, *cuts: CutEntry) -> None:
        """Open the device's parts of *cuts*, in turn, in another thread. Errors are ignored: `run` will meet them again."""
        files = [file for cut in cuts for file in self._files.get(cut.id, ())]
        wanted = [file for file in files if self._slot(file).is_untouched()]
        if wanted:
            beside(partial(self._load, wanted))

    def close(self) -> None:
        """Keep no file open."""
        self._held_here().close()

    def _load(self, files: Iterable[str]) -> None:
        for file in files:
            with suppress(ModelError, BundleError):
                self._open(file)

    def _slot(self, file: str) -> _Slot:
        key = os.getpid(), file
        return self._slots.get(key) or self._slots.setdefault(key, _Slot())

    def _open(self, file: str) -> _Opened:
        slot = self._slot(file)
        with slot.lock:
            if slot.opened is None:
                with self._held_here().opening(file, WEIGHTS):
                    session = ort.session(self._bundle.path(file), threads=self._threads)
                slot.opened = _Opened(session, tuple(item.name for item in session.get_inputs()))
            return slot.opened

    def _array(self, file: str) -> Array:
        if file not in self._arrays:
            with self._held_here().opening(file):
                self._arrays[file] = read_array(self._bundle, file)
        return self._arrays[file]

    def _held_here(self) -> HeldFiles:
        """Return the files that this process holds: a lock of the parent may never be released in a child."""
        process = os.getpid()
        return self._held.get(process) or self._held.setdefault(process, HeldFiles.of(self._bundle, _ADVICE))


def _program(bundle: Bundle, cut: CutEntry, part: PartEntry) -> Program:
    return part_program(cut, part, [entry.name for entry in bundle.manifest.model.outputs])


def _models(part: PartEntry) -> list[str]:
    return [file for file in part_files(part) if not file.endswith(_ARRAY)]
