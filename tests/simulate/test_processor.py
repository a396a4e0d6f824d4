"""A device computes one thing after the other, and what nobody wants any more no further."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from splitc.simulate.events import Events
from splitc.simulate.processor import Processor

SETTINGS = settings(derandomize=True, deadline=None, max_examples=200)
QUARTERS = st.integers(0, 40).map(lambda number: number / 4)


@dataclass
class Bench:
    events: Events = field(default_factory=Events)
    done: list[tuple[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.processor = Processor(self.events)

    def ask(self, name: str, at_s: float, takes_s: float, ends_s: float | None = None) -> None:
        def begin(now_s: float) -> None:
            run = self.processor.run(takes_s, lambda then_s: self.done.append((name, then_s)), now_s)
            if ends_s is not None:
                self.events.at(ends_s, lambda then_s: self.processor.end(run, then_s))

        self.events.at(at_s, begin)


def test_runs_take_turns() -> None:
    bench = Bench()
    for number, name in enumerate("abc"):
        bench.ask(name, 0.1 * number, 1.0)
    bench.ask("d", 10.0, 0.5)
    bench.events.run()
    assert bench.done == [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 10.5)]


def test_what_is_ended_makes_room_at_once_and_is_never_done() -> None:
    bench = Bench()
    bench.ask("a", 0.0, 5.0, ends_s=2.0)
    bench.ask("b", 1.0, 1.0)
    bench.ask("c", 1.0, 9.0, ends_s=1.5)
    bench.ask("d", 1.0, 1.0, ends_s=99.0)
    bench.events.run()
    assert bench.done == [("b", 3.0), ("d", 4.0)]


@SETTINGS
@given(st.lists(st.tuples(QUARTERS, QUARTERS, st.none() | QUARTERS), max_size=8))
def test_it_never_does_two_things_at_once_nor_rests_while_one_waits(
    asked: list[tuple[float, float, float | None]],
) -> None:
    """Against a clock that ticks: in each quarter of a second the oldest that still waits gets on."""
    bench = Bench()
    for number, (at_s, takes_s, later_s) in enumerate(asked):
        bench.ask(str(number), at_s, takes_s, None if later_s is None else at_s + 0.125 + later_s)
    bench.events.run()
    order = sorted(range(len(asked)), key=lambda number: (asked[number][0], number))
    free_s, wanted = 0.0, list[tuple[str, float]]()
    for number in order:
        at_s, takes_s, later_s = asked[number]
        begins_s = max(free_s, at_s)
        ends_s = begins_s + takes_s
        if later_s is not None and at_s + 0.125 + later_s < ends_s:
            free_s = (
                max(free_s, min(ends_s, at_s + 0.125 + later_s))
                if at_s + 0.125 + later_s > begins_s
                else free_s
            )
            continue
        free_s = ends_s
        wanted.append((str(number), ends_s))
    assert sorted(bench.done) == sorted(wanted)
