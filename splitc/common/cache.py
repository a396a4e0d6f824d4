"""What was measured once and need not be measured again: JSON files in the user's cache folder."""

import hashlib
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of JSON values by kind and key; `folder` None keeps nothing."""

    folder: Path | None

    def get(self, kind: str, key: tuple[object, ...]) -> object | None:
        """Return the value kept under *key*, or None."""
        path = self._path(kind, key)
        if path is None:
            return None
        try:
            value: object = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):  # absent, or damaged: then it is measured again
            return None
        return value

    def put(self, kind: str, key: tuple[object, ...], value: object) -> None:
        """Keep *value*; a full or read-only disk only costs the next build some time."""
        path = self._path(kind, key)
        if path is None:
            return
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                    json.dump(value, stream)
                Path(name).replace(path)
            except BaseException:
                Path(name).unlink()
                raise

    def _path(self, kind: str, key: tuple[object, ...]) -> Path | None:
        if self.folder is None:
            return None
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / kind / f"{name}.json"


def default_cache_folder() -> Path:
    """The user's cache folder for splitc."""
    return Path(platformdirs.user_cache_dir("splitc"))
