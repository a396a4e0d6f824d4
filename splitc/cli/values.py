"""Values with units as people type them: 100ms, 2.5MB, batch=1, 0.2J."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from splitc.common.errors import InputError
from splitc.common.parse import parse_whole
from splitc.profile.targets.description import network_names, target_names

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES = {"": 1, "b": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_JOULES = {"mj": 1e-3, "j": 1.0}


class QuantityType(click.ParamType[float]):
    """A positive number with a unit, converted to the base unit."""

    def __init__(self, name: str, units: Mapping[str, float], example: str) -> None:
        self.name = name
        self.units = units
        self.example = example

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse a text such as *example*."""
        if isinstance(value, float | int):
            return value
        match = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-z]*)\s*", str(value), re.IGNORECASE)
        try:
            number = float(match[1]) * self.units[match[2].lower()] if match else math.nan
        except (KeyError, ValueError):
            number = math.nan
        if not 0 < number < math.inf:
            units = ", ".join(unit for unit in self.units if unit)
            self.fail(
                f"invalid {self.name} {value!r}; write it like {self.example} (units: {units})", param, ctx
            )
        return number


class ByteSize(QuantityType):
    """A whole number of bytes."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse and round down."""
        return int(super().convert(value, param, ctx))


class Dim(click.ParamType[tuple[str, int]]):
    """NAME=SIZE of a symbolic dimension."""

    name = "NAME=SIZE"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Parse into name and size."""
        name, _, size = str(value).rpartition("=")
        number = parse_whole(size)
        if not name or number is None:
            self.fail(f"{value!r} is not NAME=SIZE with a whole number as size, such as batch=1", param, ctx)
        return name, number


class Finite(click.FloatRange):
    """A number of at least 0, not infinite."""

    def __init__(self) -> None:
        super().__init__(0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse; neither infinity nor NaN is a number here."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return float(number)


class ModelName(click.ParamType[str]):
    """A name that is a part of URLs and of names of files."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Accept letters, digits, '_', '-' and '.', not at the beginning."""
        if not re.fullmatch(r"\w[\w.-]{0,99}", str(value)):
            self.fail(
                f"{value!r} cannot be a name; use up to 100 letters, digits, '_', '-' and '.'", param, ctx
            )
        return str(value)


class CountsType(click.ParamType[tuple[int, ...]]):
    """Whole numbers of at least *least*, separated by commas; may be empty."""

    name = "N[,N...]"

    def __init__(self, least: int = 1) -> None:
        self.least = least

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse; a repeated number counts once."""
        if isinstance(value, tuple):
            return value
        words = [word.strip() for word in str(value).split(",")] if str(value).strip() else []
        numbers = [number for word in words if (number := parse_whole(word)) is not None]
        if len(numbers) < len(words) or any(number < self.least for number in numbers):
            kind = "positive whole numbers" if self.least else "whole numbers"
            self.fail(f"{value!r} is not a list of {kind}, such as 1,4", param, ctx)
        return tuple(dict.fromkeys(numbers))


class Dims(click.ParamType[tuple[str, tuple[int, ...]]]):
    """NAME=SIZE[,SIZE...] of a symbolic dimension."""

    name = "NAME=SIZE[,SIZE...]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, tuple[int, ...]]:
        """Parse into name and sizes."""
        if isinstance(value, tuple):
            return value
        name, _, sizes = str(value).rpartition("=")
        if not name or not sizes.strip():
            self.fail(f"{value!r} is not NAME=SIZE or NAME=SIZE,SIZE, such as seq=128,256", param, ctx)
        return name, CountsType(0).convert(sizes, param, ctx)


class Described(click.ParamType[str]):
    """A shipped target or network, or a .toml file; completes names in the shell.

    A wrong name is explained when the target is loaded.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,  # noqa: ARG002 - click passes it
        ctx: click.Context | None,  # noqa: ARG002 - as above
    ) -> str:
        """Return the name as it is."""
        return str(value)

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002 - as above
        param: click.Parameter,  # noqa: ARG002 - as above
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offer the shipped names."""
        names = network_names() if self.name == "network" else target_names()
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def token_in(path: Path | None) -> str | None:
    """Return the token in the file *path*, without the line break; None if there is no path.

    Raises:
        InputError: the file cannot be read, or is empty.
    """
    if path is None:
        return None
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot read the token: {error}") from error
    if not token:
        raise InputError(
            f"{path}: the file is empty, but should contain a token; create one with `openssl rand -hex 32`"
        )
    return token


DURATION = QuantityType("duration", _SECONDS, "100ms")
ENERGY = QuantityType("energy", _JOULES, "0.2J")
BYTES = ByteSize("size", _BYTES, "2.5MB")
DIM = Dim()
MODEL_NAME = ModelName()
FINITE = Finite()
DIMS = Dims()
COUNTS = CountsType()
TARGET = Described("target")
NETWORK = Described("network")
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY_PATH = click.Path(path_type=Path)
