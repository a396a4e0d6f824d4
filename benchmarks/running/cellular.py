"""Links that come and go: recorded while driving, or made up around what is typical of a network."""

from dataclasses import dataclass

from benchmarks.running.models import TRACES
from benchmarks.running.networks import typical
from splitc.bundle.decide import Conditions
from splitc.testbed.spec import LinkSpec, LinkTrace
from splitc.testbed.traces import read_trace, synthetic_trace

_QUEUE_BYTES = 500_000
_RTT_S = 0.04  # of a packet on an idle cellular link: recordings tell when packets leave, not how far they go


@dataclass(frozen=True, slots=True)
class Link:
    """A link over time.

    Attributes:
        begin_s: where the stretch of a recorded trace begins: with good and bad spells in what follows.
        expected: what a session is told to expect.
    """

    name: str
    expected: Conditions
    rtt_s: float
    recorded: str | None = None
    begin_s: float = 0.0
    seed: int = 0
    span: float = 4.0

    def spec(self, seconds: float, skip_s: float = 0.0) -> LinkSpec:
        """So many *seconds* of it, after the first *skip_s*."""
        ways = [_stretch(self._way(way, skip_s + seconds), skip_s, seconds) for way in ("up", "down")]
        return LinkSpec(ways[0], ways[1], rtt_s=self.rtt_s, queue_bytes=_QUEUE_BYTES)

    def _way(self, way: str, seconds: float) -> LinkTrace:
        if self.recorded is not None:
            return _stretch(read_trace(TRACES / f"{self.recorded}.{way}"), self.begin_s, seconds)
        typical_bps = self.expected.uplink_bps if way == "up" else self.expected.downlink_bps
        return synthetic_trace(
            typical_bps / self.span, typical_bps, typical_bps * self.span, seconds, self.seed
        )


def _stretch(trace: LinkTrace, begin_s: float, seconds: float) -> LinkTrace:
    begin_ms, end_ms = round(1000 * begin_s), round(1000 * (begin_s + seconds))
    inside = [time_ms - begin_ms for time_ms in trace.opportunities_ms if begin_ms <= time_ms < end_ms]
    return LinkTrace((*inside, end_ms - begin_ms))


def recorded_links() -> list[Link]:
    """Cellular links that were recorded while driving, if ../shared/traces is there."""
    if not TRACES.is_dir():
        return []
    lte, umts = typical("lte"), typical("3g")
    return [
        Link("Verizon LTE", lte, _RTT_S, recorded="Verizon-LTE-short", begin_s=15),
        Link("AT&T LTE", lte, _RTT_S, recorded="ATT-LTE-driving", begin_s=0),
        Link("T-Mobile UMTS", umts, _RTT_S, recorded="TMobile-UMTS-driving", begin_s=0),
    ]


def made_up_link(network: str, seed: int) -> Link:
    """A link that comes and goes around what is typical of *network*."""
    usual = typical(network)
    return Link(f"made up, around {network}, {seed}", usual, min(usual.rtt_s, _RTT_S), seed=seed)
