"""Make and configure network interfaces and routes through the kernel, without the program `ip`.

Everything but the far end of a pair is in the network namespace of this process. See rtnetlink(7), netdevice(7), packet(7);
numbers are from the kernel's headers.
"""

import array
import errno
import fcntl
import os
import socket
import struct

from splitc.common.errors import TestBedError

_NEWLINK, _NEWROUTE = 16, 24
_REQUEST, _ACK, _REPLACE, _ONLY_NEW, _CREATE = 0x1, 0x4, 0x100, 0x200, 0x400
_IFNAME, _LINKINFO, _NET_NS_FD = 3, 18, 28
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_NO_INTERFACE_YET = bytes(16)  # struct ifinfomsg
_DESTINATION, _INTERFACE, _METRICS = 1, 4, 8
_CONGESTION_CONTROL = 16  # of the metrics
_MAIN_TABLE, _BY_ADMINISTRATOR, _TO_NEIGHBOURS, _UNICAST = 254, 4, 253, 1
_ADDRESS_BITS = 24

_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_SET_ADDRESS, _SET_NETMASK, _SET_HARDWARE = 0x8916, 0x891C, 0x8924
_ETHTOOL = 0x8946
_UP, _NO_ARP = 0x1, 0x80
_ETHERNET = 1
# Checksums and segments must be made before a packet leaves: no hardware behind our interfaces makes them.
_OFFLOADS = 0x17, 0x1F, 0x24  # checksums, TCP's segments, any segments

# Both ends have the same hardware address and no ARP: only IP crosses the link, and no entry expires.
_HARDWARE = bytes.fromhex("02005370 6c74")


def make_pair(name: str, far_name: str, far_namespace: int) -> None:
    """Make two interfaces joined by a wire: *name* in this network namespace, *far_name* in that of an open file.

    Raises:
        TestBedError: the kernel cannot.
    """
    peer = (
        _NO_INTERFACE_YET
        + _text(_IFNAME, far_name)
        + _attribute(_NET_NS_FD, struct.pack("=I", far_namespace))
    )
    data = _attribute(_INFO_DATA, _attribute(_VETH_PEER, peer))
    body = _NO_INTERFACE_YET + _text(_IFNAME, name) + _attribute(_LINKINFO, _text(_INFO_KIND, "veth") + data)
    number = _request(_NEWLINK, _CREATE | _ONLY_NEW, body)
    if number:
        raise TestBedError(
            f"the kernel cannot make a pair of interfaces ({os.strerror(number)}); load its module `veth`"
        )


def use_congestion_control(name: str, address: str, algorithm: str) -> bool:
    """Let TCP use *algorithm* on connections over the interface with this *address*; return whether the kernel has it.

    The namespace's setting would do the same, but accepts only what the administrator allows to all users. A route
    accepts any. The route is gone when the interface is taken down.

    Raises:
        TestBedError: the kernel refuses the route.
    """
    network = socket.inet_aton(address)[: _ADDRESS_BITS // 8].ljust(4, b"\0")
    # struct rtmsg
    kind = (socket.AF_INET, _ADDRESS_BITS, 0, 0, _MAIN_TABLE, _BY_ADMINISTRATOR, _TO_NEIGHBOURS, _UNICAST, 0)
    body = (
        struct.pack("=8BI", *kind)
        + _attribute(_DESTINATION, network)
        + _attribute(_INTERFACE, struct.pack("=I", socket.if_nametoindex(name)))
        + _attribute(_METRICS, _text(_CONGESTION_CONTROL, algorithm))
    )
    number = _request(_NEWROUTE, _CREATE | _REPLACE, body)
    if number not in (0, errno.EINVAL):
        raise TestBedError(f"the kernel refuses a route over the emulated link ({os.strerror(number)})")
    return number == 0


def set_up(name: str, address: str | None = None) -> None:
    """Bring the interface *name* of this network namespace up; with an IPv4 *address* it is an end of the link."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        if address is not None:
            _ask(kernel, _SET_HARDWARE, name, struct.pack("=H6s", _ETHERNET, _HARDWARE))
            _ask(kernel, _SET_ADDRESS, name, _ipv4(address))
            _ask(kernel, _SET_NETMASK, name, _ipv4("255.255.255.0"))
            for command in _OFFLOADS:
                _switch_off(kernel, name, command)
        _set_flags(kernel, name, on=_UP | _NO_ARP)


def take_down(name: str) -> None:
    """Take an interface down: its routes are gone, and no address is reachable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        _set_flags(kernel, name, off=_UP)


def bring_back(name: str) -> None:
    """Bring an interface up that was taken down; its address and the kernel's own route come back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as kernel:
        _set_flags(kernel, name, on=_UP)


def _request(what: int, how: int, body: bytes) -> int:
    """Send a request by rtnetlink; return the error number, or zero."""
    header = struct.pack("=IHHII", 16 + len(body), what, _REQUEST | _ACK | how, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.sendto(header + body, (0, 0))
        # The answer: a header of 16 bytes, then a negative error number or zero.
        (number,) = struct.unpack_from("=i", kernel.recv(1 << 16), 16)
    return -int(number)


def _set_flags(kernel: socket.socket, name: str, *, on: int = 0, off: int = 0) -> None:
    flags = struct.unpack_from("=H", _ask(kernel, _GET_FLAGS, name, b""), 16)[0]
    _ask(kernel, _SET_FLAGS, name, struct.pack("=H", flags & ~off | on))


def _ask(kernel: socket.socket, request: int, name: str, value: bytes) -> bytes:
    """An `ioctl` about an interface: its name, then a union of 24 bytes."""
    return fcntl.ioctl(kernel, request, struct.pack("16s24s", name.encode(), value))


def _switch_off(kernel: socket.socket, name: str, command: int) -> None:
    value = array.array("I", [command, 0])
    _ask(kernel, _ETHTOOL, name, struct.pack("=Q", value.buffer_info()[0]))


def _ipv4(address: str) -> bytes:
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))


def _attribute(kind: int, value: bytes) -> bytes:
    padding = -len(value) % 4
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(padding)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")
