"""A probe of the link, as `splitc.runtime.client` sends it: little for the round trip, then more for the rates."""

from functools import partial

from splitc.bundle.decide import Conditions
from splitc.runtime.estimate.estimator import ObservedExchange
from splitc.runtime.estimate.probing import BARE_BYTES, DOWN_BYTES, UP_BYTES
from splitc.simulate.cloud import SimulatedCloud
from splitc.simulate.devices import Device
from splitc.simulate.events import Events
from splitc.simulate.tcp import TcpConnection, after_first_s

_SIZES_BYTES = ((BARE_BYTES, 0), (UP_BYTES, DOWN_BYTES))  # up and down
_MOST_TURNS = 2


class Probe:
    """A probe that begins at once, and a second one if the first was a surprise."""

    def __init__(
        self, events: Events, cloud: SimulatedCloud, device: Device, truth: Conditions, now_s: float
    ) -> None:
        self._events, self._cloud, self._device, self._truth = events, cloud, device, truth
        self._turns = 0
        kept = device.line.take(now_s)
        self._connection = kept or TcpConnection()
        self._send(0, now_s if kept is not None else now_s + truth.rtt_s)

    def _send(self, number: int, now_s: float) -> None:
        up_bytes, down_bytes = _SIZES_BYTES[number]
        up_s = self._connection.carry_s("up", up_bytes, self._truth, now_s)
        down_s = self._connection.carry_s("down", down_bytes, self._truth, now_s + up_s)
        self._events.at(now_s + up_s + down_s, partial(self._answered, number, up_s, down_s))

    def _answered(self, number: int, up_s: float, down_s: float, now_s: float) -> None:
        worker, device, truth = self._cloud.worker(), self._device, self._truth
        if worker is None:
            device.failed(now_s)
            device.server_state.probed(now_s, found=self._turns > 0)
            return
        up_bytes, down_bytes = _SIZES_BYTES[number]
        download_s = after_first_s(down_s, down_bytes, truth.downlink_bps, truth.rtt_s)
        told = ObservedExchange(
            uplink_bytes=up_bytes,
            downlink_bytes=down_bytes,
            wait_s=up_s + down_s - download_s,
            download_s=download_s,
            recv_s=after_first_s(up_s, up_bytes, truth.uplink_bps, truth.rtt_s) if down_bytes else None,
            queue_s=None,
            compute_s=None,
            cloud_s=None,
            price=worker.price.now(now_s),
        )
        is_surprise = device.server_state.measured(told, now_s)
        if number + 1 < len(_SIZES_BYTES):
            self._send(number + 1, now_s)
            return
        self._turns += 1
        if is_surprise and self._turns < _MOST_TURNS:
            self._send(0, now_s)
            return
        device.line.keep(self._connection, now_s)
        device.server_state.probed(now_s, found=True)
