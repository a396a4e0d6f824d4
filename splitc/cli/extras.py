"""Say which extra to install where a library is missing."""

from collections.abc import Iterator
from contextlib import contextmanager

import click


@contextmanager
def needs_extra(extra: str, command: str) -> Iterator[None]:
    """Explain a library that is not installed: *command* needs it, and *extra* brings it.

    Raises:
        ClickException: something that was imported inside is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "splitc":
            raise
        raise click.ClickException(
            f"`{command}` needs {error.name}; install it with `pip install 'splitc[{extra}]'`"
        ) from error
