"""A device of a simulation: its estimates, and its processor, which runs one thing at a time."""

from dataclasses import replace

from splitc.bundle.decide import Conditions, middle_of
from splitc.bundle.manifest import CutEntry, Manifest
from splitc.bundle.price import personal
from splitc.runtime.estimate.breaker import Breaker
from splitc.runtime.estimate.estimator import Estimator
from splitc.runtime.estimate.server_state import ServerState
from splitc.simulate.events import Events
from splitc.simulate.processor import Processor
from splitc.simulate.tcp import TcpConnections


class Device:
    """One device. If it *learns*, it knows only what it has seen, as a `splitc.Session` does; else it knows the truth.

    Attributes:
        server_state: what it expects of the cloud; for a device that does not learn, only whether to avoid the cloud.
        line: its connections.
        processor: runs its parts.
    """

    def __init__(self, manifest: Manifest, events: Events, *, learns: bool, seed: int) -> None:
        self.manifest = manifest
        self.alone: CutEntry | None = next((cut for cut in manifest.cuts if cut.kind == "all-head"), None)
        self.learns = learns
        self.server_state = ServerState(Estimator(middle_of(manifest.box)), Breaker(seed=seed), 0.0)
        self.line = TcpConnections()
        self.processor = Processor(events)

    def believed(self, truth: Conditions, share: float, now_s: float) -> Conditions:
        """The conditions on which it bases its decision; *truth* is what a probe would find. There is no link while it avoids the cloud."""
        if not self.learns:
            return replace(truth, price=personal(truth.price, share))
        found = self.server_state.conditions(now_s)
        found = replace(found, price=personal(found.price, share))
        return (
            found
            if self.alone is None or self.server_state.is_usable(now_s)
            else replace(found, uplink_bps=0.0)
        )

    def looks(self, now_s: float, *, idle: bool) -> bool:
        """Whether to send a probe now; *idle*: no request is about to be sent that would tell as much."""
        return self.learns and self.server_state.looks(now_s, idle=idle)

    def failed(self, now_s: float) -> None:
        """Record that there was no answer."""
        self.line.broke()
        self.server_state.failed(now_s)

    def heard_nothing(self, cut: CutEntry, waited_s: float, now_s: float) -> bool:
        """Record that no answer came in time; return whether to probe the link at once."""
        self.failed(now_s)
        return self.learns and self.server_state.heard_nothing(cut, waited_s, now_s)
