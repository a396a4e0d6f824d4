"""Keep to the files that were checked, although a bundle may be rebuilt in its folder while they are in use."""

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from threading import Lock

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import FileEntry
from splitc.bundle.plain import Stamp, open_plain, sha256_of
from splitc.common.errors import BundleError


@dataclass(slots=True)
class _Held:
    """An open file, and its stamp when its contents were last known to be right."""

    stream: BufferedReader
    stamp: Stamp


class HeldFiles:
    """The files of a folder, from the first use of each on; for several threads.

    A file that others open by its path, such as ONNX Runtime, is the one that was checked, or the use is refused.
    From then on it may be renamed, replaced or deleted: it stays what it was for those who have it open. Only a
    program that writes into the open file itself can change it. `check` notices that, also if the file became
    shorter, in which case reading mapped memory would end the process. Nothing can protect a run that is going on
    at that moment.

    Args:
        files: what the files must contain; a file that is not among them is not checked.
        stamps: stamps of the files that are known to contain it.
        advice: what the user should do after a change.
    """

    def __init__(
        self, folder: Path, files: Iterable[FileEntry], stamps: Mapping[str, Stamp], advice: str
    ) -> None:
        self._folder = folder
        self._files = {entry.path: entry for entry in files}
        self._known = dict(stamps)
        self._advice = advice
        self._lock = Lock()
        self._held: dict[str, _Held] = {}
        self._is_closed = False
        # Not at exit: another thread may still be using them then.
        weakref.finalize(self, _close, self._held).atexit = False

    @staticmethod
    def of(bundle: Bundle, advice: str) -> "HeldFiles":
        """Hold files of *bundle*, as far as their contents were checked."""
        checked = [entry for entry in bundle.manifest.files if entry.path in bundle.stamps]
        return HeldFiles(bundle.folder.absolute(), checked, bundle.stamps, advice)

    @contextmanager
    def opening(self, *names: str) -> Iterator[None]:
        """Let the block open files by their paths.

        Raises:
            BundleError: a file is not the one that was checked, before or after the block.
        """
        known = [name for name in names if name in self._files]
        before = {name: self._hold(name) for name in known}
        yield
        for name, stamp in before.items():
            with suppress(OSError):
                if Stamp.of((self._folder / name).lstat()) == stamp:
                    continue
            raise self._changed(name)

    def check(self, *names: str) -> None:
        """See that nobody wrote into the files that are open.

        Raises:
            BundleError: somebody did.
        """
        for name in names:
            held = self._held.get(name)
            if held is None:
                continue
            try:
                now = Stamp.of(os.fstat(held.stream.fileno()))
            except (OSError, ValueError):  # closed meanwhile
                continue
            if (now.bytes, now.modified_ns) == (held.stamp.bytes, held.stamp.modified_ns):
                continue
            with self._lock:
                self._compare(name, held.stream)
                held.stamp = now

    def close(self) -> None:
        """Keep no file open. What is opened later is still checked."""
        with self._lock:
            self._is_closed = True
            _close(self._held)

    def _hold(self, name: str) -> Stamp:
        """Return the stamp of the file that is now at the path of *name*, if its contents are right."""
        with self._lock:
            try:
                stream = open_plain(self._folder, name)
            except BundleError as error:
                raise self._changed(name) from error
            try:
                now = Stamp.of(os.fstat(stream.fileno()))
                if now != self._known.get(name):
                    self._compare(name, stream)
                self._known[name] = now
                if not self._is_closed:
                    self._held.setdefault(name, _Held(stream, now))
            finally:
                held = self._held.get(name)
                if held is None or held.stream is not stream:
                    stream.close()
            return now

    def _compare(self, name: str, stream: BufferedReader) -> None:
        try:
            is_same = sha256_of(stream) == self._files[name].sha256
        except OSError as error:
            raise self._changed(name) from error
        if not is_same:
            raise self._changed(name)

    def _changed(self, name: str) -> BundleError:
        return BundleError(
            f"{self._folder}: the bundle was rebuilt or changed after it was opened ('{name}' differs); {self._advice}"
        )


def _close(held: dict[str, _Held]) -> None:
    while held:
        held.popitem()[1].stream.close()
