"""The input of the solver: seconds per unit on each side, the limits on a cut, and the range of conditions.

The costs do not depend on the network; `splitc.solve.frontier` combines them with the range of conditions.
"""

from dataclasses import dataclass

from splitc.common.kinds import Direction
from splitc.model.graph import Graph

Placement = tuple[frozenset[int], Direction]
"""What tells a cut from all others: the units on the device, and the direction."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules that the device spends: per second of running units, and per byte sent and received."""

    active_w: float
    uplink_j_per_byte: float
    downlink_j_per_byte: float


@dataclass(frozen=True, slots=True)
class Limits:
    """Hard limits on a cut. None means no limit.

    Attributes:
        pin_device, pin_cloud: indices of units that must be on the device, or in the cloud.
        private: indices of tensors that only the device may produce and read.
        recoverable: the same, because a private tensor can be recovered from them.
        max_device_weight_bytes, max_device_peak_bytes: weights and peak memory of the units on the device.
        max_payload_bytes: the most bytes that the device may send.
        max_energy_j: the most energy that the device may use; needs `Costs.energy`.
        left_out: cuts that are not wanted for reasons that the solver does not know.
    """

    pin_device: frozenset[int] = frozenset()
    pin_cloud: frozenset[int] = frozenset()
    private: frozenset[int] = frozenset()
    recoverable: frozenset[int] = frozenset()
    max_device_weight_bytes: int | None = None
    max_device_peak_bytes: int | None = None
    max_payload_bytes: int | None = None
    max_energy_j: float | None = None
    left_out: frozenset[Placement] = frozenset()


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of each unit of `graph`, on the device and in the cloud.

    Attributes:
        device_fixed_s, cloud_fixed_s: seconds that a run takes on that side in addition to its units. They
            do not count if that side runs no unit.
    """

    graph: Graph
    device_s: tuple[float, ...]
    cloud_s: tuple[float, ...]
    energy: Energy | None = None
    device_fixed_s: float = 0.0
    cloud_fixed_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Box:
    """The range of conditions that a bundle is built for; each pair is (lowest, highest).

    `rtt_s` covers the round trip and the time in the cloud's queue together.
    """

    device_slowdown: tuple[float, float] = (0.5, 4.0)
    cloud_slowdown: tuple[float, float] = (0.5, 20.0)
    uplink_bps: tuple[float, float] = (5e5, 1e9)
    downlink_bps: tuple[float, float] = (1e6, 1e9)
    rtt_s: tuple[float, float] = (0.001, 0.3)
