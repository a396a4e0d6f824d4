"""Run every cut, compare it with the whole, and judge what rounding explains."""
