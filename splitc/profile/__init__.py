"""Seconds per unit: recorded, measured, imported or predicted."""
