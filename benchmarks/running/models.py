"""Models, compiled with this machine as both sides: one thread each, so that both are measured."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.running.making import MADE
from benchmarks.running.programs import ROOT
from splitc.bundle.folder import Bundle, read_bundle
from splitc.bundle.manifest import CutEntry
from splitc.common.cache import Cache
from splitc.common.errors import SplitcError
from splitc.compile.compile import CompileOptions, compile_bundle
from splitc.model.analysis import AnalysisOptions
from splitc.samples.catalogue import SAMPLES, write_sample

SHARED = ROOT.parent / "shared" / "models"
TRACES = ROOT.parent / "shared" / "traces"
SAMPLE = "regnet_y_400mf"

_TARGET = """\
name = "here-{kind}"
kind = "{kind}"
machine = "this"
threads = 1
description = "this machine, one thread"
runtime = "onnxruntime"
provider = "CPUExecutionProvider"
"""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Compiled:
    """A model's bundle."""

    name: str
    bundle: Bundle

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return self.bundle.folder

    @property
    def cuts(self) -> tuple[CutEntry, ...]:
        """What was shipped."""
        return self.bundle.manifest.cuts

    def cut(self, name: str) -> CutEntry:
        """The cut with that id."""
        return next(cut for cut in self.cuts if cut.id == name)


class Compiler:
    """Compiles each model once, into *folder*."""

    def __init__(self, folder: Path, say: Say) -> None:
        self._folder = folder
        self._say = say
        self._made: dict[str, Compiled] = {}
        for kind in ("device", "cloud"):
            (folder / f"{kind}.toml").write_text(_TARGET.format(kind=kind), encoding="utf-8")

    def compiled(self, name: str) -> Compiled:
        """The model called *name*, of the samples, of ../shared/models, or made here.

        Raises:
            SplitcError: it is not there, or cannot be compiled.
        """
        if name not in self._made:
            self._say(f"compiling {name}")
            options = CompileOptions(
                AnalysisOptions({}), str(self._folder / "device.toml"), str(self._folder / "cloud.toml")
            )
            cache = Cache(self._folder / "profiles")
            made = compile_bundle(self._path(name), self._folder / name, options, cache, lambda _: None)
            self._made[name] = Compiled(name, read_bundle(made.folder))
        return self._made[name]

    def all_of(self, names: Iterable[str]) -> Iterator[Compiled]:
        """Those of *names* that can be compiled; the others are told."""
        for name in names:
            try:
                yield self.compiled(name)
            except SplitcError as error:
                self._say(f"{name}: left out: {error}")

    def _path(self, name: str) -> Path:
        path = self._folder / f"{name}.onnx"
        if name in SAMPLES:
            write_sample(name, path)
        elif name in MADE:
            MADE[name](path)
        elif Path(name).suffix == ".onnx":
            return Path(name)
        else:
            path = SHARED / f"{name}.onnx"
            if not path.is_file():
                raise SplitcError(f"{path} is not there")
        return path


def shared_names(names: Sequence[str], say: Say) -> tuple[str, ...]:
    """*names*, if ../shared/models is there."""
    if SHARED.is_dir():
        return tuple(names)
    say(f"{SHARED} is not there: only the samples of splitc are measured")
    return ()
