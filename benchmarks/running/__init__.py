"""How pairs do when they run, over real and emulated networks; `benchmarks/runtime.py` runs it."""
