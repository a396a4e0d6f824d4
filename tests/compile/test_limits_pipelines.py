"""Names that a user may give of a pipeline."""

from pathlib import Path

import pytest

from splitc.common.errors import ModelError
from splitc.compile.limits import LimitOptions, read_limits
from tests.compile.pipeline.making import Made, analysed, write_diffusion


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return analysed(write_diffusion(tmp_path / "source"), tmp_path)


def names(made: Made, units: frozenset[int]) -> list[str]:
    return [made.unrolled.graph.units[unit].name for unit in sorted(units)]


def test_a_stage_is_pinned_with_all_of_its_iterations(made: Made) -> None:
    limits = read_limits(LimitOptions(pin_cloud=("denoise",)), made.found, made.unrolled)
    assert names(made, limits.pin_cloud) == ["denoise[0]", "denoise[1]", "denoise[2]"]


def test_a_value_stands_for_whatever_makes_it(made: Made) -> None:
    limits = read_limits(LimitOptions(pin_device=("context", "latents")), made.found, made.unrolled)
    assert names(made, limits.pin_device) == ["text/Add_y", "denoise[0]", "denoise[1]", "denoise[2]"]


def test_a_node_is_named_with_its_stage(made: Made) -> None:
    limits = read_limits(LimitOptions(pin_device=("vae/Tanh_d", "vae/e")), made.found, made.unrolled)
    assert names(made, limits.pin_device) == ["vae/Tanh_d", "vae/Tanh_e"]


def test_a_private_value_is_private_in_every_iteration(made: Made) -> None:
    limits = read_limits(LimitOptions(private=("latents", "text/a")), made.found, made.unrolled)
    private = [made.unrolled.graph.tensors[index].name for index in sorted(limits.private)]
    assert private == ["text/a", "latents[1]", "latents[2]", "latents"]


def test_budgets_are_taken_over(made: Made) -> None:
    options = LimitOptions(
        max_device_weight_bytes=1, max_device_peak_bytes=2, max_payload_bytes=3, max_energy_j=4.0
    )
    limits = read_limits(options, made.found, made.unrolled)
    assert (limits.max_device_weight_bytes, limits.max_device_peak_bytes, limits.max_payload_bytes) == (
        1,
        2,
        3,
    )
    assert limits.max_energy_j == 4.0


def test_an_unknown_name_is_told(made: Made) -> None:
    with pytest.raises(
        ModelError, match="--private: the pipeline has no value 'promt', did you mean 'prompt'"
    ):
        read_limits(LimitOptions(private=("promt",)), made.found, made.unrolled)
    with pytest.raises(ModelError, match="--pin-device: the pipeline has no stage, value or node 'unknown'"):
        read_limits(LimitOptions(pin_device=("unknown",)), made.found, made.unrolled)
