"""Models and pipelines to try splitc on, built here with seeded random weights."""
