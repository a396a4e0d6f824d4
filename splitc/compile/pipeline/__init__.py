"""Pipelines: several models in turn, some of them repeatedly, cut between stages, iterations and units."""
