"""Run as a process: a server whose part waits for a line on stdin. Prints where it listens, then one line for each run."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from splitc.common.values import Array
from splitc.server.app import application
from splitc.server.logs import log_to_stderr
from splitc.server.options import ListenOptions, ServerOptions
from splitc.server.serve import serve
from tests.server.serving import double, make_part


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the test reads it


def main(drain_s: str, *tls: str) -> None:
    def gated(inputs: Mapping[str, Array], outputs: Sequence[str]) -> dict[str, Array]:
        say("runs")
        sys.stdin.readline()
        return double(inputs, outputs)

    log_to_stderr()
    certificate, key = map(Path, tls) if tls else (None, None)
    listen = ListenOptions(port=0, drain_s=float(drain_s), tls_cert=certificate, tls_key=key)
    serve(application([make_part(run=gated, max_batch=1)], ServerOptions()), listen, say)


main(*sys.argv[1:])
