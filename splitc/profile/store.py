"""Profiles and calibrations kept between commands: JSON files in the user's cache folder.

A file's name shows its content, so that a user can find, copy, commit or delete it:
`kept/<target>/<model>-<threads>t-<sizes>-<digest>.json` and `kept/<target>/calibration.json`. Unlike the
entries of `cache.py`, these files cannot be recreated without the device.
"""

import hashlib
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from splitc.common.files import write_files
from splitc.common.records import RecordError, decode, encode
from splitc.profile.document import Measurement, Profile, UnitRun
from splitc.profile.targets.calibration import CalibrationRun

_CALIBRATION = "calibration.json"
_LONGEST = 60

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeptRuns:
    """The runs that a target is calibrated with; the calibration itself is computed on each use."""

    target: str
    runs: tuple[CalibrationRun, ...]
    splitc_calibration: Literal[1] = 1


@dataclass(frozen=True, slots=True)
class KeptProfile:
    """A profile with a single measurement, and its file."""

    path: Path
    profile: Profile

    @property
    def measurement(self) -> Measurement:
        """The single measurement of the profile."""
        return self.profile.measurements[0]


@dataclass(frozen=True, slots=True)
class Store:
    """Kept profiles and calibrations in a cache folder; with `folder` None, nothing is kept or found."""

    folder: Path | None

    def keep_profile(self, target: str, model_name: str, profile: Profile) -> tuple[Path, ...]:
        """Keep each measurement of *profile* in a separate file, replacing an older one with the same settings.

        Raises:
            OSError: the disk is full or not writable; what was kept before is still there.
        """
        if self.folder is None:
            return ()
        folder = _folder_of(self.folder, target)
        parts = [_single(profile, index) for index in range(len(profile.measurements))]
        paths = [folder / _file_name(model_name, part) for part in parts]
        write_files({path: _json_line(part) for path, part in zip(paths, parts, strict=True)})
        return tuple(paths)

    def profiles(self, target: str, accepted: Collection[str]) -> tuple[list[KeptProfile], list[str]]:
        """Return the profiles kept for *target* with one of the model digests *accepted*, and notes on damaged files."""
        found, notes = [], []
        for path in self._files(target):
            profile, note = self._read(Profile, path)
            if note is not None:
                notes.append(note)
            elif profile is not None and profile.model in accepted and len(profile.measurements) == 1:
                found.append(KeptProfile(path, profile))
        return found, notes

    def kept(self, target: str) -> int:
        """Return how many profiles are kept for *target*, of any model."""
        return len(self._files(target))

    def keep_runs(self, target: str, runs: Sequence[CalibrationRun]) -> Path | None:
        """Keep the *runs* that *target* is calibrated with, replacing older ones.

        Raises:
            OSError: the disk is full or not writable; what was kept before is still there.
        """
        if self.folder is None:
            return None
        path = _folder_of(self.folder, target) / _CALIBRATION
        write_files({path: _json_line(KeptRuns(target, tuple(runs)))})
        return path

    def runs(self, target: str) -> tuple[tuple[CalibrationRun, ...], list[str]]:
        """Return the runs that *target* is calibrated with, and a note if their file is damaged."""
        if self.folder is None:
            return (), []
        kept, note = self._read(KeptRuns, _folder_of(self.folder, target) / _CALIBRATION)
        return (kept.runs if kept is not None else ()), [note] if note is not None else []

    def forget_runs(self, target: str) -> bool:
        """Delete the runs that *target* is calibrated with; return whether there were any."""
        if self.folder is None:
            return False
        try:
            (_folder_of(self.folder, target) / _CALIBRATION).unlink()
        except FileNotFoundError:
            return False
        return True

    def _files(self, target: str) -> list[Path]:
        if self.folder is None:
            return []
        return sorted(
            path for path in _folder_of(self.folder, target).glob("*.json") if path.name != _CALIBRATION
        )

    def _read(self, cls: type[T], path: Path) -> tuple[T | None, str | None]:
        assert self.folder is not None, "without a folder there are no paths"
        where = str(
            path.relative_to(self.folder)
        )  # notes enter the manifest, which must not name home folders
        try:
            return decode(cls, json.loads(path.read_bytes()), where), None
        except FileNotFoundError:
            return None, None
        except (OSError, ValueError, RecursionError, RecordError) as error:
            reason = str(error) if isinstance(error, RecordError) else f"{where}: cannot be read"
            return None, f"a damaged file in splitc's cache folder was ignored: {reason}"


def _single(profile: Profile, index: int) -> Profile:
    measurement, units = profile.measurements[index], profile.units
    if measurement.dims != profile.measurements[0].dims:
        units = None  # the work of the units is that at the sizes of the first measurement
    if units is not None:
        units = tuple(UnitRun(unit.name, unit.work, (unit.seconds[index],)) for unit in units)
    return replace(profile, measurements=(measurement,), units=units)


def _folder_of(cache: Path, target: str) -> Path:
    return cache / "kept" / _plain(target)


def _file_name(model_name: str, profile: Profile) -> str:
    measured = profile.measurements[0]
    sizes = [f"{name}={size}" for name, size in sorted(measured.dims.items())]
    words = [model_name, f"{measured.threads}t", *sizes]
    if not measured.nodes:
        words.append("whole")  # a time of the whole model must not replace a measurement of every node
    key = [profile.model, profile.runtime, profile.provider, measured.threads, sizes]
    return f"{_plain('-'.join(words))}-{_digest(key)}.json"


def _plain(text: str) -> str:
    """Return a file name for *text* that is valid on any file system; different texts give different names."""
    plain = re.sub(r"[^\w.=-]+", "_", text, flags=re.ASCII).lstrip(".")[:_LONGEST]
    return plain if plain and plain == text else f"{plain}-{_digest(text)}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:8]


def _json_line(record: Profile | KeptRuns) -> bytes:
    return (json.dumps(encode(record)) + "\n").encode()
