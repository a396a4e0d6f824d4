"""Fit `splitc/terms.py` to measured tables; `benchmarks/fit_targets.py` runs it."""
