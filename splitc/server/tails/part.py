"""The cloud part of each cut, ready to run: one file, or several runs in turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from splitc.bundle.manifest import CutEntry, TensorEntry
from splitc.bundle.program import Program, Steps, steps
from splitc.common.values import Array

Run = Callable[[Mapping[str, Array], Sequence[str]], dict[str, Array]]
"""From inputs by name and the names of wanted outputs to these; raises ModelError; for several threads."""


@dataclass(frozen=True, slots=True, eq=False)
class File:
    """An ONNX file that is ready to run; parts that share it share its batches.

    Attributes:
        name: what metrics call it.
        max_batch: how many requests may run as one along axis 0; 1 where none can, or it does not pay.
        run_s: median seconds of a run by batch size, of the sizes that were tried when it was prepared.
    """

    name: str
    max_batch: int
    run: Run
    run_s: tuple[tuple[int, float], ...] = ()

    @property
    def alone_s(self) -> float | None:
        """Seconds of a request that runs alone, if known."""
        return dict(self.run_s).get(1)

    @property
    def least_s(self) -> float | None:
        """The least seconds of a request: its share of the best batch, if known."""
        return min((run_s / size for size, run_s in self.run_s if size <= self.max_batch), default=None)


@dataclass(frozen=True, slots=True)
class Series:
    """Runs of several files in turn, some of them repeatedly.

    Attributes:
        files, arrays: by their names in the bundle.
        calls: how often each file is run.
        at_once: how many requests to parts of this bundle may be under way at once: as many as run as one in the
            file that takes most of the time, since more would only wait for each other half done.
    """

    program: Program
    files: Mapping[str, File]
    arrays: Mapping[str, Array]
    calls: Mapping[str, int]
    at_once: int

    def begin(self, inputs: Mapping[str, Array]) -> Steps:
        """The runs for one request, in turn.

        Raises:
            BundleError: while it goes on: a value is missing, or an array has too few rows.
        """
        return steps(self.program, inputs, self.arrays.__getitem__)


@dataclass(frozen=True, slots=True)
class ServedPart:
    """The cloud part of a cut, ready to run.

    Attributes:
        model: the name of the model.
        bundle: `Bundle.digest` of the bundle whose files run.
        pairing: the digest of the cut, which the device's part has too; see `splitc.bundle.pairing`.
        inputs, outputs: symbolic dimensions by name, "?" for unnamed ones; bytes of one request at the sizes that
            the manifest fixes, where they are known.
        runs: one file, or several runs in turn.
    """

    model: str
    bundle: str
    pairing: str
    cut: CutEntry
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    runs: File | Series

    @property
    def name(self) -> str:
        """What clients ask for."""
        return f"{self.model}.{self.cut.id}"

    @property
    def alone_s(self) -> float | None:
        """Seconds of computing for a request that is alone, where they are known."""
        return _total(self.runs, {file: file.alone_s for file in _files(self.runs)})

    @property
    def work_s(self) -> float:
        """Seconds of the machine that a request takes at least, its share of the best batches.

        As measured here; as the manifest has it for one request alone where that could not be.
        """
        least_s = _total(self.runs, {file: file.least_s for file in _files(self.runs)})
        return self.cut.cloud_s if least_s is None else least_s


def _files(runs: File | Series) -> tuple[File, ...]:
    return (runs,) if isinstance(runs, File) else tuple(runs.files.values())


def _total(runs: File | Series, each_s: Mapping[File, float | None]) -> float | None:
    """Seconds of all runs, *each_s* being those of one; None where one is not known."""
    if isinstance(runs, File):
        return each_s[runs]
    total_s = 0.0
    for name, file in runs.files.items():
        seconds = each_s[file]
        if seconds is None:
            return None
        total_s += runs.calls[name] * seconds
    return total_s
