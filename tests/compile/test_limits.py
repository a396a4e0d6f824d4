"""Names that a user gives become limits on the right units and tensors."""

from pathlib import Path

import pytest

from splitc.common.errors import ModelError, NoFeasibleCut
from splitc.compile.compile import Compiled
from splitc.compile.limits import LimitOptions, read_limits
from tests.compile.pipeline.making import Made, analysed
from tests.running import compile_here, save_tiny


def look(name: str, folder: Path) -> Made:
    return analysed(save_tiny(name, folder), folder)


def sides(compiled: Compiled) -> list[tuple[str, set[str]]]:
    """Kind and boundary names of every cut."""
    return [(cut.kind, {tensor.name for tensor in cut.boundary}) for cut in compiled.manifest.cuts]


def compile_with(name: str, folder: Path, **given: object) -> Compiled:
    return compile_here(save_tiny(name, folder), folder / "bundle", limits=LimitOptions(**given))  # type: ignore[arg-type]


def test_names_of_nodes_and_of_tensors(tmp_path: Path) -> None:
    found = look("diamond", tmp_path)
    graph = found.unrolled.graph
    by_tensor = {
        graph.tensors[index].name: number for number, unit in enumerate(graph.units) for index in unit.outputs
    }
    limits = read_limits(
        LimitOptions(pin_device=("Tanh_a",), pin_cloud=("d",), private=("b",), max_payload_bytes=7),
        found.found,
        found.unrolled,
    )
    assert limits.pin_device == {by_tensor["a"]}
    assert limits.pin_cloud == {by_tensor["d"]}
    assert limits.private == {graph.tensor_index()["b"]}
    assert limits.max_payload_bytes == 7


def test_a_private_tensor_inside_a_unit_keeps_the_unit_on_the_device(tmp_path: Path) -> None:
    found = look("tiny_cnn", tmp_path)
    (analysis,) = found.found.analyses
    assert "stem/conv" in analysis.partition.fused
    limits = read_limits(LimitOptions(private=("stem/conv",)), found.found, found.unrolled)
    assert not limits.private
    (unit,) = limits.pin_device
    names = {analysis.sources.nodes[index].name for index in found.unrolled.graph.units[unit].nodes}
    assert {"stem/conv", "stem/conv/relu"} <= names


def test_nothing_that_reads_a_private_input_is_sent(tmp_path: Path) -> None:
    compiled = compile_with("tiny_cnn", tmp_path, private=("image",))
    kinds = [kind for kind, _ in sides(compiled)]
    assert "all-tail" not in kinds
    assert "split" in kinds
    assert all("image" not in names for _, names in sides(compiled))


def test_a_private_tensor_inside_a_unit_never_leaves(tmp_path: Path) -> None:
    compiled = compile_with("tiny_cnn", tmp_path, private=("last/conv",))
    assert {kind for kind, _ in sides(compiled)} == {"all-head", "split"}
    assert all(names <= {"last/conv/relu", "head/mean", "head/flatten"} for _, names in sides(compiled))


def test_pins_hold_in_every_cut(tmp_path: Path) -> None:
    compiled = compile_with("tiny_cnn", tmp_path, pin_device=("stem/conv",), pin_cloud=("logits",))
    assert {kind for kind, _ in sides(compiled)} == {"split"}
    assert all("image" not in names for _, names in sides(compiled))


@pytest.mark.parametrize("name", ["max_device_weight_bytes", "max_device_peak_bytes", "max_payload_bytes"])
def test_budgets_hold_in_every_cut(name: str, tmp_path: Path) -> None:
    def amounts(compiled: Compiled) -> list[int]:
        return [
            cut.uplink_bytes
            if name == "max_payload_bytes"
            else 0
            if cut.head is None
            else cut.head.weight_bytes
            if name == "max_device_weight_bytes"
            else cut.head.peak_bytes or 0
            for cut in compiled.manifest.cuts
        ]

    free = amounts(compile_with("tiny_cnn", tmp_path))
    limit = max(free) - 1
    bound = amounts(compile_with("tiny_cnn", tmp_path, **{name: limit}))
    assert bound
    assert max(bound) <= limit
    assert len(bound) < len(free) or bound != free


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"pin_device": ("Tahn_a",)},
            "--pin-device: the model has no node or tensor 'Tahn_a', did you mean 'Tanh_a'?",
        ),
        ({"pin_cloud": ("zzz",)}, "--pin-cloud: the model has no node or tensor 'zzz'; `splitc inspect"),
        ({"private": ("Tanh_a",)}, "--private: the model has no tensor 'Tanh_a'"),
    ],
    ids=["suggestion", "none near", "node is no tensor"],
)
def test_unknown_names(given: dict[str, tuple[str, ...]], message: str, tmp_path: Path) -> None:
    found = look("diamond", tmp_path)
    with pytest.raises(ModelError) as raised:
        read_limits(LimitOptions(**given), found.found, found.unrolled)  # type: ignore[arg-type]
    assert str(raised.value).startswith(message)


def test_a_name_that_was_simplified_away(tmp_path: Path) -> None:
    found = look("constant_output", tmp_path)
    with pytest.raises(ModelError, match="--private: 'z' depends on no input, or is simplified away"):
        read_limits(LimitOptions(private=("z",)), found.found, found.unrolled)


def test_conflicting_pins(tmp_path: Path) -> None:
    with pytest.raises(NoFeasibleCut, match=r"^no cut has .*; drop one of the two$"):
        compile_with("tiny_cnn", tmp_path, pin_cloud=("stem/conv",), pin_device=("logits",))
    assert not (tmp_path / "bundle").exists()


def test_a_budget_that_excludes_everything_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoFeasibleCut, match="raise --max-payload"):
        compile_with("tiny_cnn", tmp_path, max_payload_bytes=1, pin_cloud=("logits",))
