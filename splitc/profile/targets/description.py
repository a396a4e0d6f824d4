"""Machines and networks, as described in `targets/*.toml` and `targets/networks/*.toml`.

Every number carries its source and how far it can be trusted; a description without them does not
load. A network only says what is usual: the real link is measured while the app runs.

A user's own descriptions lie in a folder of the same form, `own_folder()`; one with the name of a
shipped one takes its place. `targets/README.md` tells how to write one.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import platformdirs

from splitc.common.errors import TargetError
from splitc.common.records import RecordError, decode, did_you_mean
from splitc.common.resources import shipped
from splitc.profile.targets.quantity import Quantity, Spread, not_positive, refuse


@dataclass(frozen=True, slots=True)
class Cluster:
    """Equal cores of one processor; a graphics chip is a single one.

    Attributes:
        core: the name by which coefficients know it, such as "Cortex-X1" or "NVIDIA T4".
        peak_macs_per_s: fp32 multiply-accumulates of one core: lanes x pipes x clock.
    """

    core: str
    cores: int
    peak_macs_per_s: Quantity
    clock_hz: Quantity | None = None

    def __post_init__(self) -> None:
        refuse(not_positive("cores", self.cores))


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a prediction needs to know of a machine that is not at hand; see `predict.py`.

    Attributes:
        coefficients: what its runtime makes of the hardware: `targets/coefficients/<this>.toml`.
        clusters: threads run on the fastest core first.
        memory_bytes_per_s: what its memory could move at best, as the vendor or the bus says.
        memory_bytes: how much of it there is.
        caveat: what a prediction leaves out, for people.
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
        machine: "this" when it is the machine that compiles, so that it is measured, not predicted.
        threads: None for one per core that the measuring process may use.
        active_w: what the machine draws while it computes, beyond idle.
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
    """A kind of network: what is usual on it. Energy is absent where no figure is well founded."""

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
        TargetError: no such target, or its description is wrong.
    """
    return _load(Target, "target", name_or_path, target_paths())


def load_network(name_or_path: str | Path) -> Network:
    """Return a network by its name, or the one described in a `.toml` file.

    Raises:
        TargetError: no such network, or its description is wrong.
    """
    return _load(Network, "network", name_or_path, network_paths())


def target_names() -> tuple[str, ...]:
    """Return the names of the shipped targets and the user's own, sorted."""
    return tuple(target_paths())


def network_names() -> tuple[str, ...]:
    """Return the names of the shipped networks and the user's own, sorted."""
    return tuple(network_paths())


def target_paths() -> dict[str, Path]:
    """Return the file of each target by its name; the user's own wins."""
    return _files(shipped("targets"), own_folder())


def network_paths() -> dict[str, Path]:
    """Return the file of each network by its name; the user's own wins."""
    return _files(shipped("targets") / "networks", own_folder() / "networks")


def coefficients_paths() -> dict[str, Path]:
    """Return the file of each set of coefficients that a descriptor may name; the user's own wins."""
    return _files(shipped("targets") / "coefficients", own_folder() / "coefficients")


def own_folder() -> Path:
    """Return the folder of the user's own targets, with `networks` and `coefficients` inside it."""
    return Path(platformdirs.user_config_dir("splitc")) / "targets"


def read_description(path: Path, what: str) -> dict[str, object]:
    """Return the plain values in *path*; *what* it describes is for the message.

    Raises:
        TargetError: the file cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TargetError(f"{path.name}: not a TOML file: {error}") from error
    except RecursionError as error:
        raise TargetError(f"{path.name}: is nested too deeply to be a description of a {what}") from error
    except OSError as error:
        raise TargetError(f"cannot read the {what} description {path}: {error.strerror}") from error


_Described = TypeVar("_Described", Target, Network)


def _load(cls: type[_Described], what: str, name_or_path: str | Path, known: dict[str, Path]) -> _Described:
    text = str(name_or_path)
    path = Path(text) if text.endswith(".toml") else known.get(text)
    if path is None:
        hint = did_you_mean(text, known) or ";"
        raise TargetError(
            f"no {what} is called '{text}'{hint} run `splitc targets`, or give the path of a .toml file"
        )
    try:
        return decode(cls, read_description(path, what), path.name)
    except RecordError as error:
        others = len(error.mistakes) - 1
        more = f" (and {others} more; see `splitc targets check {path}`)" if others else ""
        raise TargetError(f"{error}{more}") from error


def _files(*folders: Path) -> dict[str, Path]:
    """The descriptions in *folders* by name, sorted; those of a later folder win."""
    files = {path.stem: path for folder in folders for path in folder.glob("*.toml")}
    return dict(sorted(files.items()))
