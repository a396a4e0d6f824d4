r"""Output: results go to stdout, progress and errors to stderr.

All that the command line shows passes through here or through `streams.py`, where control characters become escapes such as `\x1b`: names
come from files of other people, and must not steer the terminal.
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich.text
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from splitc.cli.streams import tell, write_line
from splitc.common.formatting import escape_controls
from splitc.common.records import encode


class Text(rich.text.Text):
    """Text with styles that is a single line and holds no control characters."""

    def __init__(self, text: str = "", *arguments: Any, **options: Any) -> None:
        super().__init__(escape_controls(text), *arguments, **options)

    def append(self, text: rich.text.Text | str, style: Any = None) -> rich.text.Text:
        """Add *text*; a string is escaped."""
        return super().append(escape_controls(text) if isinstance(text, str) else text, style)


class _Console(Console):
    """A console that escapes control characters in every string."""

    def render_str(self, text: str, **options: Any) -> rich.text.Text:
        """Make a text of *text*."""
        return super().render_str(escape_controls(text), **options)


Title = str | rich.text.Text
"""What a cell of a table, or its title, may be."""


def lines(*texts: Title) -> rich.text.Text:
    """Return *texts* below each other, for a cell of a table."""
    return rich.text.Text("\n").join(Text(text) if isinstance(text, str) else text for text in texts)


def results() -> Console:
    """A console for results; if the output is a file, wide enough for a table."""
    console = _Console(highlight=False, markup=False)  # names may contain brackets
    return console if console.is_terminal else _Console(highlight=False, markup=False, width=140)


def progress_console() -> Console:
    """A console on stderr."""
    return _Console(stderr=True, highlight=False)


def new_table(*titles: Title, right: tuple[Title, ...] = ()) -> Table:
    """Return a plain table; the columns *right* are right-aligned, and long words are folded."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    return table


def print_json(record: object) -> None:
    """Print *record*, or several of them, as JSON on stdout; in ASCII, which any terminal shows as it is."""
    write_line(sys.stdout, json.dumps(encode(record), indent=1, allow_nan=False))


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Show each stage: with its elapsed time on a terminal, as a plain line elsewhere."""
    console = progress_console()
    if not console.is_terminal:
        yield lambda text: tell(f"{text} ...")
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        current: list[TaskID] = []

        def begin(text: str) -> None:
            finish()
            current.append(progress.add_task(escape_controls(text), total=1))

        def finish() -> None:
            if current:
                progress.update(current[-1], completed=1)

        yield begin
        finish()
