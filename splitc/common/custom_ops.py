"""Libraries of custom operators. ONNX Runtime loads them into this process, so only a person may name one, no file."""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from splitc.common.errors import InputError

EXTENSIONS = "onnxruntime-extensions"
"""The package whose library is found by its name."""

_SUFFIXES = re.compile(r"(\.so(\.\d+)*|\.dylib|\.dll)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CustomOps:
    """A library of custom operators.

    Attributes:
        name: its file's name without what differs by system ("lib", ".so", ".dll"), or the package's.
        sha256: of the file.
    """

    name: str
    path: Path
    sha256: str


def find_custom_ops(given: Iterable[str]) -> tuple[CustomOps, ...]:
    """Find the libraries that a person named, each by its path, or as "onnxruntime-extensions".

    Raises:
        InputError: there is no such file, or the package is not installed.
    """
    return tuple(map(_find, dict.fromkeys(given)))


def _find(given: str) -> CustomOps:
    if given == EXTENSIONS:
        try:
            path = Path(import_module("onnxruntime_extensions").get_library_path())
        except ImportError as error:
            raise InputError(
                f"the package {EXTENSIONS} is not installed here; install it with `pip install {EXTENSIONS}`"
            ) from error
        return CustomOps(EXTENSIONS, path, _sha256(path))
    path = Path(given)
    if not path.is_file():
        raise InputError(
            f"{given}: there is no such library of custom operators; give the path of its file, or {EXTENSIONS}"
        )
    name = _SUFFIXES.sub("", path.name)
    return CustomOps(name.removeprefix("lib") or name, path.absolute(), _sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
