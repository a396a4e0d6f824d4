"""Random pipelines, cut anywhere, in both directions."""

import tempfile
from pathlib import Path

import onnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from splitc.common.kinds import Direction
from tests.compile.pipeline.making import analysed, closures, shipped
from tests.models import WIDTH, dense, dense_weights, floats, model, op

MODELS = 3
MOST_CUTS = 12


def block(number: int) -> ModelProto:
    """A model of *number* + 1 inputs and two outputs, one of them made on the way."""
    inputs = [f"i{index}" for index in range(number + 1)]
    joined = [op("Sum", inputs, "s")]
    nodes = [*joined, *dense("s", "early"), *dense("early", "b"), op("Add", "b s", "late")]
    ports = [floats("early", 1, WIDTH), floats("late", 1, WIDTH)]
    weights = dense_weights("early", "b")
    return model(nodes, [floats(name, 1, WIDTH) for name in inputs], ports, weights)


@st.composite
def descriptions(draw: st.DrawFn) -> str:
    """A chain of stages, each of which reads any values before it; the last one's is the output."""
    known, lines = ["x", "z"], []
    for number in range(draw(st.integers(1, 3))):
        times = draw(st.integers(0, 4))
        lines += ["[[stage]]", f'name = "s{number}"']
        readable = [*known, f"c{number}"] if times else list(known)
        last = known[-1]
        if times:
            lines += [f"times = {times}", f'carry = {{ c{number} = "{known[-1]}" }}']
        steps = draw(st.integers(1, 2)) if times else 1
        for step in range(steps):
            kind = draw(st.integers(0, MODELS - 1))
            reads = [draw(st.sampled_from(readable)) for _ in range(kind + 1)]
            reads[0] = f"c{number}" if times and step == 0 else last
            early, late = (
                f"e{number}{step}",
                f"c{number}" if times and step + 1 == steps else f"l{number}{step}",
            )
            lines += ["[[stage.step]]"] if times else []
            ports = ", ".join(f'i{index} = "{value}"' for index, value in enumerate(reads))
            lines += [f'model = "m{kind}.onnx"', f"inputs = {{ {ports} }}"]
            lines += [f'outputs = {{ early = "{early}", late = "{late}" }}']
            last = draw(st.sampled_from([early, late])) if times and step + 1 < steps else late
            readable += [early, *([] if late in readable else [late])]
        known += [name for name in readable if name not in known and name != last] + [last]
    more = draw(st.lists(st.sampled_from(known[2:]), unique=True, max_size=2))
    outputs = ", ".join(f'"{name}"' for name in dict.fromkeys([known[-1], *more]))
    return "\n".join([f'name = "any"\noutputs = [{outputs}]', *lines])


@settings(derandomize=True, max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(descriptions(), st.sampled_from(["device-first", "cloud-first"]), st.randoms(use_true_random=False))
def test_head_and_tail_make_what_the_whole_pipeline_makes(
    described: str, direction: Direction, random: object
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(MODELS):
            onnx.save_model(block(number), folder / f"m{number}.onnx")
        path = folder / "any.toml"
        path.write_text(described, encoding="utf-8")
        made = analysed(path, folder)
        heads = closures(made.unrolled.graph)
        random.shuffle(heads)  # type: ignore[attr-defined]
        entries = shipped(made, [made.cut(head, direction) for head in heads[:MOST_CUTS]])
        assert all(entry.check is not None for entry in entries)
