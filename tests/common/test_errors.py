"""The tree of errors in the documentation is complete."""

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import suppress

import splitc
from splitc.common import errors
from splitc.common.errors import SplitcError


def test_the_tree_lists_every_error_of_the_package() -> None:
    for module in pkgutil.walk_packages(splitc.__path__, "splitc."):
        if not module.name.endswith(("__main__", "_program")):
            with suppress(ModuleNotFoundError):  # a package that splitc does not require
                importlib.import_module(module.name)

    tree = errors.__doc__ or ""
    listed = {line.split("── ")[1].split()[0] for line in tree.splitlines() if "── " in line}
    assert listed == {error.__name__ for error in _below(SplitcError)}


def _below(error: type[SplitcError]) -> Iterator[type[SplitcError]]:
    for child in error.__subclasses__():
        if child.__module__.startswith("splitc."):
            yield child
            yield from _below(child)
