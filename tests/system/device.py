"""An app, run as a process: makes as many requests as each line on stdin says, and tells what came of them.

Its one argument is a JSON object:
    bundle, samples, server, cut, deadline_s, cache: what to run, the inputs with the outputs to expect, and how
    blocked: packages that cannot be imported
"""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any


class Blocked(MetaPathFinder):
    """As if these packages were not installed."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = set(names)

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if fullname.partition(".")[0] in self._names:
            raise ModuleNotFoundError(f"No module named '{fullname}'", name=fullname)
        return None


def samples(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Inputs and the outputs to expect."""
    import numpy as np  # noqa: PLC0415 - after others are blocked

    with np.load(path) as arrays:
        for number in range(len({key.split(".")[0] for key in arrays})):
            sides: dict[str, dict[str, Any]] = {"in": {}, "out": {}}
            for key in arrays:
                position, side, name = key.split(".", 2)
                if int(position) == number:
                    sides[side][name] = arrays[key]
            yield sides["in"], sides["out"]


def main(facts: Mapping[str, Any]) -> None:
    sys.meta_path.insert(0, Blocked(facts.get("blocked", ())))
    from splitc import Conditions, Session  # noqa: PLC0415

    known = list(samples(Path(facts["samples"])))
    start = Conditions(1e9, 1e9, rtt_s=1e-3, device_slowdown=0.01)
    options = {key: facts[key] for key in ("server", "cut", "deadline_s") if key in facts}
    with Session(facts["bundle"], start=start, cache_folder=facts.get("cache"), **options) as session:
        made = 0
        for line in sys.stdin:
            numbers = range(made, made + int(line))
            made = numbers.stop
            result = tally(ask(session, *known[number % len(known)]) for number in numbers)
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


@dataclass(frozen=True)
class Done:
    """What came of one request."""

    where: str  # cloud, device or nowhere
    reason: str | None
    is_wrong: bool
    took_s: float


def ask(session: Any, given: Mapping[str, Any], want: Mapping[str, Any]) -> Done:
    from splitc import SplitcError  # noqa: PLC0415
    from splitc.common.values import difference  # noqa: PLC0415

    began_s = time.monotonic()
    try:
        outcome = session.request(given)
    except SplitcError as error:
        return Done("nowhere", f"{type(error).__name__}: {error}", False, time.monotonic() - began_s)
    took_s = time.monotonic() - began_s
    far = [difference(outcome.outputs[name], want[name]).max_rel > 1e-4 for name in want]
    return Done(outcome.finished, outcome.fallback, any(far), took_s)


def tally(done: Iterable[Done]) -> dict[str, Any]:
    """Facts of many requests, and of this process; only counts are kept, for what is kept looks like a leak."""
    places, reasons, wrong, slowest_s = Counter[str](), Counter[str](), 0, 0.0
    for item in done:
        places[item.where] += 1
        if item.reason is not None:
            reasons[item.reason] += 1
        wrong += item.is_wrong
        slowest_s = max(slowest_s, item.took_s)
    return {
        **{place: places[place] for place in ("cloud", "device", "nowhere")},
        "reasons": reasons,
        "wrong": wrong,
        "slowest_s": slowest_s,
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "modules": sorted(name for name in sys.modules if "." not in name),
    }


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
