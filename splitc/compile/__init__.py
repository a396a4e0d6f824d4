"""The stages in order: from a model or a pipeline to a verified bundle."""
