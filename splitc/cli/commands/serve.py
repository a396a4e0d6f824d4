"""`splitc serve`: serve what the cloud does of the cuts of bundles to the devices that do the rest."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from splitc.cli.terminal import examples, new_table, print_json, results, stages
from splitc.cli.values import ANY_PATH, BYTES, DURATION, FILE, FOLDER, token_in
from splitc.common.cache import default_cache_folder
from splitc.common.formatting import format_seconds
from splitc.common.ort import usable_cores
from splitc.runtime.unpack import unpacked
from splitc.server.app import application
from splitc.server.logs import log_to_stderr
from splitc.server.options import ListenOptions, ServerOptions
from splitc.server.serve import serve
from splitc.server.tails.open import open_parts
from splitc.server.tails.part import File, ServedPart

# Of its time that a machine shall be busy: beyond, queues grow fast.
_UTILISATION = 0.85


class _Replicas(click.ParamType[tuple[int, int]]):
    """N or MIN..MAX replicas."""

    name = "N|MIN..MAX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse into the least and the most."""
        least, dots, most = str(value).partition("..")
        words = (least, most if dots else least)
        if not all(word.isdecimal() and int(word) > 0 for word in words) or int(words[0]) > int(words[1]):
            self.fail(f"{value!r} is no number of replicas; write it like 2, or like 1..4", param, ctx)
        return int(words[0]), int(words[1])


@click.command(
    "serve",
    epilog=examples(
        "splitc serve artifacts/regnet-pixel7",
        "splitc serve cloud.zip --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem",
        "splitc serve artifacts/regnet-pixel7 --price --utilisation 0.8",
        "splitc serve artifacts/regnet-pixel7 --ray --replicas 1..4 --threads 2",
        "curl http://127.0.0.1:8000/v2/health/ready",
    ),
)
@click.argument("bundles", nargs=-1, required=True, type=ANY_PATH, metavar="BUNDLE...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at; 0.0.0.0 for all.")
@click.option(
    "--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0 for any that is free."
)
@click.option("--token-file", type=FILE, help="File with a token; who does not send it is refused.")
@click.option("--tls-cert", type=FILE, help="Certificate chain (.pem), for https.")
@click.option("--tls-key", type=FILE, help="Its key (.pem).")
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads of the one file that runs (with --ray: in each replica).  [default: one per core, over all]",
)
@click.option(
    "--max-batch",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Most requests that run as one, where that pays.",
)
@click.option(
    "--max-queue",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Most requests that wait; more are refused at once.",
)
@click.option(
    "--price",
    "is_priced",
    is_flag=True,
    help="Tell devices what a second of this machine is worth, so that together they ask for as much as it can do.",
)
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"With --price: the share of its time that it shall be busy.  [default: {_UTILISATION:g}]",
)
@click.option(
    "--memory-limit",
    type=BYTES,
    help="Most memory that open files may take (4GB); others are opened when they are asked for.",
)
@click.option(
    "--max-request", type=BYTES, help="Largest request body (10MB).  [default: what the manifests allow]"
)
@click.option(
    "--drain",
    default="30s",
    show_default=True,
    type=DURATION,
    help="How long requests may take after SIGTERM.",
)
@click.option(
    "--cache-dir", type=FOLDER, help="Where prepared files are kept.  [default: the user's cache folder]"
)
@click.option(
    "--ray",
    "on_ray",
    is_flag=True,
    help="Serve with Ray Serve: on the cluster that RAY_ADDRESS names, else on this machine.",
)
@click.option(
    "--replicas", type=_Replicas(), help="With --ray: how many processes serve (2, or 1..4).  [default: 1]"
)
@click.option("--json", "as_json", is_flag=True, help="Print what is served as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Log every request.")
def serve_command(
    bundles: tuple[Path, ...], *, on_ray: bool, replicas: tuple[int, int] | None, as_json: bool, **given: Any
) -> None:
    """Serve what the cloud does of each BUNDLE (a folder or a packed .zip) over the Open Inference Protocol (KServe v2).

    Logs one JSON line per event on stderr. SIGTERM and Ctrl-C end it when what was begun is done.
    """
    options = ServerOptions(
        token=token_in(given["token_file"]),
        max_queue=given["max_queue"],
        max_request_bytes=given["max_request"],
        utilisation=_utilisation(given),
    )
    listen = _listen(given)
    if replicas is not None and not on_ray:
        raise click.UsageError("--replicas is for --ray; give both or none")
    ray_serve = _ray_serve(listen) if on_ray else None
    least, most = replicas or (1, 1)
    threads = given["threads"] or max(1, usable_cores() // most)
    cache = given["cache_dir"] or default_cache_folder()
    opening = partial(
        open_parts,
        [_folder(path, cache).absolute() for path in bundles],
        threads=threads,
        max_batch=given["max_batch"],
        memory_limit_bytes=given["memory_limit"],
        cache_folder=(cache / "served").absolute(),
    )
    with stages() as progress:
        parts = opening(say=progress)
    say = _sayer(parts, as_json=as_json)
    log_level = logging.DEBUG if given["verbose"] else logging.INFO
    log_to_stderr(log_level)
    app = application(parts, options)
    if ray_serve is None:
        serve(app, listen, say)
        return
    del app, parts  # the replicas open their own
    scale = ray_serve.Scale(least=least, most=most, threads=threads)
    ray_serve.serve_on_ray(opening, options, listen, scale, log_level=log_level, say=say)


def _ray_serve(listen: ListenOptions) -> Any:
    """The module that knows Ray, which takes a second to import."""
    if listen.tls_cert is not None:
        raise click.UsageError(
            "Ray Serve speaks plain HTTP, so --tls-cert is not for --ray; put a proxy before it"
        )
    try:
        return import_module("splitc.server.ray.deployment")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "splitc":
            raise
        raise click.ClickException(
            f"`splitc serve --ray` needs {error.name}; install it with `pip install 'splitc[serve,ray]'`"
        ) from error


def _utilisation(given: dict[str, Any]) -> float | None:
    if given["utilisation"] is not None and not given["is_priced"]:
        raise click.UsageError("--utilisation is for --price; give both or none")
    return (given["utilisation"] or _UTILISATION) if given["is_priced"] else None


def _listen(given: dict[str, Any]) -> ListenOptions:
    if (given["tls_cert"] is None) != (given["tls_key"] is None):
        raise click.UsageError("--tls-cert and --tls-key belong together; give both or none")
    return ListenOptions(
        host=given["host"],
        port=given["port"],
        tls_cert=given["tls_cert"],
        tls_key=given["tls_key"],
        drain_s=given["drain"],
    )


def _folder(path: Path, cache: Path) -> Path:
    return unpacked(path, cache / "bundles").folder if path.is_file() else path


def _sayer(parts: Sequence[ServedPart], *, as_json: bool) -> Callable[[str], None]:
    """Returns what prints where *parts* are served, at once, also into a pipe."""
    facts, table = [_facts(part) for part in parts], _table(parts)

    def say(url: str) -> None:
        if as_json:
            print_json({"url": url, "models": facts})
        else:
            console = results()
            console.print(table)
            console.print(f"serving at {url} (metrics at {url}/metrics); Ctrl-C ends it")
        sys.stdout.flush()

    return say


def _facts(part: ServedPart) -> dict[str, object]:
    return {
        "model": part.name,
        "bundle": part.bundle,
        "kind": part.cut.words,
        "runs": [
            {
                "file": file.name,
                "times": times,
                "max_batch": file.max_batch,
                "run_s": {str(batch): seconds for batch, seconds in file.run_s},
            }
            for file, times in _runs(part)
        ],
    }


def _runs(part: ServedPart) -> tuple[tuple[File, int], ...]:
    """The files of a part, and how often each is run."""
    if isinstance(part.runs, File):
        return ((part.runs, 1),)
    return tuple((file, part.runs.calls[name]) for name, file in part.runs.files.items())


def _table(parts: Sequence[ServedPart]) -> Table:
    table = new_table(
        "model", "kind", "inputs", "runs", "alone", "most as one", right=("runs", "alone", "most as one")
    )
    for part in parts:
        runs = _runs(part)
        table.add_row(
            part.name,
            part.cut.words,
            ", ".join(entry.name for entry in part.inputs),
            str(sum(times for _, times in runs)),
            format_seconds(part.alone_s) if part.alone_s is not None else "not known",
            str(part.runs.max_batch if isinstance(part.runs, File) else part.runs.at_once),
        )
    return table
