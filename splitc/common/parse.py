"""Parse JSON and TOML that may be damaged or hostile: each failure is a ValueError with a reason for people."""

import json
import tomllib

_TOO_DEEP = "tables are nested too deeply"
_DIGITS = "a number in it has too many digits"


def parse_json(data: bytes | str) -> object:
    """Return the JSON value in *data*.

    Raises:
        ValueError: it is not JSON; the message says why.
    """
    try:
        value: object = json.loads(data)
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except ValueError as error:
        raise ValueError(_reason(error)) from error
    return value


def parse_toml(data: bytes) -> dict[str, object]:
    """Return the TOML table in *data*.

    Raises:
        ValueError: it is not TOML; the message says why.
    """
    try:
        return tomllib.loads(data.decode("utf-8").replace("\r\n", "\n"))
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    except ValueError as error:
        raise ValueError(_reason(error)) from error


def _reason(error: ValueError) -> str:
    """What *error* says; Python's limit on the digits of a number is the only one that speaks to programmers."""
    known = isinstance(error, json.JSONDecodeError | tomllib.TOMLDecodeError | UnicodeDecodeError)
    return str(error) if known or "integer string conversion" not in str(error) else _DIGITS


def parse_whole(text: str) -> int | None:
    """Return the whole number that *text* writes with at most 18 digits, or None."""
    longest = 18  # fits into 64 bits
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= longest else None
