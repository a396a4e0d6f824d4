"""`splitc serve`: serve the cloud's part of bundles to devices."""

import logging
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

import click
from rich.table import Table

from splitc.cli.apart import ended_by_signals
from splitc.cli.arguments.serve import DEFAULT_UTILISATION, ServeArguments
from splitc.cli.extras import needs_extra
from splitc.cli.facts.serve import FileFacts, ServedFacts, ServeFacts
from splitc.cli.terminal import new_table, print_json, results, stages
from splitc.cli.values import token_in
from splitc.common.custom_ops import find_custom_ops
from splitc.common.formatting import format_seconds
from splitc.common.ort import usable_cores
from splitc.runtime.unpack import unpacked
from splitc.server.app import Application, application
from splitc.server.logs import log_to_stderr, tell
from splitc.server.options import ListenOptions, ServerOptions
from splitc.server.serve import serve
from splitc.server.tails.open import bundle_folders, open_parts
from splitc.server.tails.part import File, ServedPart


def run(arguments: ServeArguments) -> None:
    """Serve bundles until a signal ends it."""
    options = ServerOptions(
        token=token_in(arguments.token_file),
        max_queue=arguments.max_queue,
        max_request_bytes=arguments.max_request,
        utilisation=_utilisation(arguments),
    )
    listen = _listen(arguments)
    if arguments.replicas is not None and not arguments.on_ray:
        raise click.UsageError("--replicas needs --ray")
    if arguments.on_ray:
        _check_ray(listen)
    least, most = arguments.replicas or (1, 1)
    threads = arguments.threads or max(1, usable_cores() // most)
    cache = arguments.cache_dir
    opening = partial(
        open_parts,
        custom_ops=find_custom_ops(arguments.custom_ops),
        threads=threads,
        max_batch=arguments.max_batch,
        memory_limit_bytes=arguments.memory_limit,
        cache_folder=(cache / "served").absolute(),
    )
    with stages() as progress:
        folders = _folders(arguments)
        parts = ended_by_signals(lambda: opening(folders, say=progress))
    say = _sayer(parts, as_json=arguments.as_json)
    log_level = logging.DEBUG if arguments.verbose else logging.INFO
    log_to_stderr(log_level)
    app = application(parts, options)
    if not arguments.on_ray:
        # A closed terminal sends SIGHUP, too, and should end what was started in it.
        serve(app, listen, say, None if sys.stdin.isatty() else partial(_reopened, app, arguments, opening))
        return
    del app, parts  # the replicas open their own
    from splitc.server.ray.deployment import Scale, serve_on_ray  # noqa: PLC0415 - the extra 'ray'

    scale = Scale(least=least, most=most, threads=threads)
    serve_on_ray(partial(opening, folders), options, listen, scale, log_level=log_level, say=say)


def _check_ray(listen: ListenOptions) -> None:
    """Refuse what Ray Serve cannot do, before the bundles are opened, which takes a while."""
    if listen.tls_cert is not None:
        raise click.UsageError(
            "--tls-cert cannot be used with --ray: Ray Serve has no TLS; put a proxy in front of it"
        )
    with needs_extra("serve,ray", "splitc serve --ray"):
        import_module("splitc.server.ray.deployment")


def _utilisation(arguments: ServeArguments) -> float | None:
    if arguments.utilisation is not None and not arguments.is_priced:
        raise click.UsageError("--utilisation needs --price")
    return (arguments.utilisation or DEFAULT_UTILISATION) if arguments.is_priced else None


def _listen(arguments: ServeArguments) -> ListenOptions:
    if (arguments.tls_cert is None) != (arguments.tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key are used together; give both or neither")
    return ListenOptions(
        host=arguments.host,
        port=arguments.port,
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        drain_s=arguments.drain,
    )


def _folders(arguments: ServeArguments) -> list[Path]:
    """The folders of all bundles, those from a .zip file unpacked."""
    folders: list[Path] = []
    for path in arguments.bundles:
        if path.is_file():
            folders.append(unpacked(path, arguments.cache_dir / "bundles").folder.absolute())
        else:
            folders += (folder.absolute() for folder in bundle_folders(path))
    return folders


def _log(text: str) -> None:
    tell(logging.INFO, "reload", said=text)


def _reopened(
    app: Application, arguments: ServeArguments, opening: Callable[..., tuple[ServedPart, ...]]
) -> tuple[ServedPart, ...]:
    """The parts of the bundles as they lie there now; under a limit of memory, all are opened anew."""
    known = app.parts if arguments.memory_limit is None else ()
    return opening(_folders(arguments), say=_log, known=known)


def _sayer(parts: Sequence[ServedPart], *, as_json: bool) -> Callable[[str], None]:
    """Return a function that prints what is served and where, and flushes, so that a pipe sees it at once."""
    facts, table = tuple(map(_facts, parts)), _table(parts)

    def say(url: str) -> None:
        if as_json:
            print_json(ServeFacts(url, facts))
        else:
            console = results()
            console.print(table)
            console.print(f"serving at {url} (metrics at {url}/metrics); Ctrl-C to stop")
        sys.stdout.flush()

    return say


def _facts(part: ServedPart) -> ServedFacts:
    runs = tuple(
        FileFacts(file.name, times, file.max_batch, {str(batch): seconds for batch, seconds in file.run_s})
        for file, times in _runs(part)
    )
    return ServedFacts(part.name, part.pairing, part.cut.words, runs)


def _runs(part: ServedPart) -> tuple[tuple[File, int], ...]:
    """The files of a part, and how often a request runs each of them."""
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
