"""The server on a Ray cluster of several machines."""
