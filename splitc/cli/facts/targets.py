"""What `splitc targets` prints."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from splitc.profile.targets.description import Network, Target


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetFacts(Target):
    """A machine, as its file describes it.

    Attributes:
        file: where it is described.
        times: how a build would get its times, in words.
    """

    file: str
    times: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkFacts(Network):
    """A kind of network, as its file describes it.

    Attributes:
        file: where it is described.
    """

    file: str


@dataclass(frozen=True, slots=True)
class MistakenFacts:
    """A description of the user's own that cannot be used.

    Attributes:
        mistake: the first reason, in a sentence; `splitc targets check FILE` prints all of them.
    """

    name: str
    file: str
    mistake: str


@dataclass(frozen=True, slots=True)
class TargetsFacts:
    """All machines and networks that are found by name.

    Attributes:
        mistaken: descriptions that cannot be used.
    """

    targets: tuple[TargetFacts, ...]
    networks: tuple[NetworkFacts, ...]
    mistaken: tuple[MistakenFacts, ...]


@dataclass(frozen=True, slots=True)
class CheckedFacts:
    """The result of checking a description.

    Attributes:
        mistakes: why it cannot be used, a sentence each.
        warnings: what was probably not meant, a sentence each.
    """

    file: str
    mistakes: tuple[str, ...]
    warnings: tuple[str, ...]


def target_facts(target: Target, path: Path, times: str) -> TargetFacts:
    """Everything that `splitc targets` tells of a machine."""
    return TargetFacts(**_values(target), file=str(path), times=times)


def network_facts(network: Network, path: Path) -> NetworkFacts:
    """Everything that `splitc targets` tells of a network."""
    return NetworkFacts(**_values(network), file=str(path))


def _values(record: Any) -> dict[str, Any]:
    return {item.name: getattr(record, item.name) for item in fields(record)}
