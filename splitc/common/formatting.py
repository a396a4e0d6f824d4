"""Format seconds, bytes and rates for people: three significant digits and an SI prefix; and show any text safely."""

import math
import re

_LARGE = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SMALL = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))
# Controls (C0, DEL, C1), marks and overrides of the direction of text, breaks of lines, surrogates, invisible tags.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_MAX_BYTE, _MAX_SHORT = 0xFF, 0xFFFF


def format_seconds(seconds: float) -> str:
    """Return for example "12.3 ms"."""
    return _format(seconds, "s", _SMALL)


def format_seconds_range(low: float, high: float) -> str:
    """Return for example "0.98 to 12.3 ms": both values have the unit that suits *high*."""
    text = format_seconds(high)
    scale = high / float(text.split()[0]) if high else 1.0
    return f"{float(f'{low / scale:.3g}'):g} to {text}"


def format_source(source: str, calibration_runs: int) -> str:
    """Return for example "predicted, calibrated with 2 runs": where times come from."""
    if not calibration_runs:
        return source
    return f"{source}, calibrated with {plural(calibration_runs, 'run')}"


def plural(count: int, noun: str) -> str:
    """Return for example "1 run" or "3 runs"; *noun* is a noun whose plural ends in s."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def format_bytes(count: float) -> str:
    """Return for example "401 kB"; a kB is 1000 bytes."""
    return _format(count, "B", _LARGE)


def format_rate(bits_per_s: float) -> str:
    """Return for example "6.3 Mbit/s"."""
    return _format(bits_per_s, "bit/s", _LARGE)


def format_si(value: float, unit: str) -> str:
    """Return for example "2.85 GHz"; values below one have no prefix."""
    return _format(value, unit, _LARGE)


def _format(value: float, unit: str, prefixes: tuple[tuple[float, str], ...]) -> str:
    if not value:
        return f"0 {unit}"
    rounded = float(f"{value:.3g}")  # before the prefix is chosen: 999.9 kB is 1 MB
    scale, prefix = next((pair for pair in prefixes if abs(rounded) >= pair[0]), prefixes[-1])
    return f"{rounded / scale:g} {prefix}{unit}"


def format_share(share: float) -> str:
    """Return *share* as a percentage with two decimals, rounded up because it is an upper bound."""
    return f"{math.ceil(round(share * 1e4, 6)) / 100:g} %"


def escape_controls(text: str) -> str:
    r"""Return *text* in one line, with all that could steer a terminal or hide text as escapes such as `\x1b`."""
    return _CONTROLS.sub(_escape, text)


def escape_inside(value: object) -> object:
    """Return *value* with `escape_controls` if it is text: what a template of a page shows."""
    return (
        escape_controls(value) if type(value) is str else value
    )  # not Markup, which the template itself makes


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in _SHORT:
        return _SHORT[found[0]]
    return (
        f"\\x{code:02x}"
        if code <= _MAX_BYTE
        else f"\\u{code:04x}"
        if code <= _MAX_SHORT
        else f"\\U{code:08x}"
    )
