"""Cache measured values as JSON files in the user's cache folder, so that they are measured only once."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from splitc.common.digests import json_sha256
from splitc.common.errors import SplitcError
from splitc.common.files import write_files


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of JSON values by kind and key; if `folder` is None, nothing is stored."""

    folder: Path | None

    def get(self, kind: str, key: tuple[object, ...]) -> object | None:
        """Return the value stored under *key*, or None."""
        path = self._path(kind, key)
        if path is None:
            return None
        try:
            value: object = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):  # missing or damaged, so it is measured again
            return None
        return value

    def put(self, kind: str, key: tuple[object, ...], value: object) -> None:
        """Store *value*; ignore a full or read-only disk, because the next build can measure again."""
        path = self._path(kind, key)
        if path is None:
            return
        with suppress(OSError):
            write_files({path: json.dumps(value).encode()})

    def _path(self, kind: str, key: tuple[object, ...]) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / kind / f"{json_sha256(key)}.json"


def default_cache_folder() -> Path:
    """Return the user's cache folder for splitc.

    Raises:
        SplitcError: the user has no home folder that is known.
    """
    try:
        return Path(platformdirs.user_cache_dir("splitc")).expanduser()  # older platformdirs leave a "~"
    except RuntimeError as error:
        raise SplitcError(
            "the home folder of this user is not known; set HOME, or choose a folder with --cache-dir"
        ) from error
