"""Descriptions of machines and networks: `targets/*.toml` and `targets/networks/*.toml`.

Every number must have a source and a confidence. The description of a network has typical values only: the
real link is measured while the app runs.

A user's own descriptions are in a folder of the same layout, `own_folder()`, and override shipped ones of the
same name. `targets/README.md` explains how to write one.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import platformdirs

from splitc.common.errors import TargetError
from splitc.common.parse import parse_toml
from splitc.common.records import RecordError, decode, did_you_mean
from splitc.common.resources import shipped
from splitc.profile.targets.quantity import Quantity, Spread, not_positive, refuse


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal cores of one processor; a GPU counts as a single core.

    Attributes:
        core: its name in the coefficients, such as "Cortex-X1" or "NVIDIA T4".
        peak_macs_per_s: fp32 multiply-accumulates per second of one core: lanes x pipes x clock.
    """

    core: str
    cores: int
    peak_macs_per_s: Quantity
    clock_hz: Quantity | None = None

    def __post_init__(self) -> None:
        refuse(not_positive("cores", self.cores))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """The hardware of a machine, from which times on it are predicted; see `predict.py`.

    Attributes:
        coefficients: name of the coefficients of its runtime: `targets/coefficients/<name>.toml`.
        clusters: groups of equal cores; threads run on the fastest cores first.
        memory_bytes_per_s: peak bandwidth of its memory, from the vendor or the bus.
        memory_bytes: size of its memory.
        caveat: what predictions leave out, in a message for the user.
    """

    coefficients: str
    clusters: tuple[Cluster, ...]
    memory_bytes_per_s: Quantity
    memory_bytes: Quantity | None = None
    caveat: str | None = None

    def __post_init__(self) -> None:
        refuse(None if self.clusters else "key 'clusters' must list at least one cluster")


@dataclass(frozen=True, slots=True)
class Target:
    """A machine that runs a head or a tail.

    Attributes:
        machine: "this" for the machine that compiles: its times are measured, not predicted.
        threads: how many threads it uses; None for one per core that the measuring process may use.
        active_w: power that the machine draws while it computes, above idle.
        descriptor: None if times on it cannot be predicted.
    """

    name: str
    kind: Literal["device", "cloud"]
    description: str
    runtime: str
    provider: str
    threads: int | None = None
    machine: Literal["this"] | None = None
    active_w: Quantity | None = None
    descriptor: Descriptor | None = None

    def __post_init__(self) -> None:
        if self.threads is not None:
            refuse(not_positive("threads", self.threads))


@dataclass(frozen=True, slots=True)
class Network:
    """Typical values of a kind of network; energy is None where no reliable figure is known."""

    name: str
    description: str
    uplink_bps: Spread
    downlink_bps: Spread
    rtt_s: Spread
    uplink_j_per_byte: Quantity | None = None
    downlink_j_per_byte: Quantity | None = None


def load_target(name_or_path: str | Path) -> Target:
    """Return a target by its name, or the one described in a `.toml` file.

    Raises:
        TargetError: there is no such target, or its description is invalid.
    """
    return _load(Target, "target", name_or_path, target_paths())


def load_network(name_or_path: str | Path) -> Network:
    """Return a network by its name, or the one described in a `.toml` file.

    Raises:
        TargetError: there is no such network, or its description is invalid.
    """
    return _load(Network, "network", name_or_path, network_paths())


def target_names() -> tuple[str, ...]:
    """Return the names of the shipped targets and the user's own, sorted."""
    return tuple(target_paths())


def network_names() -> tuple[str, ...]:
    """Return the names of the shipped networks and the user's own, sorted."""
    return tuple(network_paths())


def target_paths() -> dict[str, Path]:
    """Return the file of each target by name; the user's own override shipped ones."""
    return _files(shipped("targets"), own_folder())


def network_paths() -> dict[str, Path]:
    """Return the file of each network by name; the user's own override shipped ones."""
    return _files(shipped("targets") / "networks", own_folder() / "networks")


def coefficients_paths() -> dict[str, Path]:
    """Return the file of each set of coefficients by name; the user's own override shipped ones."""
    return _files(shipped("targets") / "coefficients", own_folder() / "coefficients")


def own_folder() -> Path:
    """Return the folder of the user's own targets; it contains `networks` and `coefficients`.

    A user whose home folder is not known has none: the path is one that no folder can have.
    """
    try:
        return Path(platformdirs.user_config_dir("splitc")).expanduser() / "targets"
    except RuntimeError:
        return Path(os.devnull) / "targets"


def read_description(path: Path, what: str) -> dict[str, object]:
    """Return the TOML table in *path*.

    Args:
        what: "target" or "network", for messages.

    Raises:
        TargetError: the file cannot be read, or is not TOML.
    """
    try:
        return parse_toml(path.read_bytes())
    except ValueError as error:
        raise TargetError(f"{path.name}: not a TOML file: {error}") from error
    except OSError as error:
        raise TargetError(f"cannot read the {what} description {path}: {error.strerror}") from error


_Described = TypeVar("_Described", Target, Network)


def _load(cls: type[_Described], what: str, name_or_path: str | Path, known: dict[str, Path]) -> _Described:
    text = str(name_or_path)
    path = Path(text) if text.endswith(".toml") else known.get(text)
    if path is None:
        hint = did_you_mean(text, known) or ";"
        raise TargetError(
            f"unknown {what} '{text}'{hint} list them with `splitc targets`, or give the path of a .toml file"
        )
    try:
        return decode(cls, read_description(path, what), path.name)
    except RecordError as error:
        others = len(error.mistakes) - 1
        more = f" (and {others} more; see `splitc targets check {path}`)" if others else ""
        raise TargetError(f"{error}{more}") from error


def _files(*folders: Path) -> dict[str, Path]:
    """Return the descriptions in *folders* by name, sorted; a later folder overrides an earlier one."""
    files = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return dict(sorted(files.items()))
