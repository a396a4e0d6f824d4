"""Damage files and values: each seed gives another damage, the same one each time."""

import json
import random
import re
from collections.abc import Iterator
from typing import Any

NUMBERS: tuple[Any, ...] = (
    0,
    -1,
    1,
    2**31,
    2**63 - 1,
    2**63,
    -(2**63) - 1,
    10**400,
    -(10**30),
    0.0,
    -0.0,
    1e-320,
    1e308,
)
TEXTS = (
    "",
    " ",
    "\0",
    "\x1b[2J",
    "\u202e",
    "a" * 5000,
    "../x",
    "/",
    ".",
    "~",
    "CON",
    "float32",
    "'\"`$(",
    "µ模",
)
OTHERS: tuple[Any, ...] = (
    None,
    True,
    False,
    [],
    {},
    [[]],
    [1],
    ["a"],
    {"a": 1},
    float("nan"),
    float("inf"),
    -float("inf"),
)
TOML_VALUES = (
    *(
        "0",
        "-1",
        "1",
        "9" * 30,
        "9" * 5000,
        "0x" + "f" * 5000,
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e308",
        "1e-320",
        "true",
    ),
    *(
        '""',
        '"\\u0000"',
        '"\\u001b[2J"',
        '"../x"',
        '"a"',
        "[]",
        "{}",
        "[1, 2]",
        '["a"]',
        "[" * 3000,
        "1979-05-27",
        "'''",
    ),
)
OPTIONS = (
    *(
        "",
        " ",
        "-1",
        "0",
        "1",
        "0.5",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e400s",
        "9" * 30,
        "9" * 5000,
        "٣",
        "²",
        "0x10",
    ),
    *(
        "=",
        "a=",
        "=1",
        "a=1",
        "a=9" + "9" * 5000,
        "a=1,",
        "a=-1",
        "1ms",
        "1e308s",
        "1e-320s",
        "1.5.5MB",
        "1e300GB",
        "1e-300J",
    ),
    *(
        "\x1b[2J",
        "\udcff",
        "\u202e",
        "..",
        "1..",
        "..1",
        "4..1",
        "1,,2",
        "a" * 5000,
        "local",
        "pixel7",
        "/",
        "~",
        ".",
    ),
)


def bytes_of(data: bytes, seed: int) -> bytes:
    """Return *data* with bits turned, and parts lost, doubled or replaced."""
    chance = random.Random(seed)
    damaged = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 30))):
        at = chance.randrange(len(damaged) + 1)
        match chance.randrange(6):
            case 0 if at < len(damaged):
                damaged[at] ^= 1 << chance.randrange(8)
            case 1:
                del damaged[at : at + chance.choice((1, 4, 50, 10_000))]
            case 2:
                damaged[at:at] = damaged[at : at + chance.choice((1, 8, 100))]
            case 3:
                damaged[at : at + 4] = chance.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\0\x80", b"\x1b[2J")
                )
            case 4:
                del damaged[at:]
            case _:
                damaged[at:at] = chance.randbytes(chance.choice((1, 4, 40)))
    return bytes(damaged)


def json_of(text: str, seed: int) -> bytes:  # noqa: C901 - one case for each damage
    """Return the JSON *text* with some values replaced, removed, renamed or added."""
    chance = random.Random(seed)
    value = json.loads(text)
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        places = list(_places(value))
        if not places:
            break
        holder, key = chance.choice(places)
        match chance.randrange(8):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, dict):
                holder[chance.choice(TEXTS)] = holder.pop(key)
            case 2 if isinstance(holder, list):
                holder.insert(0, holder[key])
            case 3:
                holder[key] = chance.choice(OTHERS)
            case 4:
                holder[key] = chance.choice(TEXTS)
            case 5 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
                holder[key] = holder[key] * chance.choice((-1, 0, 2, 1e9, 1e-9, 1e300))
            case _:
                holder[key] = chance.choice(NUMBERS)
    written = json.dumps(value)
    if chance.randrange(10) == 0:
        written = re.sub(r"\b\d+\b", "9" * 5000, written, count=1)
    if chance.randrange(20) == 0:
        written = "[" * 100_000 + written
    return written.encode()


def toml_of(text: str, seed: int) -> bytes:
    """Return the TOML *text* with some values replaced, and lines lost or doubled."""
    chance = random.Random(seed)
    lines = text.splitlines()
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        at = chance.randrange(len(lines))
        match chance.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(chance.randrange(len(lines) + 1), lines[at])
            case _:
                values = list(
                    re.finditer(r"(?<=[=\[,] )[^\s,{}\[\]]+|(?<=\[)[^\s,{}\[\]]+|\w+(?= =)", lines[at])
                )
                if values:
                    one = chance.choice(values)
                    lines[at] = lines[at][: one.start()] + chance.choice(TOML_VALUES) + lines[at][one.end() :]
        if not lines:
            return b""
    damaged = "\n".join(lines).encode()
    return bytes_of(damaged, seed) if chance.randrange(10) == 0 else damaged


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in list(items):
        yield value, key
        yield from _places(item)
