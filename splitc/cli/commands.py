"""The commands besides `compile`; each calls one function and prints what it returns."""

import tempfile
from pathlib import Path

import click
from rich.text import Text

from splitc.analysis import Analysis, AnalysisOptions, analyse
from splitc.bundle import read_bundle
from splitc.cache import Cache, default_cache_folder
from splitc.check import check_bundle
from splitc.cli.examples import examples
from splitc.cli.show import show_bundle
from splitc.cli.terminal import new_table, print_json, results, stages
from splitc.cli.values import ANY_PATH, DIM, FILE, FOLDER
from splitc.cuts import boundary
from splitc.graph import Graph
from splitc.records import encode
from splitc.samples import SAMPLES, write_sample
from splitc.text import format_bytes

_SHOWN_READERS = 3
_SHOWN_PLACES = 12
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
_dims = click.option(
    "--dim", "dims", multiple=True, type=DIM, help="Size of a symbolic dimension; repeatable."
)
_samples = click.option(
    "--samples",
    multiple=True,
    type=FILE,
    help="Inputs (.npz), one array per input; repeatable.  [default: random]",
)
_simplify = click.option("--simplify/--no-simplify", default=True, help="Clean the graph with onnxsim first.")
_cache = click.option(
    "--cache-dir", type=FOLDER, help="Where measurements are kept.  [default: the user's cache folder]"
)


@click.command(
    epilog=examples("splitc inspect model.onnx --tensors", "splitc inspect artifacts/model-pixel7")
)
@click.argument("path", type=ANY_PATH, metavar="MODEL|BUNDLE")
@_dims
@_samples
@_simplify
@_cache
@click.option("--tensors", is_flag=True, help="List every tensor that could cross, and those that cannot.")
@_json
def inspect(
    path: Path,
    dims: tuple[tuple[str, int], ...],
    samples: tuple[Path, ...],
    simplify: bool,
    cache_dir: Path | None,
    tensors: bool,
    as_json: bool,
) -> None:
    """Show where a model could be cut and where not, or what a bundle holds."""
    if path.is_dir():
        manifest = read_bundle(path).manifest
        if as_json:
            print_json(encode(manifest))
        else:
            show_bundle(manifest, results())
        return
    options = AnalysisOptions(dict(dims), samples, simplify)
    with stages() as progress, tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        found = analyse(path, options, Path(folder), Cache(cache_dir or default_cache_folder()), progress)
    if as_json:
        print_json(_analysis_facts(found))
    else:
        _show_analysis(found, tensors=tensors)


@click.command(epilog=examples("splitc verify artifacts/model-pixel7 --model model.onnx"))
@click.argument("bundle", type=ANY_PATH)
@click.option(
    "--model", type=FILE, help="Compare with this model.  [default: the bundle's all-head or all-tail cut]"
)
@_samples
@_json
def verify(bundle: Path, model: Path | None, samples: tuple[Path, ...], as_json: bool) -> None:
    """Check a bundle's files, run every cut, and compare with the whole model."""
    with stages() as progress:
        checked = check_bundle(bundle, model, samples, progress)
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "against": checked.against,
                "cuts": {key: encode(value) for key, value in checked.cuts},
            }
        )
        return
    for key, check in checked.cuts:
        click.echo(
            f"{key}: error {check.max_rel:.1e} of the output's scale, allowed {check.tolerance:.0e}, {check.seeds} inputs"
        )
    click.echo(f"{len(checked.cuts)} cuts agree with {checked.against}")


@click.command(epilog=examples("splitc sample regnet_y_400mf -o regnet.onnx"))
@click.argument("name", type=click.Choice(sorted(SAMPLES)), metavar="NAME")
@click.option("-o", "--output", type=FILE, help="Where to write it.  [default: NAME.onnx]")
def sample(name: str, output: Path | None) -> None:
    """Write a model to try splitc on: regnet_y_400mf, regnet_y_4gf or tiny_cnn, with seeded random weights."""
    path = output or Path(f"{name}.onnx")
    write_sample(name, path)
    click.echo(f"wrote {path} ({format_bytes(path.stat().st_size)})")


def _analysis_facts(found: Analysis) -> dict[str, object]:
    graph = found.partition.graph
    return {
        "model": found.original.name,
        "sha256": found.original.sha256,
        "nodes": len(found.sources.nodes),
        "units": [
            {"name": unit.name, "nodes": [found.sources.nodes[index].name for index in unit.nodes]}
            for unit in graph.units
        ],
        "tensors": [encode(tensor) for tensor in graph.tensors],
        "fused": list(found.partition.fused),
        "unknown_size": list(found.partition.unknown),
        "unknown_work": list(found.partition.unsized),
        "dims": dict(found.dims),
        "notes": list(found.notes),
    }


def _show_analysis(found: Analysis, *, tensors: bool) -> None:
    graph, partition, console = found.partition.graph, found.partition, results()
    weights = format_bytes(sum(weight.nbytes for weight in graph.weights))
    click.echo(
        f"{found.original.name}: {len(found.sources.nodes)} nodes in {len(graph.units)} units, {weights} of weights"
    )
    inner = [tensor for tensor in graph.tensors if tensor.consumers]
    console.print(
        f"{len(inner)} tensors could cross; {len(partition.fused)} vanish inside fusions of ONNX Runtime; "
        f"{len(partition.unknown)} have no known size or are not numbers"
    )
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    for name in partition.unknown:
        console.print(Text(f"cannot cross: {name}: its size is unknown, or it is not a tensor of numbers"))
    if tensors:
        _show_tensors(found)
        for name in partition.fused:
            console.print(Text(f"cannot cross: {name}: fused"))
    else:
        _show_places(graph)


def _show_tensors(found: Analysis) -> None:
    graph = found.partition.graph
    table = new_table("tensor", "dtype", "shape", "bytes", "made by", "read by", right=("bytes",))
    for tensor in graph.tensors:
        readers = [graph.units[unit].name for unit in tensor.consumers[:_SHOWN_READERS]]
        readers += ["..."] if len(tensor.consumers) > _SHOWN_READERS else []
        table.add_row(
            Text(tensor.name),
            tensor.dtype,
            Text(str(list(tensor.shape))),
            format_bytes(tensor.nbytes) if tensor.nbytes is not None else "cannot be sent",
            Text(graph.units[tensor.producer].name if tensor.producer is not None else "input"),
            Text(", ".join(readers) or "output"),
        )
    results().print(table)


def _show_places(graph: Graph) -> None:
    """List the places in running order with the smallest payloads, in that order."""
    payloads = [
        (sum(graph.tensors[index].nbytes or 0 for index in crossing), count, crossing)
        for count in range(len(graph.units))
        if (crossing := boundary(graph, frozenset(range(count))))
    ]
    console = results()
    console.print("places with the smallest payloads, in running order (every tensor with --tensors):")
    table = new_table("after unit", "of", "payload", "tensors", right=("of", "payload"))
    for payload, count, crossing in sorted(sorted(payloads)[:_SHOWN_PLACES], key=lambda place: place[1]):
        names = [graph.tensors[index].name for index in crossing[:_SHOWN_READERS]]
        names += ["..."] if len(crossing) > _SHOWN_READERS else []
        after = graph.units[count - 1].name if count else "(all in the cloud)"
        table.add_row(
            Text(after), f"{count}/{len(graph.units)}", format_bytes(payload), Text(", ".join(names))
        )
    console.print(table)
