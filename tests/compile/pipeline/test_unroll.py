"""The one graph of a pipeline, and the way back from it."""

from pathlib import Path

import onnx

from splitc.compile.pipeline.unrolled import Origin, Share, shares
from tests.compile.pipeline.making import DIFFUSION, analysed, shipped, write_diffusion
from tests.models import WIDTH, dense, dense_weights, floats, model, op


def test_an_iteration_reads_what_the_one_before_made(tmp_path: Path) -> None:
    unrolled = analysed(write_diffusion(tmp_path / "source"), tmp_path).unrolled
    graph = unrolled.graph
    names = [tensor.name for tensor in graph.tensors]
    assert [name for name in names if name.startswith("latents")] == ["latents[1]", "latents[2]", "latents"]
    assert [unrolled.values[names.index(name)] for name in ("latents[1]", "latents")] == [
        "latents",
        "latents",
    ]
    units = [unit for unit in graph.units if unit.name.startswith("denoise")]
    assert [unit.name for unit in units] == ["denoise[0]", "denoise[1]", "denoise[2]"]
    assert [[names[index] for index in unit.inputs] for unit in units] == [
        ["noise", "negative", "context"],
        ["negative", "context", "latents[1]"],
        ["negative", "context", "latents[2]"],
    ]
    assert [[names[index] for index in unit.outputs] for unit in units] == [
        ["latents[1]"],
        ["latents[2]"],
        ["latents"],
    ]
    assert [tensor.name for tensor in graph.tensors if tensor.is_output] == ["image"]


def test_a_tensor_called_as_a_value_of_the_description_gets_a_free_name(tmp_path: Path) -> None:
    """The description calls the model's input "a", and the model has tensors "a" and "a'" inside."""
    built = model(
        [*dense("x", "a"), *dense("a", "a'"), *dense("a'", "y")],
        [floats("x", 2, WIDTH)],
        [floats("y", 2, WIDTH)],
        dense_weights("a", "a'", "y"),
    )
    onnx.save_model(built, tmp_path / "net.onnx")
    path = tmp_path / "one.toml"
    path.write_text(
        'name = "one"\noutputs = ["y"]\n[[stage]]\nname = "net"\nmodel = "net.onnx"\ninputs = { x = "a" }\n'
    )
    unrolled = analysed(path, tmp_path).unrolled
    assert {"a", "a'"} < {*unrolled.values}
    assert len({*unrolled.values}) == len(unrolled.values)


def test_iterations_share_their_weights(tmp_path: Path) -> None:
    made = analysed(write_diffusion(tmp_path / "source"), tmp_path)
    graph = made.unrolled.graph
    loops = [number for number, place in enumerate(made.unrolled.places) if place.iteration is not None]
    assert len({graph.units[number].weights for number in loops}) == 1
    text = frozenset(range(loops[0]))
    one, all_of_them = made.cut(text | {loops[0]}), made.cut(text | set(loops))
    assert one.device_weight_bytes == all_of_them.device_weight_bytes
    assert made.cut(frozenset(range(len(graph.units)))).device_weight_bytes == 4 * WIDTH * WIDTH * 7 + 4 * (
        WIDTH * 40 + 2
    )


def test_an_iteration_needs_memory_for_what_it_makes(tmp_path: Path) -> None:
    graph = analysed(write_diffusion(tmp_path / "source"), tmp_path).unrolled.graph
    unit = next(unit for unit in graph.units if unit.name == "denoise[0]")
    values = 3 * 4 * 2 * WIDTH
    assert unit.scratch_bytes >= values


def test_parts_are_told_as_shares_of_stages(tmp_path: Path) -> None:
    unrolled = analysed(write_diffusion(tmp_path / "source"), tmp_path).unrolled
    loop = [number for number, place in enumerate(unrolled.places) if place.stage == 1]
    head, tail = range(loop[0] + 2), range(loop[0] + 2, len(unrolled.places))
    assert shares(unrolled, head) == (Share(0, 0, 1), Share(1, 0, 2))
    assert shares(unrolled, tail) == (Share(1, 2, 3), Share(2, 0, 1))
    assert shares(unrolled, [0, 1]) == (Share(0, 0, 1, frozenset([0, 1])),)


def test_a_stage_whose_model_makes_an_output_of_weights_is_cut_around(tmp_path: Path) -> None:
    described = DIFFUSION.replace('["image"]', '["image", "fixed"]')
    path = write_diffusion(tmp_path / "source", described)
    nodes = [*dense("x", "d"), *dense("d", "y"), op("Tanh", "d_w", "fixed")]
    outputs = [floats("y", 2, WIDTH), floats("fixed", WIDTH, WIDTH)]
    built = model(nodes, [floats("x", 2, WIDTH)], outputs, dense_weights("d", "y"))
    onnx.save_model(built, tmp_path / "source" / "vae.onnx")
    made = analysed(path, tmp_path)
    assert made.unrolled.places[-1] == Origin(2)
    count = len(made.unrolled.places)
    entries = shipped(made, [made.cut(frozenset(range(end))) for end in (0, count - 1, count)])
    assert all(entry.check is not None for entry in entries)
