"""What `splitc targets` takes."""

from dataclasses import dataclass
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from splitc.cli.options import cache_option, do, examples, json_option, takes
from splitc.profile.targets.description import network_names, target_names

CHECK = "check"


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetsArguments:
    """The arguments of `splitc targets`."""

    words: tuple[str, ...]
    as_json: bool
    cache_dir: Path


class _Words(click.ParamType[str]):
    """A name, or `check` and files; completes both in the shell."""

    name = "words"

    def convert(
        self,
        value: object,
        param: click.Parameter | None,  # noqa: ARG002 - click passes it
        ctx: click.Context | None,  # noqa: ARG002 - as above
    ) -> str:
        """Return the word as it is."""
        return str(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click passes it
        incomplete: str,
    ) -> list[CompletionItem]:
        """Offer files after `check`, else names."""
        if CHECK in (ctx.params.get("words") or ()):
            return [CompletionItem(incomplete, type="file")]
        names = (*target_names(), *network_names(), CHECK)
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@takes(
    TargetsArguments,
    epilog=examples("splitc targets", "splitc targets pixel7", "splitc targets check board.toml"),
)
@click.argument("words", nargs=-1, type=_Words(), metavar="[NAME | check FILE...]")
@json_option
@cache_option
def targets_command(arguments: TargetsArguments) -> None:
    """List machines and networks, show one, or check a description.

    NAME is shown in full, with the source of each number; it may also be a .toml file. `check` lists every mistake in
    your own descriptions.
    """
    do("targets", arguments)
