"""Read, check and write a bundle on disk. Devices use this module, so it needs only the standard library."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from splitc.bundle.manifest import VERSION, FileEntry, Manifest
from splitc.bundle.pairing import pairing
from splitc.common.digests import json_sha256
from splitc.common.errors import BundleError
from splitc.common.records import RecordError, decode, encode

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder and the manifest in it."""

    folder: Path
    manifest: Manifest

    def path(self, file: str) -> Path:
        """Return the path of *file*, as the manifest names it."""
        return self.folder / file

    @property
    def digest(self) -> str:
        """SHA-256 of what its cuts compute: a bundle and its packed sides have the same digest."""
        return json_sha256([pairing(self.manifest, cut) for cut in self.manifest.cuts])


def read_bundle(folder: Path) -> Bundle:
    """Read the manifest in *folder* and check every file's size and digest.

    Raises:
        BundleError: no manifest, another version, a file missing, changed or outside the folder.
    """
    manifest = _read_manifest(folder / MANIFEST)
    for entry in manifest.files:
        _check_file(folder, entry)
    return Bundle(folder, manifest)


def listed_files(folder: Path) -> set[str] | None:
    """Return the names of the files that the manifest in *folder* lists, in any version; None without a manifest."""
    try:
        value = json.loads((folder / MANIFEST).read_bytes())
        listed = {PurePosixPath(entry["path"]).parts[0] for entry in value["files"]}
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return listed if "splitc_manifest" in value else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write *manifest* into *folder*; equal manifests give equal bytes."""
    text = json.dumps(encode(manifest), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def file_entry(folder: Path, path: str) -> FileEntry:
    """Describe the file at *path* inside *folder*."""
    target = folder / path
    return FileEntry(path, target.stat().st_size, _sha256(target))


def _read_manifest(path: Path) -> Manifest:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"{path.parent}: not a bundle, there is no {MANIFEST} in it") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # JSON or UTF-8
        raise BundleError(f"{path}: not JSON: {error}; compile the bundle again") from error
    version = value.get("splitc_manifest") if isinstance(value, dict) else None
    if version != VERSION:
        raise BundleError(
            f"{path}: manifest version {version!r}, but this splitc reads version {VERSION}; compile the bundle again"
        )
    try:
        return decode(Manifest, value, str(path))
    except RecordError as error:
        raise BundleError(str(error)) from error


def _check_file(folder: Path, entry: FileEntry) -> None:
    target = folder / entry.path
    if not _is_inside(folder, entry.path):
        raise BundleError(f"{folder}: the manifest names a file outside the bundle: '{entry.path}'")
    if not target.is_file():
        raise BundleError(f"{folder}: '{entry.path}' is missing; copy or compile the bundle again")
    if target.stat().st_size != entry.bytes:
        raise BundleError(
            f"{folder}: '{entry.path}' has {target.stat().st_size} bytes instead of {entry.bytes}; "
            "copy or compile the bundle again"
        )
    if _sha256(target) != entry.sha256:
        raise BundleError(
            f"{folder}: '{entry.path}' was changed (SHA-256 differs); copy or compile the bundle again"
        )


def _is_inside(folder: Path, path: str) -> bool:
    parts = PurePosixPath(path)
    try:
        target = (folder / path).resolve()
    except (OSError, RuntimeError, ValueError):  # a loop of links, a name that no file can have
        return False
    return not parts.is_absolute() and ".." not in parts.parts and target.is_relative_to(folder.resolve())


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
