"""`python -m splitc` is `splitc`."""

from splitc.cli.main import main

main()
