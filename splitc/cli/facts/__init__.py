"""The records that `--json` prints, a module per command; `schemas/` describes each of them."""
