"""Which files the cloud runs, and what values can be made up for them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from splitc.bundle.folder import Bundle
from splitc.bundle.manifest import CallEntry, PartEntry, StageEntry
from splitc.bundle.stacking import sent_inputs
from splitc.common.errors import ModelError
from splitc.server.tails.files import CloudFile, cloud_files, in_cloud
from tests import bundles, manifests, models
from tests.models import op
from tests.server.pipelines import LAST, STEP, TEXT, write_pipeline


def test_a_file_that_is_a_part_takes_what_is_sent(tmp_path: Path) -> None:
    bundle = bundles.compiled("chain", tmp_path)
    cuts = bundles.tails(bundle)
    found = cloud_files(bundle, in_cloud(bundle))
    assert [item.inputs for item in found] == [sent_inputs(cut, bundle.manifest.model.dims) for cut in cuts]
    assert [item.tolerance for item in found] == [
        cut.check.tolerance for cut in cuts if cut.check is not None
    ]
    for item, cut in zip(found, cuts, strict=True):
        made, wanted = item.made_up(), bundles.request(bundle, cut)
        assert all(np.array_equal(made[name], wanted[name]) for name in wanted)


def test_a_stage_takes_what_its_file_declares_and_comes_once(tmp_path: Path) -> None:
    bundle = write_pipeline(tmp_path)
    found = {item.file: item for item in cloud_files(bundle, in_cloud(bundle))}
    assert list(found) == [TEXT, STEP, LAST]
    assert {item.name: item.shape for item in found[STEP].inputs} == {
        "latents": ("batch", 16),
        "context": ("batch", 16),
        "t": ("batch", 1),
    }
    assert {name: array.shape for name, array in found[STEP].made_up().items()} == {
        "latents": (1, 16),
        "context": (1, 16),
        "t": (1, 1),
    }


def one_stage(folder: Path, dims: dict[str, int], *shape: int | str | None, kind: int = 1) -> CloudFile:
    """The only file of a stage called "paint", whose input has that shape."""
    port = onnx.helper.make_tensor_value_info("x", kind, shape)
    out = onnx.helper.make_tensor_value_info("y", kind, shape)
    onnx.save_model(models.model([op("Identity", "x", "y")], [port], [out]), folder / "a.onnx")
    stages = (StageEntry("paint", (CallEntry("a.onnx", {"x": "x"}, {"y": "y"}),)),)
    cut = replace(
        manifests.CUTS[2],
        tail=PartEntry(
            file=None, latency_s=1.0, weight_bytes=1, source="measured", interval=None, stages=stages
        ),
        check=None,
    )
    made = manifests.manifest((cut,))
    bundle = Bundle(folder, replace(made, model=replace(made.model, dims=dims)))
    (found,) = cloud_files(bundle, in_cloud(bundle))
    return found


def test_where_names_clash_the_size_is_that_of_the_stage(tmp_path: Path) -> None:
    found = one_stage(tmp_path, {"n": 3, "paint.n": 5, "m": 2}, "n", "m")
    assert (found.dims, found.tolerance) == ({"n": 5, "m": 2}, 1e-4)
    assert found.made_up()["x"].shape == (5, 2)


@pytest.mark.parametrize(
    ("shape", "kind"),
    [(("unknown",), 1), ((None,), 1), ((2,), onnx.TensorProto.STRING)],
    ids=["unknown size", "no name", "strings"],
)
def test_nothing_is_made_up_that_nobody_knows(
    shape: tuple[int | str | None, ...], kind: int, tmp_path: Path
) -> None:
    with pytest.raises(ModelError):
        one_stage(tmp_path, {"n": 3}, *shape, kind=kind).made_up()


def test_a_damaged_stage_is_one_error(tmp_path: Path) -> None:
    bundle = write_pipeline(tmp_path)
    bundle.path(STEP).write_bytes(b"no model")
    with pytest.raises(ModelError, match="is damaged, or no ONNX file; compile the bundle again"):
        cloud_files(bundle, in_cloud(bundle))
