"""Find the data folders: inside an installed package, or next to the package in a checkout."""

from pathlib import Path
from typing import Literal

from splitc.common.errors import SplitcError

_PACKAGE = Path(__file__).resolve().parents[1]


def shipped(name: Literal["targets", "profilers"]) -> Path:
    """Return the folder *name*: the wheel's copy if there is one, else the checkout's.

    Raises:
        SplitcError: neither is there, so the installation is incomplete.
    """
    return _first_folder(name, (_PACKAGE / "_shipped", _PACKAGE.parent))


def _first_folder(name: str, parents: tuple[Path, ...]) -> Path:
    for parent in parents:
        if (parent / name).is_dir():
            return parent / name
    looked = " and ".join(str(parent / name) for parent in parents)
    raise SplitcError(f"the folder '{name}' of splitc is missing (looked at {looked}); reinstall splitc")
