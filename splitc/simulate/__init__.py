"""Simulations of many devices that share one cloud: compare policies before buying any machine."""
