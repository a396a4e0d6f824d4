"""Heads as sessions of ONNX Runtime: opened when first needed, then kept."""

import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock

from onnxruntime import InferenceSession

from splitc import inference
from splitc.bundle import Bundle, CutEntry, HeadEntry
from splitc.errors import ModelError
from splitc.inference import Value
from splitc.runtime.workers import beside


@dataclass(frozen=True, slots=True)
class _Opened:
    session: InferenceSession
    inputs: tuple[str, ...]


class _Slot:
    """Where a head will be: one thread opens it, others wait for that one."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.opened: _Opened | None = None
        self._wanted = False

    def is_untouched(self) -> bool:
        """True once."""
        untouched, self._wanted = not self._wanted, True
        return untouched


class Heads:
    """The heads of *bundle*; may be used from several threads, and after a fork.

    Args:
        threads: of each head; as in the manifest if None, but not more than there are cores.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self._bundle = bundle
        self._threads = threads or min(bundle.manifest.targets.head.threads, inference.usable_cores())
        # By process, too: the threads of a session do not survive a fork, nor may a child close it.
        self._slots: dict[tuple[int, str], _Slot] = {}

    def run(self, cut: CutEntry, inputs: Mapping[str, Value]) -> tuple[dict[str, Value], float]:
        """Run the head of *cut*; return what it made, by name, and the seconds that took without opening it.

        Raises:
            ModelError: ONNX Runtime cannot open it, or not run it on *inputs*.
        """
        opened = self._open(_head(cut))
        feeds = {name: inputs[name] for name in opened.inputs if name in inputs}
        began_s = time.monotonic()
        values = inference.run(opened.session, feeds)
        return values, time.monotonic() - began_s

    def is_ready(self, cut: CutEntry) -> bool:
        """Whether *cut* can start without opening anything."""
        return cut.head is None or self._slot(cut.head).opened is not None

    def preload(self, *cuts: CutEntry) -> None:
        """Open the heads of *cuts*, in turn, in another thread; `run` will find again what fails there."""
        heads = [cut.head for cut in cuts if cut.head is not None and self._slot(cut.head).is_untouched()]
        if heads:
            beside(partial(self._load, heads))

    def _load(self, heads: Iterable[HeadEntry]) -> None:
        for head in heads:
            with suppress(ModelError):
                self._open(head)

    def _slot(self, head: HeadEntry) -> _Slot:
        return self._slots.setdefault((os.getpid(), head.file), _Slot())

    def _open(self, head: HeadEntry) -> _Opened:
        slot = self._slot(head)
        with slot.lock:
            if slot.opened is None:
                session = inference.session(self._bundle.path(head.file), threads=self._threads)
                slot.opened = _Opened(session, tuple(item.name for item in session.get_inputs()))
            return slot.opened


def _head(cut: CutEntry) -> HeadEntry:
    assert cut.head is not None, "nobody runs the head of all-tail"
    return cut.head
