"""Fit `splitc/profile/targets/roofline.py` to measured tables; `benchmarks/fit_targets.py` runs it."""
