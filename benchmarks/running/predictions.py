"""Is the prediction true? What the scheduler said of each cut against what requests took, over emulated networks.

A session for each shipped cut, and one that chooses, make requests in turns: one each where a request takes long, else
some in a row. So most requests follow a pause, as in an app, and what TCP forgets in it about the link is part of
what is predicted and of what it takes. The first half of the turns, in which the sessions learn, is left out; so are
requests that the device ended up doing alone, which are counted.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from rich.table import Table

from benchmarks.running.models import Compiled
from benchmarks.running.networks import link, start, typical
from benchmarks.running.programs import DEVICE_CORE, PORT, Program, running, serving
from splitc.testbed.bed import Bed

NETWORKS = ("ethernet", "wifi", "5g", "lte")
ERROR_LIMIT, REGRET_LIMIT = 0.10, 0.05
ROUNDS = 8
LEAST = 1
FREE = "free"


@dataclass(frozen=True, slots=True)
class Case:
    """A model on a network, with a device that is so many times slower than this machine."""

    model: Compiled
    network: str
    slowdown: float


@dataclass(frozen=True, slots=True)
class Predicted:
    """What was said of a cut, and what it took; medians of the later half."""

    model: str
    network: str
    slowdown: float
    cut: str
    requests: int
    fallbacks: int
    predicted_s: float
    measured_s: float

    @property
    def error(self) -> float:
        """Relative to what it took."""
        return self.predicted_s / self.measured_s - 1


@dataclass(frozen=True, slots=True)
class Settled:
    """The cut that a session settled on, and how much slower it is than the best one."""

    model: str
    network: str
    slowdown: float
    cut: str
    best: str
    measured_s: float
    best_s: float
    own_s: float

    @property
    def regret(self) -> float:
        """Relative to the best; both as measured with that cut alone."""
        return self.measured_s / self.best_s - 1


def measure(cases: Sequence[Case], folder: Path, seconds: float) -> Iterator[tuple[Case, dict[str, Any]]]:
    """Run each case for about so many *seconds*; yield the requests of each session, row by row."""
    with Bed(link(typical(cases[0].network))) as bed:
        bundles = list(dict.fromkeys(case.model.folder for case in cases))
        with serving(bundles, folder, partial(bed.start, "cloud"), bed.cloud_address):
            for case in cases:
                bed.change(link(typical(case.network)))
                with running("device", partial(bed.start, "device"), DEVICE_CORE) as device:
                    yield case, _requests(device, case, f"http://{bed.cloud_address}:{PORT}", seconds)


def _requests(device: Program, case: Case, server: str, seconds: float) -> dict[str, Any]:
    names = [FREE, *(cut.id for cut in case.model.cuts)]
    for name in names:
        device.ask(
            "open",
            name=name,
            bundle=str(case.model.folder),
            server=server,
            start=start(typical(case.network)),
            cut=None if name == FREE else name,
        )
    device.ask("warm", name=FREE)
    rows: dict[str, list[Any]] = {name: [] for name in names}
    row_s = seconds / ROUNDS / len(names)
    with device.slowed(case.slowdown):
        for _ in range(ROUNDS):
            for name in names:
                rows[name].append(device.ask("requests", name=name, seconds=row_s, least=LEAST))
    return rows


def predicted(case: Case, rows: dict[str, Any]) -> list[Predicted]:
    """How far off each cut was."""
    found = []
    for cut in case.model.cuts:
        later = [row for turn in rows[cut.id][ROUNDS // 2 :] for row in turn]
        own = [row for row in later if row["fallback"] is None]
        if not own:
            continue
        found.append(
            Predicted(
                case.model.name,
                case.network,
                case.slowdown,
                cut.id,
                len(own),
                len(later) - len(own),
                median(row["predicted_s"] for row in own),
                median(row["latency_s"] for row in own),
            )
        )
    return found


def settled(case: Case, rows: dict[str, Any], cuts: Iterable[Predicted]) -> Settled:
    """What the session that chose settled on: the commonest cut in the last third of its requests."""
    own = [row for turn in rows[FREE] for row in turn]
    last = own[-max(1, len(own) // 3) :]
    cut, _ = Counter(row["cut"] for row in last).most_common(1)[0]
    measured_s = {item.cut: item.measured_s for item in cuts}
    took_s = median(row["latency_s"] for row in last if row["cut"] == cut)
    measured_s.setdefault(cut, took_s)
    best = min(measured_s, key=measured_s.__getitem__)
    return Settled(
        case.model.name, case.network, case.slowdown, cut, best, measured_s[cut], measured_s[best], took_s
    )


# --- tables ---


def errors_table(rows: Sequence[Predicted]) -> Table:
    table = Table(title="The prediction is true: latency of each shipped cut, ms", title_justify="left")
    for column in ("model", "network", "cut", "requests", "predicted", "measured", "error"):
        table.add_column(column, justify="left" if column in ("model", "network", "cut") else "right")
    for row in rows:
        count = f"{row.requests}" + (f", {row.fallbacks} fell back" if row.fallbacks else "")
        table.add_row(
            _named(row.model, row.slowdown),
            row.network,
            row.cut,
            count,
            f"{1e3 * row.predicted_s:.2f}",
            f"{1e3 * row.measured_s:.2f}",
            f"{row.error:+.1%}",
        )
    return table


def regret_table(rows: Sequence[Settled]) -> Table:
    table = Table(title="What the scheduler settled on, ms", title_justify="left")
    for column in ("model", "network", "settled on", "alone took", "best cut", "took", "regret"):
        table.add_column(column, justify="right" if column in ("alone took", "took", "regret") else "left")
    for row in rows:
        table.add_row(
            _named(row.model, row.slowdown),
            row.network,
            row.cut,
            f"{1e3 * row.measured_s:.2f}",
            row.best,
            f"{1e3 * row.best_s:.2f}",
            f"{row.regret:.1%}",
        )
    return table


def verdicts(cuts: Sequence[Predicted], choices: Sequence[Settled]) -> list[str]:
    errors = [abs(row.error) for row in cuts]
    worst = max(cuts, key=lambda row: abs(row.error))
    regrets = [row.regret for row in choices]
    within = sum(regret <= REGRET_LIMIT for regret in regrets)
    prediction = (
        f"prediction: median error {median(errors):.1%} of {len(errors)} (limit {ERROR_LIMIT:.0%}), "
        f"worst {worst.error:+.1%} ({worst.model}, {worst.network}, {worst.cut})"
    )
    regret = (
        f"regret: {within} of {len(regrets)} within {REGRET_LIMIT:.0%}, "
        f"median {median(regrets):.1%}, worst {max(regrets):.1%}"
    )
    return [prediction, regret]


def _named(model: str, slowdown: float) -> str:
    return model if slowdown == 1 else f"{model}, device {slowdown:g}x slower"
