"""The device side: decide, run the head, send the rest, fall back."""
