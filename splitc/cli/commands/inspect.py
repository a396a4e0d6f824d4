"""`splitc inspect`: show where a model or pipeline can be cut, or what a bundle contains."""

import tempfile
from pathlib import Path

from splitc.bundle.folder import read_bundle
from splitc.cli.arguments.inspect import InspectArguments
from splitc.cli.facts.bundle import bundle_facts
from splitc.cli.facts.model import model_facts
from splitc.cli.show_bundle import show_bundle
from splitc.cli.show_pipeline import pipeline_facts, show_pipeline
from splitc.cli.streams import say
from splitc.cli.terminal import Text, new_table, print_json, results, stages
from splitc.common.cache import Cache
from splitc.common.custom_ops import find_custom_ops
from splitc.common.formatting import format_bytes
from splitc.common.ort import use_custom_ops
from splitc.compile.pipeline.analyse import analyse_pipeline
from splitc.compile.pipeline.load import load_pipeline
from splitc.compile.pipeline.unroll import unroll
from splitc.model.analysis import Analysis, AnalysisOptions
from splitc.model.graph import Graph
from splitc.model.kinds import crossing_dtype, shown
from splitc.solve.cuts import boundary

_SHOWN_READERS = 3
_SHOWN_PLACES = 12


def run(arguments: InspectArguments) -> None:
    """Show where a model or pipeline can be cut, or what a bundle contains."""
    path = arguments.path
    if path.is_dir():
        manifest = read_bundle(path).manifest
        if arguments.as_json:
            print_json(bundle_facts(manifest))
        else:
            show_bundle(manifest, results())
        return
    use_custom_ops(find_custom_ops(arguments.custom_ops))
    options = AnalysisOptions(
        dict(arguments.dims), arguments.samples, arguments.simplify, arguments.build_memory
    )
    cache = Cache(arguments.cache_dir)
    with stages() as progress, tempfile.TemporaryDirectory(prefix="splitc-") as folder:
        progress("Loading")
        found = analyse_pipeline(load_pipeline(path), options, Path(folder), cache, progress)
    if found.pipeline.only is not None:
        (model,) = found.analyses
        if arguments.as_json:
            print_json(model_facts(model))
        else:
            _show_analysis(model, tensors=arguments.tensors)
    elif arguments.as_json:
        print_json(pipeline_facts(found, unroll(found)))
    else:
        show_pipeline(found, unroll(found), results(), tensors=arguments.tensors)


def _show_analysis(found: Analysis, *, tensors: bool) -> None:
    graph, partition, console = found.partition.graph, found.partition, results()
    weights = format_bytes(sum(weight.nbytes for weight in graph.weights))
    say(
        f"{found.original.name}: {len(found.sources.nodes)} nodes in {len(graph.units)} units, {weights} of weights"
    )
    inner = [tensor for tensor in graph.tensors if tensor.consumers]
    console.print(
        f"{len(inner)} tensors can cross; ONNX Runtime fuses away {len(partition.fused)}; "
        f"{len(partition.unknown)} have an unknown size or are of a type that cannot be sent"
    )
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"))
    for name in partition.unknown:
        console.print(Text(f"cannot cross: {name}{_why_not(found, name)}"))
    if tensors:
        _show_tensors(found)
        for name in partition.fused:
            console.print(Text(f"cannot cross: {name}: fused"))
    else:
        _show_places(graph)


def _why_not(found: Analysis, name: str) -> str:
    kind = found.sizes[name].kind if name in found.sizes else found.model.infos[name].kind
    return f" ({shown(kind)})" if kind and crossing_dtype(kind) is None else ": its size is unknown"


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
    """List the places with the smallest payloads, in order of execution."""
    payloads = [
        (sum(graph.tensors[index].nbytes or 0 for index in crossing), count, crossing)
        for count in range(len(graph.units))
        if (crossing := boundary(graph, frozenset(range(count))))
        and all(graph.tensors[index].nbytes is not None for index in crossing)
    ]
    console = results()
    console.print("places with the smallest payloads, in order of execution (all tensors: --tensors):")
    table = new_table("after unit", "of", "payload", "tensors", right=("of", "payload"))
    for payload, count, crossing in sorted(sorted(payloads)[:_SHOWN_PLACES], key=lambda place: place[1]):
        names = [graph.tensors[index].name for index in crossing[:_SHOWN_READERS]]
        names += ["..."] if len(crossing) > _SHOWN_READERS else []
        after = graph.units[count - 1].name if count else "(all in the cloud)"
        table.add_row(
            Text(after), f"{count}/{len(graph.units)}", format_bytes(payload), Text(", ".join(names))
        )
    console.print(table)
