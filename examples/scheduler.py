"""A scheduler of your own, which limits the use of mobile data.

    python scheduler.py regnet-pixel7 --allowance 1MB --device-slowdown 30

splitc's own scheduler takes the fastest cut at each moment. This one also counts mobile data. On a metered network
it leaves out the cuts that need more data than is left, and it adds to each latency what its bytes are worth.
It needs the standard library and `splitc.decide`, but neither numpy nor ONNX Runtime.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from splitc import Conditions, CutEntry, Decision, Manifest, SplitcError, decide, read_bundle


@dataclass
class DataAllowance:
    """What may still be sent and received over metered networks.

    Attributes:
        left_bytes: what is left.
        bytes_per_s: how many bytes a second of the user's time is worth.
    """

    left_bytes: int
    bytes_per_s: float = 1e6

    def choose(self, manifest: Manifest, conditions: Conditions, *, is_metered: bool) -> Decision:
        """Choose a cut for one request, and take its bytes from the allowance."""
        if not is_metered:
            return decide(manifest, conditions)
        affordable = [cut for cut in manifest.cuts if moved_bytes(cut) <= self.left_bytes]
        if not affordable:
            raise SplitcError(
                "the allowance is spent, and the bundle has no cut that runs on the device alone"
            )
        decisions = (decide(replace(manifest, cuts=(cut,)), conditions) for cut in affordable)
        best = min(decisions, key=self._cost_s)
        self.left_bytes -= moved_bytes(best.cut)
        return replace(best, reason="lowest latency and data within the allowance")

    def _cost_s(self, decision: Decision) -> float:
        return decision.latency_s + moved_bytes(decision.cut) / self.bytes_per_s


def moved_bytes(cut: CutEntry) -> int:
    """What one request sends and receives."""
    return cut.uplink_bytes + cut.downlink_bytes


def main() -> None:
    """Print what is chosen for a few requests, first at home and then on the road."""
    parser = argparse.ArgumentParser(description="Choose cuts under a limit on mobile data.")
    parser.add_argument("bundle", type=Path, help="folder that `splitc compile` wrote")
    parser.add_argument("--allowance", default="1MB", help="mobile data, in kB or MB (default: 1MB)")
    parser.add_argument("--device-slowdown", type=float, default=1.0, help="real over recorded time")
    given = parser.parse_args()
    manifest = read_bundle(given.bundle).manifest
    allowance = DataAllowance(in_bytes(given.allowance))
    wifi = Conditions(2e8, 2e8, rtt_s=0.01, device_slowdown=given.device_slowdown)
    lte = Conditions(6.3e6, 21.3e6, rtt_s=0.084, device_slowdown=given.device_slowdown)
    for network, conditions, is_metered in [("wifi", wifi, False), *[("lte", lte, True)] * 5]:
        decision = allowance.choose(manifest, conditions, is_metered=is_metered)
        print(
            f"{network}: {decision.cut.id} ({decision.cut.kind}), {1e3 * decision.latency_s:.1f} ms, "
            f"{allowance.left_bytes} bytes left; {decision.reason}"
        )


def in_bytes(text: str) -> int:
    """Read "500kB" or "1.5MB"."""
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if text.endswith(unit):
            return round(float(text.removesuffix(unit)) * size)
    raise SystemExit(f"cannot read the allowance '{text}'; write it as 500kB or 1.5MB")


if __name__ == "__main__":
    main()
