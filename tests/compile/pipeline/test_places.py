"""The places that `splitc inspect` lists are those that a compile can cut at, with what crosses there."""

import pytest

from splitc.compile.pipeline.places import Place, Traffic, places
from tests.compile.pipeline.making import Made, analysed, write_diffusion
from tests.models import WIDTH

_ROW = 2 * WIDTH * 4  # bytes of two rows of floats
_IMAGE = 2 * 40 * 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("places")
    return analysed(write_diffusion(folder / "source"), folder)


def test_hand_overs_and_what_is_exchanged_there(made: Made) -> None:
    handovers = [place for place in places(made.found, made.unrolled) if place.unit is None]
    assert handovers == [
        Place("text", None, None, None, ("context",), Traffic(3 * _ROW, _IMAGE), Traffic(_ROW, _ROW)),
        Place("denoise", 1, 2, None, ("context", "latents"), *_between()),
        Place("denoise", 3, 3, None, ("latents",), Traffic(_ROW, _IMAGE), Traffic(3 * _ROW, _ROW)),
    ]
    assert [place.words for place in handovers] == ["text", "denoise 1 ... 2", "denoise 3"]


def _between() -> tuple[Traffic, Traffic]:
    """Before an iteration, the device sends what was carried, both texts; or else receives what is not its own."""
    return Traffic(3 * _ROW, _IMAGE), Traffic(3 * _ROW, 2 * _ROW)


def test_every_place_is_told_once_and_in_order(made: Made) -> None:
    found = places(made.found, made.unrolled)
    units = len(made.unrolled.places)
    assert sum((place.last or 0) - (place.first or 0) + 1 for place in found) == units - 1
    inside = [place for place in found if place.unit is not None]
    assert {place.stage for place in inside} == {"text", "vae"}
    assert all(place.words == f"{place.stage}, unit {place.unit}" for place in inside)


def test_what_is_exchanged_is_what_a_cut_there_costs(made: Made) -> None:
    spread = [
        place
        for place in places(made.found, made.unrolled)
        for _ in range((place.first or 0), (place.last or 0) + 1)
    ]
    for count, place in enumerate(spread, start=1):
        for traffic, direction in ((place.device_first, "device-first"), (place.cloud_first, "cloud-first")):
            cut = made.cut(frozenset(range(count)), direction)  # type: ignore[arg-type]
            assert traffic == Traffic(cut.uplink_bytes, cut.downlink_bytes)
