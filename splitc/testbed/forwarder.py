"""The program behind the link: it makes the namespaces, carries packets between them, and ends their programs.

The bed starts it, and talks to it over the socket that is its stdin: a line with a command, a line of JSON back. When
that socket is closed, or the bed's process ends for any reason, every process in the namespaces is killed. With the
last one, the kernel removes namespaces and interfaces.
"""

import gc
import json
import os
import select
import socket
import sys
import time
from dataclasses import asdict
from typing import TextIO

from splitc.common.errors import TestBedError
from splitc.testbed import interfaces
from splitc.testbed.emulated_link import LinkDirection
from splitc.testbed.namespaces import (
    Namespace,
    end_processes,
    leave_user_namespace,
    may_make_networks,
    new_network,
)
from splitc.testbed.packets import ETHERNET_BYTES, Port
from splitc.testbed.realtime import be_prompt
from splitc.testbed.spec import LinkSpec, from_json

DEVICE_ADDRESS, CLOUD_ADDRESS = "10.77.0.1", "10.77.0.2"
_END = "link"  # the interface in each of the two namespaces
USUAL_CONGESTION_CONTROL = "cubic"  # the default of Linux, on phones and most servers
_LONGEST_NAME_BYTES = 16  # of a congestion control
_LONGEST_S = 60.0
_LEARN = 0.1
_EARLIEST_S = 0.0001


class Side:
    """A namespace, and this program's end of its wire.

    Attributes:
        congestion_control: TCP's on the link.
    """

    def __init__(self, name: str, address: str, namespace: Namespace) -> None:
        self.namespace = namespace
        self._address = address
        interfaces.make_pair(name, _END, namespace.fd)
        interfaces.set_up(name)
        self.port = Port(name)
        with namespace.entered():
            interfaces.set_up("lo")
            interfaces.set_up(_END, address)
            self.congestion_control = (
                USUAL_CONGESTION_CONTROL
                if interfaces.use_congestion_control(_END, address, USUAL_CONGESTION_CONTROL)
                else _usual_congestion_control()
            )

    def take_down(self) -> None:
        """Take its network away."""
        with self.namespace.entered():
            interfaces.take_down(_END)

    def bring_back(self) -> None:
        """Give its network back."""
        with self.namespace.entered():
            interfaces.bring_back(_END)
            interfaces.use_congestion_control(_END, self._address, USUAL_CONGESTION_CONTROL)


def _usual_congestion_control() -> str:
    """The default of connections in this namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as some:
        name = some.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _LONGEST_NAME_BYTES)
    return name.rstrip(b"\0").decode()


class ForwardedLink:
    """Both sides, and a direction each way.

    Attributes:
        own_user: whether the namespaces belong to a user namespace of their own.
    """

    def __init__(self, spec: LinkSpec) -> None:
        self.own_user = not may_make_networks()
        if self.own_user:
            leave_user_namespace()
        namespaces = new_network(), new_network()
        new_network().close()  # this process stays in it, with the other ends of the wires
        self.device = Side("device", DEVICE_ADDRESS, namespaces[0])
        self.cloud = Side("cloud", CLOUD_ADDRESS, namespaces[1])
        now_s = time.monotonic()
        self.up, self.down = (
            LinkDirection(spec.uplink, spec, now_s),
            LinkDirection(spec.downlink, spec, now_s),
        )
        self._ways = (
            (self.device.port, self.up, self.cloud.port),
            (self.cloud.port, self.down, self.device.port),
        )

    def carry(self) -> float:
        """Take packets that have come, send those that are due; return the time until the next is due."""
        for near, line, far in self._ways:
            for came_s, packet in near.take():
                line.offer(packet, len(packet) - ETHERNET_BYTES, came_s)
            for packet in line.arrivals(time.monotonic()):
                far.send(packet)
        return min(self.up.next_s(), self.down.next_s()) - time.monotonic()

    def obey(self, command: str) -> dict[str, object]:
        """Carry out a command from the bed; return the answer."""
        word, _, rest = command.partition(" ")
        if word == "change":
            spec, now_s = from_json(rest), time.monotonic()
            self.up.change(spec.uplink, spec, now_s)
            self.down.change(spec.downlink, spec, now_s)
        elif word == "cut":
            self.device.take_down()
        elif word == "black_hole":
            self.up.black_hole = self.down.black_hole = True
        elif word == "restore":
            self.up.black_hole = self.down.black_hole = False
            self.device.bring_back()
        elif word == "counts":
            return {"up": asdict(self.up.counts()), "down": asdict(self.down.counts())}
        return {}

    def facts(self) -> dict[str, object]:
        """What the bed must know to start programs in the namespaces."""
        return {
            "user": f"/proc/{os.getpid()}/ns/user" if self.own_user else None,
            "device": self.device.namespace.path,
            "cloud": self.cloud.namespace.path,
            "congestion_control": self.device.congestion_control,
        }

    def end(self) -> None:
        """Kill all processes on both sides."""
        end_processes([self.device.namespace, self.cloud.namespace])


def serve(link: ForwardedLink, bed: socket.socket, commands: TextIO, owner: int) -> None:
    """Carry packets until the bed is closed or the process with the descriptor *owner* has ended."""
    told = bed.fileno()
    watched = [told, owner, link.device.port.fileno(), link.cloud.port.fileno()]
    wait_s = early_s = 0.0
    while True:
        sleep_s = min(max(wait_s - early_s, 0.0), _LONGEST_S)
        began_s = time.monotonic()
        ready, _, _ = select.select(watched, [], [], sleep_s)
        if sleep_s and not ready:
            # An idle machine wakes up a tenth of a millisecond late: wake up that much earlier, then spin.
            late_s = time.monotonic() - began_s - sleep_s
            early_s = min(early_s + _LEARN * (late_s - early_s), _EARLIEST_S)
        if owner in ready:
            return
        if told in ready:
            command = commands.readline()
            if not command:
                return
            _say(bed, link.obey(command.strip()))
        wait_s = link.carry()


def _say(bed: socket.socket, value: object) -> None:
    bed.sendall(json.dumps(value).encode() + b"\n")


def main(owner_pid: int) -> int:
    """Be the link of the bed in the process *owner_pid*; return the exit status."""
    be_prompt()
    with (
        socket.socket(fileno=os.dup(sys.stdin.fileno())) as bed,
        bed.makefile("r", encoding="utf-8") as commands,
    ):
        try:
            owner = os.pidfd_open(owner_pid)
            link = ForwardedLink(from_json(commands.readline()))
        except TestBedError as error:
            _say(bed, {"error": str(error)})
            return 1
        except OSError as error:
            _say(bed, {"error": f"the test bed cannot be made on this machine: {error}"})
            return 1
        # No cycles are made here, and a garbage collection would delay packets.
        gc.disable()
        try:
            _say(bed, link.facts())
            serve(link, bed, commands, owner)
        except ConnectionError:
            return 0  # the bed's process ended while it was answered
        finally:
            link.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
