"""Shipped coefficients load, know the cores of the shipped targets, and say where their numbers come from."""

from dataclasses import fields

import pytest

from splitc.common.errors import TargetError
from splitc.common.records import RecordError, decode, encode
from splitc.common.resources import shipped
from splitc.profile.targets.coefficients import TERMS, Coefficients, load_coefficients
from splitc.profile.targets.description import load_target, target_names

NAMES = ("onnxruntime-arm64", "onnxruntime-cuda", "onnxruntime-x86_64")


@pytest.mark.parametrize("name", NAMES)
def test_they_load(name: str) -> None:
    """A set's name is its file's; a plausible share of the peak is reached."""
    found = load_coefficients(name)
    assert found.name == name
    assert 0.5 < found.terms.matmul.cost < 10
    assert found.errors.known_core.value <= found.errors.known_family.value <= found.errors.unknown_core.value
    assert decode(Coefficients, encode(found), "again") == found


def test_these_are_shipped() -> None:
    assert tuple(sorted(path.stem for path in (shipped("targets") / "coefficients").glob("*.toml"))) == NAMES


@pytest.mark.parametrize("name", target_names())
def test_every_target_has_its_coefficients(name: str) -> None:
    """Arm's and the x86 makers' cores are listed; only Apple's and graphics chips are not."""
    descriptor = load_target(name).descriptor
    if descriptor is None:
        return
    found = load_coefficients(descriptor.coefficients)
    for cluster in descriptor.clusters:
        unlisted = cluster.core.startswith(("Apple ", "NVIDIA "))
        assert (found.core(cluster.core) is None) == unlisted, cluster.core


def test_operators_of_which_nothing_is_known_spread_most() -> None:
    for name in NAMES:
        terms = load_coefficients(name).terms
        spreads = {field.name: getattr(terms, field.name).spread for field in fields(terms)}
        assert max(spreads, key=lambda key: spreads[key]) == "other"
        assert tuple(spreads) == TERMS


def test_a_misspelt_name_gets_a_hint() -> None:
    with pytest.raises(
        TargetError, match="unknown coefficients 'onnxruntime-arm', did you mean 'onnxruntime-arm64'"
    ):
        load_coefficients("onnxruntime-arm")


def test_a_core_needs_a_family() -> None:
    plain = encode(load_coefficients("onnxruntime-arm64"))
    assert isinstance(plain, dict)
    plain["families"] = []
    with pytest.raises(RecordError, match=r"core 'Cortex-A\d+' has the unknown family"):
        decode(Coefficients, plain, "mine.toml")
