"""Sessions of ONNX Runtime that take as much memory as a test says."""

import gc
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from onnxruntime import InferenceSession

from splitc.common import ort

_session = ort.session


class Weights:
    """What the sessions that are alive take together.

    Attributes:
        by_file: bytes by the names of files; others take nothing.
        opened: the names of the files that were opened, in turn.
    """

    def __init__(self) -> None:
        self.by_file: dict[str, int] = {}
        self.opened: list[str] = []
        self._alive: WeakKeyDictionary[InferenceSession, int] = WeakKeyDictionary()

    def open(self, path: Path, **options: Any) -> InferenceSession:
        """A session, which takes what is said of the file."""
        session = _session(path, **options)
        self._alive[session] = self.by_file.get(path.name, 0)
        self.opened.append(path.name)
        return session

    def taken(self) -> int:
        """What those take that are not closed."""
        gc.collect()
        return sum(self._alive.values())
