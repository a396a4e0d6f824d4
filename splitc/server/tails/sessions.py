"""The sessions of ONNX Runtime that run files, all open at once, or as many as a limit of memory allows."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

from splitc.common import ort
from splitc.common.errors import ModelError
from splitc.common.formatting import format_bytes
from splitc.common.values import Array, Feeds
from splitc.server.memory import memory_bytes
from splitc.server.tails.part import Run

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Open = Callable[[], "InferenceSession"]


class TooLarge(Exception):  # noqa: N818 - the reason is told, and others are offered
    """A file takes more memory alone than all may; `needs_bytes` is what it takes."""

    def __init__(self, name: str, needs_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{name} takes {format_bytes(needs_bytes)}, and {format_bytes(limit_bytes)} are allowed"
        )
        self.needs_bytes = needs_bytes


@dataclass(frozen=True, slots=True)
class _Known:
    """How to open a file, and what memory that took."""

    open: Open
    needs_bytes: int


class Sessions:
    """Opens files, and where memory is short closes those that were not used for longest.

    A file that is being opened may be beyond the limit for a moment, or for longer by what its first run takes more
    than it took at the start.

    Args:
        limit_bytes: None to keep all open.
        say: told which files do not stay open.
        measure: returns the bytes that this process takes.
    """

    def __init__(
        self, limit_bytes: int | None, say: Callable[[str], None], measure: Callable[[], int] = memory_bytes
    ) -> None:
        self._limit_bytes = limit_bytes
        self._say = say
        self._measure = measure
        self._before_bytes = 0 if limit_bytes is None else measure()
        self._lock = Lock()
        self._known: dict[str, _Known] = {}
        self._opened: OrderedDict[str, InferenceSession] = OrderedDict()  # what was used last is last

    @property
    def are_limited(self) -> bool:
        """Whether they may be closed again."""
        return self._limit_bytes is not None

    def add(self, name: str, open_file: Open, warm_up: Feeds | None) -> Run:
        """Open a file, which stays open while there is room, and return what runs it; the most wanted comes first.

        Args:
            warm_up: run once, so that what memory it takes is seen; None if no values can be made up.

        Raises:
            TooLarge: it alone takes more than the limit.
            ModelError: ONNX Runtime refuses it.
        """
        if self._limit_bytes is None:
            return partial(ort.run, _opened(open_file, warm_up))
        before_bytes = self._taken_bytes()
        session = _opened(open_file, warm_up)
        taken_bytes = self._taken_bytes()
        needs_bytes = max(taken_bytes - before_bytes, 0)
        if needs_bytes > self._limit_bytes:
            raise TooLarge(name, needs_bytes, self._limit_bytes)
        self._known[name] = _Known(open_file, needs_bytes)
        if taken_bytes <= self._limit_bytes:
            self._opened[name] = session
            self._opened.move_to_end(
                name, last=False
            )  # before anybody used one, the most wanted stays longest
        else:
            self._say(
                f"{name} is opened when it is asked for: with it {format_bytes(taken_bytes)} would be taken, and "
                f"{format_bytes(self._limit_bytes)} are allowed"
            )
        return partial(self._run, name)

    def _run(self, name: str, inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        with self._lock:
            session = self._opened.get(name) or self._open(name)
            self._opened.move_to_end(name)
        return ort.run(session, inputs, outputs)

    def _open(self, name: str) -> "InferenceSession":
        known = self._known[name]
        self._make_room(known.needs_bytes)
        session = known.open()
        self._make_room(0)  # pages that it shared with another file may now be its own
        self._opened[name] = session
        return session

    def _make_room(self, needs_bytes: int) -> None:
        limit_bytes = self._limit_bytes or 0
        while self._opened and self._taken_bytes() + needs_bytes > limit_bytes:
            self._opened.popitem(last=False)  # who runs it just now holds it until the end of the run

    def _taken_bytes(self) -> int:
        return self._measure() - self._before_bytes


def _opened(open_file: Open, warm_up: Feeds | None) -> "InferenceSession":
    session = open_file()
    if warm_up is not None:
        with suppress(ModelError):
            ort.run(session, warm_up)
    return session
