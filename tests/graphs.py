"""Graphs and costs without ONNX: small named ones, and Hypothesis strategies for random ones."""

from collections.abc import Sequence
from random import Random

from hypothesis import strategies as st

from splitc.model.graph import Graph, Tensor, Unit, Weight
from splitc.solve.costs import Box, Costs, Energy, Limits

# Zeros and repeated values make ties; the rest spans what real models and devices show.
TIMES_S = (0.0, 0.0, 1e-7, 1e-4, 1e-3, 1e-3, 0.02, 0.5, 10.0)
SIZES_BYTES = (1, 4, 1000, 1000, 20_000, 150_528, 602_112, 10**8)


def make_graph(
    reads: Sequence[Sequence[int]],
    nbytes: Sequence[int | None],
    *,
    inputs: int = 1,
    makes: Sequence[int] | None = None,
    outputs: Sequence[int] = (),
    weights: Sequence[Sequence[int]] = (),
    weight_bytes: Sequence[int] = (),
    scratch_bytes: Sequence[int] = (),
    device_only: Sequence[int] = (),
) -> Graph:
    """Number tensors in the order in which they appear: model inputs, then what each unit makes.

    *makes* is how many tensors each unit makes, 1 unless told. *outputs* are model outputs besides those
    that nobody reads.
    """
    makes = makes or [1] * len(reads)
    producers: list[int | None] = [None] * inputs + [
        unit for unit, count in enumerate(makes) for _ in range(count)
    ]
    tensors = []
    for index, producer in enumerate(producers):
        consumers = tuple(unit for unit, read in enumerate(reads) if index in read)
        is_output = index in outputs or (producer is not None and not consumers)
        tensors.append(Tensor(f"t{index}", "float32", (1,), nbytes[index], producer, consumers, is_output))
    units = tuple(
        Unit(
            name=f"u{unit}",
            nodes=(unit,),
            inputs=tuple(sorted(set(read))),
            outputs=tuple(index for index, producer in enumerate(producers) if producer == unit),
            weights=tuple(sorted(weights[unit])) if weights else (),
            work=(),
            scratch_bytes=scratch_bytes[unit] if scratch_bytes else 0,
        )
        for unit, read in enumerate(reads)
    )
    named = tuple(Weight(f"w{index}", size) for index, size in enumerate(weight_bytes))
    return Graph(units, tuple(tensors), named, frozenset(device_only))


def chain(head_s: Sequence[float], tail_s: Sequence[float], nbytes: Sequence[int]) -> Costs:
    """Units in a row; `nbytes` has the model input first."""
    graph = make_graph([[unit] for unit in range(len(head_s))], nbytes)
    return Costs(graph, tuple(head_s), tuple(tail_s))


def diamond() -> Costs:
    """u0 is read by u1 and u2, u3 joins them and reads the raw input; u1's result is an output."""
    graph = make_graph(
        [[0], [1], [1], [0, 2, 3]],
        [1000, 400, 200, 50, 10],
        outputs=[2],
        weights=[[0], [0, 1], [1], [2]],
        weight_bytes=[100, 20, 3],
        scratch_bytes=[7, 0, 5000, 0],
    )
    return Costs(graph, (0.01, 0.02, 0.03, 0.04), (0.001, 0.002, 0.003, 0.004), Energy(2.0, 1e-6, 5e-7))


def iterations(count: int, *, device_s: float = 2.0, cloud_s: float = 0.05) -> Costs:
    """A pipeline unrolled: an encoder, *count* iterations that share their weights, a decoder."""
    prompt, noise, context = range(3)
    latents = [noise, *range(context + 1, context + 1 + count)]
    graph = make_graph(
        [[prompt], *([latent, context] for latent in latents[:-1]), [latents[-1]]],
        [40, 16_384, 236_544, *[16_384] * count, 786_432],
        inputs=2,
        weights=[[0], *[[1]] * count, [2]],
        weight_bytes=[70, 1000, 5],
    )
    times = (0.1, *[1.0] * count, 0.5)
    return Costs(graph, tuple(device_s * time for time in times), tuple(cloud_s * time for time in times))


def random_costs(seed: int, units: int, *, single_output: bool) -> Costs:
    """Draw a DAG with fan-out, inputs (some read late), early outputs, shared weights, zero costs."""
    random = Random(seed)
    inputs = random.randint(1, 3)
    reads: list[list[int]] = []
    makes: list[int] = []
    for _ in range(units):
        made = inputs + sum(makes)
        recent = range(max(0, made - 3), made)
        pool = recent if random.random() < 0.7 else range(made)
        reads.append(sorted({random.choice(pool) for _ in range(random.randint(1, 3))}))
        makes.append(1 if single_output or random.random() < 0.8 else 2)
    tensors = inputs + sum(makes)
    if single_output:  # the last unit reads whatever nobody else does
        read = {index for unit in reads for index in unit}
        reads[-1] = sorted({*reads[-1], *(set(range(inputs, tensors - 1)) - read)})
    even = random.random() < 0.6  # times and sizes alike, many cuts compete; or extremes and ties
    early = [index for index in range(inputs, tensors) if not single_output and random.random() < 0.15]
    shared = random.randint(1, units + 1)
    graph = make_graph(
        reads,
        [int(10 ** random.uniform(3, 6)) if even else random.choice(SIZES_BYTES) for _ in range(tensors)],
        inputs=inputs,
        makes=makes,
        outputs=early,
        weights=[
            sorted({random.randrange(shared) for _ in range(random.randint(0, 2))}) for _ in range(units)
        ],
        weight_bytes=[random.randint(1, 10**6) for _ in range(shared)],
        scratch_bytes=[random.choice((0, 0, 5000, 10**6)) for _ in range(units)],
    )
    if even:
        head_s = tuple(0.1 ** random.uniform(1, 3) for _ in range(units))
        tail_s = tuple(time * 0.1 ** random.uniform(0.5, 2) for time in head_s)
    else:
        head_s = tuple(random.choice(TIMES_S) for _ in range(units))
        tail_s = tuple(random.choice((random.choice(TIMES_S), time / 20)) for time in head_s)
    energy = Energy(random.random() * 5, random.random() * 1e-5, random.random() * 1e-6)
    fixed_s = [random.choice((0.0, 0.0, 1e-5, 0.01, 1.0)) for _ in range(2)]
    return Costs(graph, head_s, tail_s, energy, *fixed_s)


def random_limits(costs: Costs, seed: int) -> Limits:
    """Pins and private tensors, few enough that most draws leave a cut."""
    random = Random(seed)
    units = range(len(costs.graph.units))
    return Limits(
        pin_device=frozenset(u for u in units if random.random() < 0.6 / len(units)),
        pin_cloud=frozenset(u for u in units if random.random() < 0.6 / len(units)),
        private=frozenset(t for t in range(len(costs.graph.tensors)) if random.random() < 0.3 / len(units)),
    )


def random_box(seed: int) -> Box:
    """Wide, narrow, or without any width in some directions."""
    random = Random(seed)

    def span(low: float, high: float) -> tuple[float, float]:
        ends = sorted(low * (high / low) ** random.random() for _ in range(2))
        return random.choice([(low, high), (ends[0], ends[1]), (ends[0], ends[0])])

    rtt_s = (0.0, random.choice((0.0, 0.2))) if random.random() < 0.2 else span(0.001, 0.3)
    return Box(span(0.5, 4.0), span(0.5, 20.0), span(5e5, 1e9), span(1e6, 1e9), rtt_s)


def costs(most_units: int) -> st.SearchStrategy[Costs]:
    """Random costs. Drawn from a seed, not edge by edge: ten times as many examples in the same time."""
    return st.builds(
        random_costs, st.integers(0, 2**32), st.integers(1, most_units), single_output=st.booleans()
    )


def boxes() -> st.SearchStrategy[Box]:
    """The default box one time in four, otherwise a random one."""
    return st.one_of(st.just(Box()), *[st.builds(random_box, st.integers(0, 2**32))] * 3)
