"""Read and write the packets of a network interface.

Packets come in a ring buffer that the kernel fills. Unlike a socket's buffer, it may be large without privileges, so a
burst can wait in it while this machine is busy. Each packet has the time at which it came, to the microsecond.
See packet(7) and the kernel's Documentation/networking/packet_mmap.rst.
"""

import mmap
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

from splitc.common.errors import TestBedError

ETHERNET_BYTES = 14
_IPV4 = 0x0800
_PACKET = 263  # the level of the options below
_RX_RING, _VERSION, _IGNORE_OUTGOING = 5, 10, 23
_TPACKET_V2 = 1
_FRAME_BYTES = 2048
_BLOCK_BYTES = 1 << 16
_BLOCKS = 128
_FRAMES = _BLOCK_BYTES // _FRAME_BYTES * _BLOCKS
_BATCH = 64  # then the packets that are due are sent
_HEADER = struct.Struct("=IIIHHII")  # status, length, captured, offset, ..., seconds, nanoseconds
_STATUS = struct.Struct("=I")
_OURS, _KERNELS = 1, 0
_TRUSTED_S = 0.1  # an age beyond it comes from a clock that was set


class Port:
    """An interface of this network namespace, for receiving and sending packets."""

    def __init__(self, interface: str) -> None:
        """Listen on *interface*.

        Raises:
            TestBedError: the kernel cannot.
        """
        shape = struct.pack("=IIII", _BLOCK_BYTES, _BLOCKS, _FRAME_BYTES, _FRAMES)
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.settimeout(0)
            self._socket.setsockopt(_PACKET, _VERSION, _TPACKET_V2)
            self._socket.setsockopt(_PACKET, _IGNORE_OUTGOING, 1)
            self._socket.setsockopt(_PACKET, _RX_RING, shape)
            self._ring = mmap.mmap(self._socket.fileno(), _BLOCK_BYTES * _BLOCKS)
            self._socket.bind((interface, _IPV4))
        except OSError as error:
            raise TestBedError(
                f"the kernel does not let this program read packets ({error.strerror}); load its module `af_packet`"
            ) from error
        self._next = 0

    def fileno(self) -> int:
        """Readable when packets have come."""
        return self._socket.fileno()

    def take(self) -> Iterator[tuple[float, bytes]]:
        """Some of the packets that have come, each with its time on the clock of `time.monotonic`."""
        ahead_s = time.time() - time.monotonic()
        for _ in range(_BATCH):
            at = self._next * _FRAME_BYTES
            status, _, size, start, _, seconds, nanoseconds = _HEADER.unpack_from(self._ring, at)
            if not status & _OURS:
                return
            packet = self._ring[at + start : at + start + size]
            _STATUS.pack_into(self._ring, at, _KERNELS)
            self._next = (self._next + 1) % _FRAMES
            now_s = time.monotonic()
            came_s = seconds + nanoseconds * 1e-9 - ahead_s
            yield (came_s if 0 <= now_s - came_s < _TRUSTED_S else now_s), packet

    def send(self, packet: bytes) -> None:
        """Send *packet*; if the interface is down, it is lost."""
        with suppress(OSError):
            self._socket.send(packet)
