"""The `splitc` command and what it does with errors."""

import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import Any, Never, cast

import click

from splitc.cli.failures import MISUSED, fail, fault, interrupted, out_of_memory, system_failure
from splitc.cli.options import OWN_PROCESS, examples
from splitc.common.errors import SplitcError
from splitc.common.records import did_you_mean

_COMMANDS = (
    *("compile", "inspect", "verify", "profile", "calibrate", "sample"),
    *("targets", "pack", "serve", "run", "demo", "simulate"),
)


class Guarded(click.Group):
    """A group that turns every expected failure into one sentence and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click passes it
        """Return the names in the order in which a user needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import what the command takes; what it needs to run is imported when it runs."""
        if cmd_name not in _COMMANDS:
            ctx.fail(f"no such command '{cmd_name}'{did_you_mean(cmd_name, _COMMANDS)}")
        module = import_module(f"splitc.cli.arguments.{cmd_name}")
        return cast(click.Command, getattr(module, f"{cmd_name}_command"))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; exit 1 for a failed run, 2 for wrong usage, 128 + N when stopped by signal N."""
        run = super().main
        if not standalone_mode:
            return run(args, prog_name, complete_var, standalone_mode=False, **extra)
        sys.exit(_exit_code(lambda: run(args, prog_name, complete_var, standalone_mode=False, **extra)))


class _Stopped(SystemExit):
    """A signal asked the program to end: an exit, so that everything cleans up."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.exit_code = 128 + number


def _exit_code(run: Callable[[], Any]) -> int:  # noqa: PLR0911 - one for each kind of end
    try:
        code = run()
        if sys.stdout is not None:
            sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return MISUSED
    except click.UsageError as error:
        help_of = f"; see `{error.ctx.command_path} --help`" if error.ctx is not None else ""
        message = error.format_message().replace(". (", " (").rstrip(".")
        return fail(message[:1].lower() + message[1:], help_of, code=MISUSED)
    except (SplitcError, click.ClickException) as error:
        return fail(str(error))
    except OSError as error:
        return system_failure(error)
    except MemoryError as error:
        return out_of_memory(error)
    except _Stopped as error:
        return interrupted(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort
        # a signal during the import of ONNX Runtime arrives as an ImportError
        return (
            interrupted(error.__cause__.exit_code) if isinstance(error.__cause__, _Stopped) else fault(error)
        )
    return code if isinstance(code, int) else 0


@click.group(
    cls=Guarded,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples(
        "splitc sample regnet_y_400mf -o regnet.onnx",
        "splitc compile regnet.onnx --device pixel7",
        "splitc inspect artifacts/regnet-pixel7",
    ),
)
@click.version_option(package_name="splitc", message="splitc %(version)s")
def group() -> None:
    """Split an ONNX model between a device and the cloud."""


def main() -> None:
    """Start `splitc`, so that it cleans up when a terminal or a build server stops it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # set by nohup, or for a shell's background job
            signal.signal(number, _stop)
    group(prog_name="splitc", obj=OWN_PROCESS)


def _stop(number: int, _frame: FrameType | None) -> Never:
    """Exit with cleanup. The handler stays, as ONNX Runtime sometimes swallows the first signal."""
    raise _Stopped(number)
