"""The results of a simulation, as figures and as a page."""
