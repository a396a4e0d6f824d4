"""`splitc`, also as `python -m splitc`."""

import sys


def main() -> None:
    """Start the command line; if a library is missing, say what to install."""
    try:
        from splitc.cli.main import main as start  # noqa: PLC0415 - so that its absence can be explained
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "splitc":
            raise
        sys.exit(
            f"error: the command line needs {error.name}; install it with `pip install 'splitc[compile]'`"
        )
    start()


if __name__ == "__main__":
    main()
