"""Output: results go to stdout, progress and errors to stderr."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from splitc.common.records import encode


def results() -> Console:
    """A console for results; if the output is a file, wide enough for a table."""
    console = Console(highlight=False, markup=False)  # names may contain brackets
    return console if console.is_terminal else Console(highlight=False, markup=False, width=140)


def new_table(*titles: str, right: tuple[str, ...] = ()) -> Table:
    """Return a plain table; the columns *right* are right-aligned, and long words are folded."""
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for title in titles:
        table.add_column(title, justify="right" if title in right else "left", overflow="fold")
    return table


def print_json(record: object) -> None:
    """Print *record*, or several of them, as JSON on stdout."""
    click.echo(json.dumps(encode(record), indent=1, ensure_ascii=False, allow_nan=False))


@contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """Show each stage: with its elapsed time on a terminal, as a plain line elsewhere."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda text: click.echo(f"{text} ...", err=True)
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
            current.append(progress.add_task(text, total=1))

        def finish() -> None:
            if current:
                progress.update(current[-1], completed=1)

        yield begin
        finish()
