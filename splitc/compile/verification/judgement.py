"""Whether an output of a cut differs from the whole model's by no more than rounding explains."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from splitc.common.errors import ModelError
from splitc.common.formatting import plural
from splitc.common.values import SAME, Difference, Value, difference
from splitc.compile.verification.origins import Origin, origins
from splitc.compile.verification.whole import Whole

# ONNX Runtime's own optimisation levels may be closer to each other by chance than a cut is to the whole.
_FACTOR = 4.0
# Of whole numbers that were rounded from floats, so many may be off by one step, and one always may.
_STEP_SHARE = 1e-3
# Of many indices, so many may be others: two floats are that close together by chance.
_TIE_SHARE = 1e-4
_SAMPLES = "give real inputs with --samples FILE.npz"
_HINT = f"{_SAMPLES}, or allow more with --tolerance REL"
_READABLE = (1e-6, 1e6)


@dataclass(frozen=True, slots=True)
class Allowed:
    """How far floats may be off, relative to the largest value of their output.

    Attributes:
        is_asked: whether the user said so; else the types inside the model do.
    """

    relative: float
    is_asked: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """An output of a cut over all sets of inputs.

    Attributes:
        relative: the relative difference that was allowed; None if the output is not judged by that.
        own: how far ONNX Runtime's own optimisation levels differ; None if nobody had to ask.
    """

    found: Difference
    is_right: bool
    relative: float | None
    own: Difference | None = None

    @property
    def is_usual(self) -> bool:
        """Whether there is nothing to say about it."""
        return self.is_right and self.own is None and not self.found.is_countable


class Evidence:
    """What explains that a cut differs from the whole; found out when it is first needed.

    Args:
        plain: runs the whole unoptimised on every set of inputs.
    """

    def __init__(
        self,
        whole: Whole,
        wanted: tuple[Mapping[str, Value], ...],
        plain: Callable[[], tuple[Mapping[str, Value], ...]],
    ) -> None:
        self._whole = whole
        self._wanted = wanted
        self._plain = plain

    @cached_property
    def _origins(self) -> Mapping[str, Origin]:
        return origins(self._whole)

    @cached_property
    def _own(self) -> Mapping[str, Difference]:
        found = dict.fromkeys(self._wanted[0], SAME)
        try:
            for made, want in zip(self._plain(), self._wanted, strict=True):
                found = {name: found[name] | difference(made[name], value) for name, value in want.items()}
        except ModelError:  # some models run only after they were optimised
            return dict.fromkeys(self._wanted[0], SAME)
        return found

    def origin(self, name: str) -> Origin:
        """Where the output *name* comes from."""
        return self._origins.get(name, "given")

    def own(self, name: str) -> Difference:
        """How far the output *name* of the unoptimised whole is from that of the optimised one."""
        return self._own[name]


def judge(name: str, found: Difference, allowed: Allowed, evidence: Evidence) -> Judged:
    """Judge the output *name* of a cut, which differs from that of the whole as *found* over all sets of inputs."""
    if found.max_rel <= allowed.relative:
        return Judged(found, is_right=True, relative=allowed.relative)
    if found.misplaced or found.unlike:
        return _judge_form(found, evidence.own(name) if found.is_resized else None)
    origin = evidence.origin(name)
    if found.is_countable or origin == "rounded":
        return _judge_elements(name, found, origin, allowed, evidence)
    own = evidence.own(name)
    relative = max(allowed.relative, _FACTOR * own.max_rel if math.isfinite(own.max_rel) else 0.0)
    return Judged(found, found.max_rel <= relative, relative, own)


def _judge_form(found: Difference, own: Difference | None) -> Judged:
    """Judge an output of another type or shape, or with NaN or infinity elsewhere."""
    is_right = own is not None and own.is_resized and not found.misplaced
    return Judged(found, is_right, None, own)


def _judge_elements(
    name: str, found: Difference, origin: Origin, allowed: Allowed, evidence: Evidence
) -> Judged:
    """Judge an output of whole numbers or strings, by how many of them differ."""
    relative = None if found.is_countable else found.max_rel
    if origin == "given":
        return Judged(found, is_right=False, relative=None)
    if _is_small(found, origin, allowed):
        return Judged(found, is_right=True, relative=relative)
    own = evidence.own(name)
    return Judged(found, _is_explained(found, own, origin), relative, own)


def _is_small(found: Difference, origin: Origin, allowed: Allowed) -> bool:
    """Whether so few whole numbers differ, and by so little, that it takes no second run to explain it."""
    if origin == "rounded":
        return found.max_abs <= allowed.relative * found.largest or (
            found.max_abs <= 1 and found.differing <= _few(found)
        )
    share = max(_TIE_SHARE, allowed.relative if allowed.is_asked else 0.0)
    return found.differing <= share * found.values


def _is_explained(found: Difference, own: Difference, origin: Origin) -> bool:
    if origin == "rounded":
        steps = max(1.0, _FACTOR * own.max_abs if math.isfinite(own.max_abs) else 0.0)
        return found.max_abs <= steps and found.differing <= max(_few(found), _FACTOR * own.differing)
    return own.is_resized or found.differing <= _FACTOR * own.differing


def _few(found: Difference) -> float:
    return max(1.0, _STEP_SHARE * found.values)


def in_words(judged: Judged) -> str:
    """How a wrong output differs, what is allowed, and what to do next, as the end of a sentence."""
    found = judged.found
    words = difference_in_words(found)
    if found.unlike:
        return words
    if found.misplaced:
        return f"{words}; {_SAMPLES}"
    if judged.relative is not None:
        return f"{words}; allowed is {plain(judged.relative)}; {_HINT}"
    if judged.own is None:
        return f"{words}, but rounding cannot explain it, because no floats are behind it; {_SAMPLES}"
    own = judged.own.differing
    return f"{words}; unoptimised, the whole model itself differs in {own} of them; {_HINT}"


def difference_in_words(found: Difference) -> str:
    """How an output differs from the whole model's, as the end of a sentence."""
    if found.unlike:
        return found.unlike
    where = f"differs from the whole model in {found.differing} of {plural(found.values, 'value')}"
    if found.misplaced:
        return f"{where}: {plural(found.misplaced, 'time')} only one of the two is NaN or infinite"
    if found.is_countable:
        is_number = math.isfinite(found.max_abs)
        return f"{where} by at most {plural(round(found.max_abs), 'step')}" if is_number else where
    if not found.largest:
        return f"differs from the whole model, which makes zeros only, by {plain(found.max_abs)}"
    return (
        f"differs from the whole model by {plain(found.max_rel)} of its largest value {plain(found.largest)}"
    )


def notes(unusual: Iterable[tuple[str, Mapping[str, Judged]]]) -> tuple[str, ...]:
    """A sentence for each output that differs by more than the types explain: by cuts, given by their ids."""
    cuts: dict[str, list[str]] = {}
    worst: dict[str, Judged] = {}
    for cut, outputs in unusual:
        for name, judged in outputs.items():
            cuts.setdefault(name, []).append(cut)
            if name not in worst or _size(judged) > _size(worst[name]):
                worst[name] = judged
    return tuple(
        f"output '{name}' of {'cut' if len(ids) == 1 else 'cuts'} {', '.join(ids)} "
        f"{difference_in_words(worst[name].found)}, {_reason(worst[name])}"
        for name, ids in cuts.items()
    )


def asked_note(allowed: Allowed) -> tuple[str, ...]:
    """A sentence on the tolerance, if the user chose it."""
    if not allowed.is_asked:
        return ()
    most = plain(allowed.relative)
    return (f"outputs of cuts were allowed to be off by {most} of their largest value: --tolerance",)


def _size(judged: Judged) -> tuple[float, float]:
    found = judged.found
    return (float(found.differing), found.max_abs) if found.is_countable else (found.max_rel, 0.0)


def _reason(judged: Judged) -> str:
    """Why a difference is allowed, as the end of a sentence."""
    own = judged.own
    if own is None:
        return "which the rounding of floats to whole numbers explains"
    if own.unlike:
        return (
            "and the whole model itself another one when it is not optimised: "
            "give inputs that tell more with --samples"
        )
    if judged.found.is_countable:
        return f"and the whole model itself in {own.differing} when it is not optimised"
    return f"and the whole model itself by {plain(own.max_rel)} when it is not optimised"


def plain(number: float) -> str:
    """*number* with two digits that count, without an exponent as long as it is readable."""
    low, high = _READABLE
    if number == 0 or low <= abs(number) < high:
        return np.format_float_positional(float(f"{number:.2g}"), trim="-")
    return f"{number:.1e}"
