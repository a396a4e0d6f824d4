"""Every command receives its arguments as a record that matches its options."""

from dataclasses import fields, make_dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import click
import pytest

from splitc.cli.main import group
from splitc.cli.options import takes
from splitc.cli.values import DIM, DURATION, FILE, TARGET, CountsType
from splitc.samples import names
from splitc.samples.catalogue import SAMPLES
from splitc.samples.schedulers import SCHEDULERS

CONTEXT = click.Context(group)
COMMANDS = group.list_commands(CONTEXT)
OPTIONS: dict[str, tuple[Any, Any]] = {
    "model": (click.argument("model", type=FILE), Path),
    "files": (click.argument("files", nargs=-1, type=FILE), tuple[Path, ...]),
    "flag": (click.option("--flag", is_flag=True), bool),
    "text": (click.option("--text"), str | None),
    "target": (click.option("--target", default="local", type=TARGET), str),
    "count": (click.option("--count", default=1, type=click.IntRange(1)), int),
    "share": (click.option("--share", required=True, type=click.FloatRange(0)), float),
    "sla": (click.option("--sla", type=DURATION), float | None),
    "dims": (click.option("--dim", "dims", multiple=True, type=DIM), tuple[tuple[str, int], ...]),
    "threads": (click.option("--threads", type=CountsType(), default=""), tuple[int, ...]),
    "side": (click.option("--side", type=click.Choice(["a", "b"])), Literal["b", "a"] | None),
}


def declared(options: dict[str, Any], record: dict[str, Any]) -> click.Command:
    def command(told: object) -> None:
        click.echo(str(told))

    for option in reversed(options.values()):
        option(command)
    made = make_dataclass("Record", record.items(), frozen=True)
    return takes(made, epilog="")(command)


def test_every_kind_of_option_reaches_the_record(capsys: pytest.CaptureFixture[str]) -> None:
    command = declared(
        {name: option for name, (option, _) in OPTIONS.items()},
        {name: kind for name, (_, kind) in OPTIONS.items()},
    )
    command.main(
        ["m", "f", "g", "--share", "0.5", "--dim", "n=2", "--sla", "1s", "--threads", "1,4"],
        standalone_mode=False,
    )
    assert capsys.readouterr().out == (
        f"Record(model={Path('m')!r}, files=({Path('f')!r}, {Path('g')!r}), flag=False, text=None, target='local', "
        "count=1, share=0.5, sla=1.0, dims=(('n', 2),), threads=(1, 4), side=None)\n"
    )


@pytest.mark.parametrize("name", OPTIONS)
def test_a_field_without_its_option(name: str) -> None:
    kind = OPTIONS[name][1]
    with pytest.raises(TypeError, match=f"no option for the field {name}$"):
        declared({}, {name: kind})


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_without_its_field(name: str) -> None:
    with pytest.raises(TypeError, match=f"no field for {name}$"):
        declared({name: OPTIONS[name][0]}, {})


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("model", str),
        ("files", Path),
        ("flag", bool | None),
        ("text", str),
        ("target", str | None),
        ("count", float),
        ("share", int),
        ("sla", float),
        ("dims", tuple[int, ...]),
        ("threads", int),
        ("side", Literal["a", "c"] | None),
    ],
)
def test_a_field_of_another_kind(name: str, kind: Any) -> None:
    with pytest.raises(TypeError, match=f"the field {name} is .*, but should be "):
        declared({name: OPTIONS[name][0]}, {name: kind})


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_record(name: str) -> None:
    """`takes` checks the options against the fields of the record when the module is imported."""
    command = group.get_command(CONTEXT, name)
    assert command is not None
    assert command.name == name
    module = import_module(f"splitc.cli.arguments.{name}")
    record = getattr(module, f"{name.capitalize()}Arguments")
    assert [field.name for field in fields(record)] == [item.name for item in command.params]
    assert "Any" not in str(get_type_hints(record))
    run = import_module(f"splitc.cli.commands.{name}").run
    assert get_type_hints(run) == {"arguments": record, "return": type(None)}
    assert not command.get_short_help_str(65).endswith("..."), "`splitc --help` must show the whole sentence"


def test_names_of_samples_are_those_that_can_be_made() -> None:
    pipelines = {names.TINY_DIFFUSION, names.STABLE_DIFFUSION}
    assert set(get_args(names.SampleName)) == {*SAMPLES, *pipelines}
    assert get_args(names.SchedulerName) == tuple(SCHEDULERS)
