"""Both sides on this machine, to watch the scheduler decide."""
