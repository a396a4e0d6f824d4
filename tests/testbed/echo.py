"""A server that answers as many bytes as it is asked for, and a client that times that; run as programs.

`echo.py serve HOST` prints a line when it listens. `echo.py ask HOST` reads lines `UPLINK DOWNLINK` (bytes) and prints
for each the seconds it took, or the name of the error. What takes over `PATIENCE_S` is given up.
"""

# ruff: noqa: T201 - what a program prints is what it is for
import socket
import struct
import sys
import time

PORT = 7000
PATIENCE_S = 1.0
HEADER = struct.Struct("!QQ")


def serve(host: str) -> None:
    with socket.create_server((host, PORT)) as listener:
        print(flush=True)
        while True:
            connection, _ = listener.accept()
            with connection:
                answer(connection)


def answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(5 * PATIENCE_S)
    try:
        while header := receive(connection, HEADER.size):
            uplink_bytes, downlink_bytes = HEADER.unpack(header)
            receive(connection, uplink_bytes)
            connection.sendall(bytes(downlink_bytes))
    except OSError:
        return


def receive(connection: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = connection.recv(size - len(received))
        if not part:
            return b""
        received += part
    return bytes(received)


def ask(host: str) -> None:
    connection: socket.socket | None = None
    for line in sys.stdin:
        uplink_bytes, downlink_bytes = map(int, line.split())
        try:
            if connection is None:
                connection = socket.create_connection((host, PORT), PATIENCE_S)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            began_s = time.perf_counter()
            connection.sendall(HEADER.pack(uplink_bytes, downlink_bytes) + bytes(uplink_bytes))
            receive(connection, downlink_bytes)
            print(time.perf_counter() - began_s, flush=True)
        except OSError as error:
            print(type(error).__name__, error.errno, flush=True)
            if connection is not None:
                connection.close()
            connection = None


if __name__ == "__main__":
    {"serve": serve, "ask": ask}[sys.argv[1]](sys.argv[2])
