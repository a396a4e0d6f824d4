"""Read, check and write a bundle on disk. Devices use this module, so it needs only the standard library."""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from splitc.bundle.manifest import VERSION, FileEntry, Manifest
from splitc.bundle.pairing import pairing
from splitc.bundle.plain import Stamp, open_plain, sha256_of
from splitc.common.custom_ops import CustomOps
from splitc.common.digests import json_sha256
from splitc.common.errors import BundleError
from splitc.common.parse import parse_json
from splitc.common.records import RecordError, decode, encode, shown

MANIFEST = "manifest.json"
WEIGHTS = "weights.bin"
_MAX_MANIFEST_BYTES = 1 << 27


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder and the manifest in it.

    Attributes:
        stamps: the files whose contents were checked, by their names; empty if none was.
    """

    folder: Path
    manifest: Manifest
    stamps: Mapping[str, Stamp] = field(default_factory=dict, repr=False, compare=False)

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
        BundleError: no manifest, another version, a file missing, changed, a link or outside the folder.
    """
    manifest = _read_manifest(folder)
    return Bundle(folder, manifest, {entry.path: _checked(folder, entry) for entry in manifest.files})


def check_custom_ops(bundle: Bundle, given: Iterable[CustomOps], option: str) -> None:
    """See that the libraries of custom operators that *bundle* needs are *given*; systems have files of their own.

    Args:
        option: how a person names a library.

    Raises:
        BundleError: one is missing.
    """
    known = {item.name for item in given}
    for needed in bundle.manifest.model.custom_ops or ():
        if needed.name not in known:
            raise BundleError(
                f"{bundle.folder}: needs the custom operators of '{needed.name}', and no bundle brings a library; "
                f"name the library with {option}"
            )


def check_unchanged(bundle: Bundle) -> None:
    """See that the files of *bundle* are still those that `read_bundle` checked.

    Raises:
        BundleError: one was changed, replaced or removed.
    """
    for entry in bundle.manifest.files:
        known = bundle.stamps.get(entry.path)
        if known is None:
            continue
        try:
            with open_plain(bundle.folder, entry.path) as stream:
                if Stamp.of(os.fstat(stream.fileno())) == known:
                    continue
            _checked(bundle.folder, entry)
        except BundleError as error:
            raise BundleError(
                f"{bundle.folder}: the bundle was rebuilt or changed while it was being read ('{entry.path}' differs); "
                "try again"
            ) from error


def listed_files(folder: Path) -> set[str] | None:
    """Return the names of the files that the manifest in *folder* lists, in any version; None without a manifest."""
    try:
        value = json.loads(_manifest_bytes(folder))
        listed = {PurePosixPath(entry["path"]).parts[0] for entry in value["files"]}
    except (BundleError, OSError, ValueError, RecursionError, LookupError, TypeError):
        return None
    return listed if "splitc_manifest" in value else None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write *manifest* into *folder*; equal manifests give equal bytes."""
    text = json.dumps(encode(manifest), indent=1, ensure_ascii=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")


def file_entry(folder: Path, path: str) -> FileEntry:
    """Describe the file at *path* inside *folder*."""
    with (folder / path).open("rb") as stream:
        return FileEntry(path, os.fstat(stream.fileno()).st_size, sha256_of(stream))


def _manifest_bytes(folder: Path) -> bytes:
    with open_plain(folder, MANIFEST) as stream:
        if os.fstat(stream.fileno()).st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(f"{folder / MANIFEST}: is too large for a manifest; compile the bundle again")
        return stream.read()


def _read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    if not os.path.lexists(path):
        raise BundleError(f"{folder}: not a bundle, there is no {MANIFEST} in it")
    try:
        value = parse_json(_manifest_bytes(folder))
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise BundleError(f"{path}: not JSON: {error}; compile the bundle again") from error
    version = value.get("splitc_manifest") if isinstance(value, dict) else None
    if version != VERSION:
        raise BundleError(
            f"{path}: manifest version {shown(version)}, but this splitc reads version {VERSION}; compile the bundle again"
        )
    try:
        return decode(Manifest, value, str(path))
    except RecordError as error:
        raise BundleError(str(error)) from error


def _checked(folder: Path, entry: FileEntry) -> Stamp:
    """Return the stamp of a file that is as the manifest says."""
    with open_plain(folder, entry.path) as stream:
        found = os.fstat(stream.fileno())
        if found.st_size != entry.bytes:
            raise BundleError(
                f"{folder}: '{entry.path}' has {found.st_size} bytes instead of {entry.bytes}; "
                "copy or compile the bundle again"
            )
        try:
            is_same = sha256_of(stream) == entry.sha256
        except OSError as error:
            raise BundleError(f"{folder / entry.path}: cannot be read: {error.strerror}") from error
    if not is_same:
        raise BundleError(
            f"{folder}: '{entry.path}' was changed (SHA-256 differs); copy or compile the bundle again"
        )
    return Stamp.of(found)
