"""What `splitc serve` takes."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from splitc.cli.options import bundles_argument, cache_option, custom_ops_option, do, examples, takes
from splitc.cli.values import BYTES, DURATION, FILE
from splitc.common.parse import parse_whole

# Above this share of a machine's time, queues grow quickly.
DEFAULT_UTILISATION = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeArguments:
    """The arguments of `splitc serve`."""

    bundles: tuple[Path, ...]
    host: str
    port: int
    token_file: Path | None
    tls_cert: Path | None
    tls_key: Path | None
    threads: int | None
    max_batch: int
    max_queue: int
    is_priced: bool
    utilisation: float | None
    memory_limit: int | None
    max_request: int | None
    drain: float
    cache_dir: Path
    custom_ops: tuple[str, ...]
    on_ray: bool
    replicas: tuple[int, int] | None
    as_json: bool
    verbose: bool


class _Replicas(click.ParamType[tuple[int, int]]):
    """N or MIN..MAX replicas."""

    name = "N|MIN..MAX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Parse into the least and the most."""
        least, dots, most = str(value).partition("..")
        low, high = parse_whole(least), parse_whole(most if dots else least)
        if low is None or high is None or not 0 < low <= high:
            self.fail(f"{value!r} is not a number of replicas; write it like 2 or 1..4", param, ctx)
        return low, high


@takes(
    ServeArguments,
    extra="serve",
    epilog=examples(
        "splitc serve artifacts/regnet-pixel7",
        "splitc serve cloud.zip --host 0.0.0.0 --token-file token --tls-cert cert.pem --tls-key key.pem",
        "splitc serve artifacts/regnet-pixel7 --price --utilisation 0.8",
        "splitc serve artifacts/regnet-pixel7 --ray --replicas 1..4 --threads 2",
        "curl http://127.0.0.1:8000/v2/health/ready",
    ),
)
@bundles_argument
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all addresses."
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 for any free port.",
)
@click.option("--token-file", type=FILE, help="File with a token; requests without it are refused.")
@click.option("--tls-cert", type=FILE, help="Certificate chain (.pem), for https.")
@click.option("--tls-key", type=FILE, help="Private key of the certificate (.pem).")
@click.option(
    "--threads",
    type=click.IntRange(1),
    help="Threads of a run (with --ray: in each replica).  [default: all cores, divided among the replicas]",
)
@click.option(
    "--max-batch",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Maximum number of requests in a batch; batches are used where they save time.",
)
@click.option(
    "--max-queue",
    default=64,
    show_default=True,
    type=click.IntRange(1),
    help="Maximum number of waiting requests; further requests are refused at once.",
)
@click.option(
    "--price",
    "is_priced",
    is_flag=True,
    help="Publish a price for this machine's time that keeps the load of all devices within its capacity.",
)
@click.option(
    "--utilisation",
    type=click.FloatRange(0, 1, min_open=True),
    help=f"With --price: the share of its time that this machine should be busy.  [default: {DEFAULT_UTILISATION:g}]",
)
@click.option(
    "--memory-limit",
    type=BYTES,
    help="Maximum memory for open files (4GB); further files are opened when a request needs them.",
)
@click.option(
    "--max-request",
    type=BYTES,
    help="Maximum size of a request body (10MB).  [default: what the manifests allow]",
)
@click.option(
    "--drain",
    default="30s",
    show_default=True,
    type=DURATION,
    help="How long requests may take to finish after SIGTERM.",
)
@cache_option
@custom_ops_option
@click.option(
    "--ray",
    "on_ray",
    is_flag=True,
    help="Serve with Ray Serve: on the cluster that RAY_ADDRESS names, or on this machine.",
)
@click.option(
    "--replicas", type=_Replicas(), help="With --ray: the number of processes (2, or 1..4).  [default: 1]"
)
@click.option("--json", "as_json", is_flag=True, help="Print what is served as JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Log every request.")
def serve_command(arguments: ServeArguments) -> None:
    """Serve the cloud's part of each BUNDLE to devices.

    A BUNDLE is a folder, a packed .zip, or a folder of several bundles. Bundles may be of one model: each app gets what
    belongs to the bundle that it was built with. After SIGHUP, the bundles are read again. The server speaks the Open Inference Protocol (KServe v2), and logs one JSON line
    per event to stderr. After SIGTERM or Ctrl-C, requests in progress finish first.
    """
    do("serve", arguments)
