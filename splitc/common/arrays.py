"""Read `.npy` and `.npz` files that may be damaged or hostile."""

from pathlib import Path

import numpy as np

from splitc.common.values import Array


def read_arrays(path: Path) -> Array | dict[str, Array]:
    """Return the array in the `.npy` file *path*, or the arrays in an `.npz` file by name.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it does not contain arrays, or more than memory holds; the message says why.
    """
    try:
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
            if isinstance(found, np.ndarray):
                return found
            with found:
                return {name: _array(found[name], name) for name in found.files}
    except OSError as error:
        if error.errno is not None:
            raise
        raise ValueError(str(error)) from error
    except MemoryError as error:
        raise ValueError(f"it announces more than memory holds: {error}") from error
    # numpy, zipfile, and the parser of headers raise a dozen other kinds for a damaged file
    except Exception as error:
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from error


def _array(value: object, name: str) -> Array:
    if not isinstance(value, np.ndarray):  # a member of the archive that is no array
        raise ValueError(f"'{name}' is not an array")  # noqa: TRY004 - the file is wrong, not the caller
    return value
