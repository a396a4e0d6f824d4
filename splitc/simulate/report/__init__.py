"""What a simulation came to, in figures and as a page."""
