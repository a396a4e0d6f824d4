"""What the solver is told: seconds per unit on each side, and what no cut may exceed.

Nothing here knows the network; see `solve/frontier.py` for the box of conditions.
"""

from dataclasses import dataclass

from splitc.model.graph import Graph


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
        private: indices of tensors that must be made and read on the device only.
        max_device_weight_bytes, max_device_peak_bytes: of what runs on the device.
        max_payload_bytes: most that the device may send.
        max_energy_j: needs `Costs.energy`.
    """

    pin_device: frozenset[int] = frozenset()
    pin_cloud: frozenset[int] = frozenset()
    private: frozenset[int] = frozenset()
    max_device_weight_bytes: int | None = None
    max_device_peak_bytes: int | None = None
    max_payload_bytes: int | None = None
    max_energy_j: float | None = None


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds of each unit of `graph`, on the device and in the cloud.

    Attributes:
        device_fixed_s, cloud_fixed_s: what a run of any part costs there besides its units; nothing where
            that side runs no unit at all.
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
