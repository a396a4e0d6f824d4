"""A cut that is wrong is left out and named, and others take its place."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import pytest

from splitc.bundle.folder import Bundle
from splitc.common.cache import Cache
from splitc.common.errors import VerifyError
from splitc.compile.check import check_bundle
from splitc.compile.compile import Compiled, CompileOptions, compile_bundle
from splitc.compile.limits import LimitOptions
from splitc.model.analysis import AnalysisOptions
from tests.running import fast_cloud, save_tiny, slow_device

LIMITS = LimitOptions()


@dataclass
class Damage:
    """Follows a build in *folder*, and spoils its files just before they run.

    Attributes:
        spoils: whether to spoil a file, by the name of its side and the names of its inputs and outputs.
        how: changes the file.
        stages: what the build said so far.
    """

    folder: Path
    spoils: Callable[[str, set[str], set[str]], bool]
    how: Callable[[Path], None]
    stages: list[str] = field(default_factory=list)

    def __call__(self, stage: str) -> None:
        self.stages.append(stage)
        number = re.match(r"Verifying cut (c\d+)", stage)
        for path in self.folder.glob(f".splitc-*/bundle/*-{number[1]}.onnx") if number else ():
            graph = onnx.load_model(path, load_external_data=False).graph
            takes, makes = ({port.name for port in ports} for ports in (graph.input, graph.output))
            if self.spoils(path.name.partition("-")[0], takes, makes):
                self.how(path)


def doubled(path: Path) -> None:
    """Double the first output of the file at *path*."""
    made = onnx.load_model(path, load_external_data=False)
    first = made.graph.output[0].name
    for node in made.graph.node:
        node.output[:] = [f"half {name}" if name == first else name for name in node.output]
    made.graph.node.append(onnx.helper.make_node("Add", [f"half {first}"] * 2, [first]))
    path.write_bytes(made.SerializeToString())


def broken(path: Path) -> None:
    path.write_bytes(b"nothing")


def built(
    folder: Path,
    damage: Damage,
    limits: LimitOptions = LIMITS,
    max_cuts: int = 8,
    tolerance: float | None = None,
) -> Compiled:
    options = CompileOptions(
        AnalysisOptions({}, (), False),
        device=str(slow_device(folder)),
        cloud=str(fast_cloud(folder)),
        limits=limits,
        max_cuts=max_cuts,
        tolerance=tolerance,
    )
    return compile_bundle(save_tiny("chain", folder), folder / "bundle", options, Cache(None), damage)


def crossing(compiled: Compiled) -> list[list[str]]:
    return [[entry.name for entry in cut.boundary] for cut in compiled.manifest.cuts if cut.kind == "split"]


def left_out(compiled: Compiled) -> list[str]:
    return [note for note in compiled.manifest.notes if "left out" in note]


def after(name: str) -> Callable[[str, set[str], set[str]], bool]:
    return lambda side, takes, _: side == "tail" and takes == {name}


def test_a_wrong_cut_is_left_out(tmp_path: Path) -> None:
    good = built(tmp_path, Damage(tmp_path, lambda *_: False, broken))
    assert crossing(good) == [["g"], ["p"], ["a"]]
    damage = Damage(tmp_path, after("p"), doubled)
    compiled = built(tmp_path, damage)
    assert ["p"] not in crossing(compiled)
    assert [names for names in crossing(compiled) if names in (["g"], ["a"])] == [["g"], ["a"]]
    (note,) = left_out(compiled)
    assert re.fullmatch(
        r"the cut after 'p' was left out: output 'y' differs from the whole model by [\d.]+ of its largest value "
        r"[\d.]+; allowed is 0\.0001; give real inputs with --samples FILE\.npz, or allow more with --tolerance REL",
        note,
    )
    assert damage.stages.count("Solving without the cuts that were left out") == 1
    assert compiled.manifest.regret.frontier_cuts >= 4
    assert all(cut.check is not None for cut in compiled.manifest.cuts)
    names = {path.name for path in compiled.folder.iterdir()}
    assert names == {file.path for file in compiled.manifest.files} | {"manifest.json"}


def test_the_same_cuts_are_left_out_each_time(tmp_path: Path) -> None:
    first, second = (built(tmp_path, Damage(tmp_path, after("p"), doubled)) for _ in range(2))
    assert first.manifest == second.manifest


def test_a_cut_that_does_not_load_is_left_out(tmp_path: Path) -> None:
    compiled = built(tmp_path, Damage(tmp_path, after("g"), broken))
    assert ["g"] not in crossing(compiled)
    (note,) = left_out(compiled)
    assert note.startswith("the cut after 'g' was left out: it does not work: ONNX Runtime")
    assert "its tail" in note
    assert "tail-c" not in note


def test_what_is_not_split_may_be_wrong_alone(tmp_path: Path) -> None:
    compiled = built(tmp_path, Damage(tmp_path, after("x"), doubled))
    assert [cut.kind for cut in compiled.manifest.cuts].count("all-tail") == 0
    (note,) = left_out(compiled)
    assert note.startswith("the whole model in the cloud (all-tail) was left out: output 'y' differs")


def test_where_only_one_cut_is_right_that_one_is_shipped(tmp_path: Path) -> None:
    compiled = built(tmp_path, Damage(tmp_path, lambda side, *_: side == "tail", doubled))
    assert [cut.kind for cut in compiled.manifest.cuts] == ["all-head"]
    assert compiled.manifest.regret.certified == 0
    assert len(left_out(compiled)) >= 4


def test_if_all_cuts_are_wrong_the_build_fails_at_once(tmp_path: Path) -> None:
    damage = Damage(tmp_path, lambda *ports: "y" in ports[2], doubled)
    with pytest.raises(
        VerifyError,
        match=r"^no cut computes what the model does; the whole model on the device \(all-head\): "
        r"output 'y' differs from the whole model by",
    ):
        built(tmp_path, damage)
    assert "Solving without the cuts that were left out" not in damage.stages
    assert not (tmp_path / "bundle").exists()


def test_if_limits_leave_only_wrong_cuts_the_build_fails(tmp_path: Path) -> None:
    limits = LimitOptions(pin_device=("a",), pin_cloud=("y",))
    damage = Damage(tmp_path, lambda side, *_: side == "tail", broken)
    with pytest.raises(VerifyError, match=r"^no cut computes what the model does; the cut after '\w+': "):
        built(tmp_path, damage, limits)
    assert "Solving without the cuts that were left out" in damage.stages


def test_after_some_rounds_what_is_right_is_shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splitc.compile.ship._ROUNDS", 1)
    damage = Damage(tmp_path, after("p"), doubled)
    compiled = built(tmp_path, damage, max_cuts=8)
    assert crossing(compiled) == [["g"], ["a"]]
    assert damage.stages.count("Writing heads and tails") == 2
    # Whether a better cut is right is not known, so the regret is against what was left out as well.
    assert compiled.manifest.regret.certified > 0
    assert compiled.manifest.regret.frontier_cuts == 4
    assert "not all cuts that were left out were replaced by others" in compiled.manifest.notes


def test_who_knows_better_may_allow_more(tmp_path: Path) -> None:
    compiled = built(tmp_path, Damage(tmp_path, after("p"), doubled), tolerance=1.5)
    assert ["p"] in crossing(compiled)
    assert left_out(compiled) == []
    note = "outputs of cuts were allowed to be off by 1.5 of their largest value: --tolerance"
    assert note in compiled.manifest.notes
    assert {cut.check.tolerance for cut in compiled.manifest.cuts if cut.check is not None} == {1.5}
    opened = Bundle(compiled.folder, compiled.manifest)  # the damaged files, too
    assert {found.tolerance for _, found in check_bundle(opened, None, (), lambda _: None).cuts} == {1.5}
    asked = check_bundle(opened, None, (), lambda _: None, 2.0)
    assert {found.tolerance for _, found in asked.cuts} == {2.0}
    assert any("by 2 of their largest value" in note for note in asked.notes)
    with pytest.raises(VerifyError, match=r"output 'y' differs from the whole model by .*; allowed is 0\.5"):
        check_bundle(opened, None, (), lambda _: None, 0.5)
