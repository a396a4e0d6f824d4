"""Names of test cases that are the same in every process."""


def label(value: object) -> str:
    """A function or class by its name, without the address that `str` would show; anything else as it is."""
    name = getattr(value, "__qualname__", None)
    return name.replace(".<locals>", "") if isinstance(name, str) else str(value)[:60]
