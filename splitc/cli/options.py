"""Options that several commands share, and the record in which a command receives its arguments."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, TypeVar, cast, get_type_hints

import click

from splitc.cli.apart import WorkLimits, run_apart
from splitc.cli.extras import needs_extra
from splitc.cli.values import ANY_PATH, BYTES, DIM, DURATION, FINITE, FOLDER
from splitc.common.cache import default_cache_folder

T = TypeVar("T")

# The object of click's context where the command line is the whole process.
OWN_PROCESS = object()

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
dim_option = click.option(
    "--dim", "dims", multiple=True, type=DIM, help="Size of a symbolic dimension; repeatable."
)
samples_option = click.option(
    "--samples",
    multiple=True,
    type=ANY_PATH,
    help="Inputs: an .npz file with one array per input, or a folder with input_0.pb (or .npy), ...; repeatable.  "
    "[default: random]",
)
tolerance_option = click.option(
    "--tolerance",
    type=FINITE,
    help="How far outputs of a cut may be off, as a share of their largest value.  [default: as their types explain]",
)
simplify_option = click.option(
    "--simplify/--no-simplify",
    default=True,
    help="Simplify the model with onnxsim first.  [default: simplify]",
)
cache_option = click.option(
    "--cache-dir",
    type=FOLDER,
    default=default_cache_folder,
    help="Folder for profiles, calibrations and other cached files.  [default: the user's cache folder]",
)
sla_option = click.option(
    "--sla", type=DURATION, help="Target latency: use the least cloud work that meets it (100ms)."
)
build_timeout_option = click.option(
    "--build-timeout",
    type=DURATION,
    default="1h",
    show_default=True,
    help="How long the work on the model may take on this machine (10min).",
)
build_memory_option = click.option(
    "--build-memory",
    type=BYTES,
    help="Maximum memory for running the model on this machine (8GB); splitc itself takes up to 1 GB more.  "
    "[default: what is free]",
)
custom_ops_option = click.option(
    "--custom-ops",
    multiple=True,
    metavar="LIBRARY",
    help="A library of custom operators that the model needs, which is loaded into this process; or "
    "onnxruntime-extensions; repeatable.",
)
bundles_argument = click.argument("bundles", nargs=-1, required=True, type=ANY_PATH, metavar="BUNDLE...")


def examples(*lines: str) -> str:
    """Return an epilog that shows *lines* as they are; the backspace tells click not to rewrap them."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])


def takes(
    record: type[T], *, epilog: str, extra: Literal["compile", "serve"] = "compile"
) -> Callable[[Callable[[T], None]], click.Command]:
    """Make a click command of a function that receives its arguments as a *record*.

    The options stand between this decorator and the function. The function imports what does the work;
    a library that is missing then is explained by the *extra* that brings it.

    Raises:
        TypeError: the options and the fields of the record differ in name or type.
    """

    def declare(function: Callable[[T], None]) -> click.Command:
        command = click.command(epilog=epilog)(function)
        differences = _differences(get_type_hints(record), {str(item.name): item for item in command.params})
        if differences:
            raise TypeError(f"{record.__name__} does not match the options: {'; '.join(differences)}")
        make = cast(Callable[..., T], record)

        def call(**values: object) -> None:
            with needs_extra(extra, f"splitc {command.name}"):
                function(make(**values))

        command.callback = call
        return command

    return declare


def do(name: str, arguments: object, within: WorkLimits | None = None) -> None:
    """Import the module that does the work of the command *name*, and run it with the record *arguments*.

    A static import would make a circle: the module imports the record's class.

    Args:
        within: the limits of a process of its own, if the work needs one; other code that runs the command in its
            own process has own limits.
    """

    def work() -> None:
        import_module(f"splitc.cli.commands.{name}").run(arguments)

    if within is not None and click.get_current_context().find_root().obj is OWN_PROCESS:
        run_apart(work, within)
    else:
        work()


def _differences(fields: Mapping[str, object], parameters: Mapping[str, click.Parameter]) -> list[str]:
    """What is wrong with the fields of a record, for the parameters that they receive."""
    missing = [f"no field for {name}" for name in parameters if name not in fields]
    unused = [f"no option for the field {name}" for name in fields if name not in parameters]
    wrong = [
        f"the field {name} is {fields[name]}, but should be {expected}"
        for name, expected in ((name, _type_of(item)) for name, item in parameters.items() if name in fields)
        if fields[name] != expected
    ]
    return [*missing, *unused, *wrong]


_BUILT_IN = {type(click.STRING): str, type(click.INT): int, type(click.FLOAT): float, type(click.BOOL): bool}


def _type_of(parameter: click.Parameter) -> Any:
    """The type of the values that click passes for a parameter."""
    value = _type_of_one(parameter.type)
    if parameter.multiple or parameter.nargs == -1:
        return GenericAlias(tuple, (value, ...))
    may_be_absent = not parameter.required and parameter.to_info_dict()["default"] is None
    return value | None if may_be_absent else value


def _type_of_one(kind: click.ParamType[Any]) -> Any:
    if isinstance(kind, click.Path):
        return Path  # see values.py
    if isinstance(kind, click.Choice):
        return Literal[tuple(kind.choices)]
    known = [value for built_in, value in _BUILT_IN.items() if isinstance(kind, built_in)]
    return known[0] if known else get_type_hints(type(kind).convert)["return"]
