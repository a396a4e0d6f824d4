"""Bounds that no scheduler can beat, and the steady state of a policy."""
