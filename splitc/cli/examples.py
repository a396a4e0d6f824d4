"""Examples at the end of a command's help."""


def examples(*lines: str) -> str:
    """Return an epilog that shows *lines* as they are; the backspace tells click not to rewrap them."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
