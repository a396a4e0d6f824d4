# ruff: noqa: T201 - a program: it prints
"""Stands for adb and a phone: `adb devices`, `-s SERIAL shell|push|pull`, as recorded from a session with real ones.

The folder PHONE is the phone's storage: its `devices` file holds what is plugged in ("SERIAL STATE" on each line), and
commands really run there. When the phone is gone from that file, running commands lose their stdin, as on a real one.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

PHONE = Path(os.environ["PHONE"])
PLACE = "/data/local/tmp"
ROOT = str(PHONE) + PLACE


def plugged() -> dict[str, str]:
    lines = (PHONE / "devices").read_text(encoding="utf-8").splitlines()
    return dict(line.split(" ", 1) for line in lines if line)


def main(words: list[str]) -> int:
    if words == ["devices"]:
        print("List of devices attached")
        for name, state in plugged().items():
            print(f"{name}\t{state}")
        print()
        return 0
    dash_s, serial, verb, *rest = words
    assert dash_s == "-s"
    if serial not in plugged():
        print(f"error: device '{serial}' not found", file=sys.stderr)
        return 1
    if verb == "shell":
        return shell(serial, rest[0])
    return copy(verb, *rest)


def shell(serial: str, command: str) -> int:
    environment = {**os.environ, "PATH": f"{PHONE / 'bin'}:{os.environ['PATH']}"}
    process = subprocess.Popen(
        ["sh", "-c", command.replace(PLACE, ROOT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    stdin, stdout = process.stdin, process.stdout
    assert stdin is not None
    assert stdout is not None

    def forward() -> None:
        while data := os.read(0, 1024):
            os.write(stdin.fileno(), data)
        stdin.close()

    def watch() -> None:
        while serial in plugged():
            time.sleep(0.05)
        stdin.close()
        os._exit(1)

    for job in (forward, watch):
        threading.Thread(target=job, daemon=True).start()
    for line in stdout:
        if serial not in plugged():
            return 1
        sys.stdout.write(line.decode().replace(ROOT, PLACE))
        sys.stdout.flush()
    return process.wait()


def copy(verb: str, source: str, target: str) -> int:
    if verb == "pull":
        source = source.replace(PLACE, ROOT)
    else:
        target = target.replace(PLACE, ROOT)
        if (PHONE / "full").exists() and Path(source).suffix == ".onnx":
            print(
                f"adb: error: failed to copy '{source}' to '{target}': remote No space left on device",
                file=sys.stderr,
            )
            return 1
    if not Path(source).is_file():
        print(
            f"adb: error: failed to stat remote object '{source}': No such file or directory", file=sys.stderr
        )
        return 1
    shutil.copyfile(source, target)
    print(f"{source}: 1 file {verb}ed, 0 skipped.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
